"""What somebody reaches who may write policies, and nothing else, in one namespace: on a real API server."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.names import RUN_REQUEST_ANNOTATION, cron_job_name
from tests.controlplane.conftest import StartController
from tests.controlplane.kubelet import Kubelet, report
from tests.controlplane.policies import Policies, Policy, manifest
from tests.support.kube import Kubectl, eventually
from tests.support.pod_security import violations

RESTRICTION = Path(__file__).parents[2] / "examples" / "kubernetes" / "restrict-policies.yaml"

Spec = dict[str, Any]


class Author:
    """Somebody with a Role on SessionPolicies."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self.namespace = namespace
        self.name = f"author-{secrets.token_hex(4)}"
        verbs = "--verb=get,list,watch,create,update,patch,delete"
        where = ("-n", namespace)
        kubectl.run("create", "role", self.name, verbs, "--resource=sessionpolicies.sessionpolicy.dev", *where)
        kubectl.run("create", "rolebinding", self.name, f"--role={self.name}", f"--user={self.name}", *where)

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        return self._kubectl.run(f"--as={self.name}", "-n", self.namespace, *arguments, stdin=stdin)

    def apply(self, document: Spec, *options: str) -> None:
        self.run("apply", *options, "-f", "-", stdin=json.dumps(document))

    def refused(self, document: Spec, *options: str) -> str:
        """What the server says."""
        with pytest.raises(subprocess.CalledProcessError) as raised:
            self.apply(document, *options)
        said: str = raised.value.stderr
        return said


@pytest.fixture
def author(policies: Policies) -> Author:
    return Author(policies.kubectl, policies.namespace)


def pod_spec(policy: Policy) -> Spec:
    found: Spec = policy.cron_job()["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def resource_version(policy: Policy) -> str:
    version: str = policy.cron_job()["metadata"]["resourceVersion"]
    return version


# --- a policy, and nothing else --------------------------------------------------------------------------------------


def test_a_policy_is_all_that_an_author_needs_rights_for(author: Author, policies: Policies) -> None:
    policy = policies.named()
    author.apply(manifest(policy.name))
    policy.await_ready()
    author.run("annotate", "spol", policy.name, f"{RUN_REQUEST_ANNOTATION}=now")
    eventually(lambda: len(policy.jobs()) == 1, what="the requested run is made")
    for verb, resource in (
        ("get", "secrets"),
        ("create", "pods"),
        ("create", "jobs.batch"),
        ("patch", "cronjobs.batch"),
        ("patch", "sessionpolicies.sessionpolicy.dev/status"),
        ("create", "sessionrevocations.sessionpolicy.dev"),
    ):
        with pytest.raises(subprocess.CalledProcessError) as raised:
            author.run("auth", "can-i", verb, *resource.split("/")[:1], *_subresource(resource))
        assert raised.value.stdout.strip() == "no", (verb, resource)


def _subresource(resource: str) -> list[str]:
    _, _, name = resource.partition("/")
    return [f"--subresource={name}"] if name else []


INJECTIONS: dict[str, Spec] = {
    "image": {"image": "evil"},
    "image of the job": {"job": {"image": "evil"}},
    "command": {"job": {"command": ["sh"], "args": ["-c", "id"]}},
    "service account": {"job": {"serviceAccountName": "admin"}},
    "environment": {"job": {"env": [{"name": "PYTHONPATH", "value": "/x"}]}},
    "labels": {"job": {"podLabels": {"app": "shop"}, "podAnnotations": {"sidecar.istio.io/inject": "true"}}},
    "volumes": {"job": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
    "security": {"job": {"securityContext": {"privileged": True}, "hostNetwork": True}},
    "pod template": {"template": {"spec": {"hostPID": True}}},
    "URL in clear": {"stores": {"database": {"url": "postgresql://elsewhere/db"}}},
    "Secret of another namespace": {
        "stores": {"database": {"urlFrom": {"secretKeyRef": {"name": "a", "key": "b", "namespace": "kube-system"}}}}
    },
    "extended resource": {"job": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
}


@pytest.mark.representative(3)
@pytest.mark.parametrize("spec", INJECTIONS.values(), ids=INJECTIONS)
def test_what_would_lead_into_the_pod_is_refused(author: Author, spec: Spec) -> None:
    assert "unknown field" in author.refused(manifest("injected", **spec))


def test_what_is_smuggled_past_the_check_of_fields_is_dropped_and_never_reaches_the_pod(
    author: Author, policies: Policies
) -> None:
    plain, smuggled = policies.ready(), policies.named()
    both = {"image": "evil", "job": {"retries": 0, "image": "evil", "command": ["sh"], "serviceAccountName": "admin"}}
    document = manifest(smuggled.name, **both)
    document["metadata"] |= {"labels": {"app": "shop"}, "annotations": {"linkerd.io/inject": "enabled"}}
    author.apply(document, "--validate=false")
    smuggled.await_ready()
    assert "evil" not in json.dumps(smuggled.get()["spec"])
    for policy in (plain, smuggled):
        assert policy.cron_job()["metadata"].get("annotations") is None
    there, here = (json.dumps(p.cron_job()["spec"]).replace(p.name, "policy") for p in (plain, smuggled))
    assert there == here


@pytest.mark.representative(1)
@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"requests": {"cpu": "-1"}}, "greater than or equal to 0"),
        ({"limits": {"memory": "-1Gi"}}, "greater than or equal to 0"),
        ({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}, "less than or equal to cpu limit"),
    ],
)
def test_resources_that_make_no_sense_are_refused_by_the_server(
    author: Author, policies: Policies, resources: Spec, words: str
) -> None:
    policy = policies.named()
    author.apply(manifest(policy.name, job={"resources": resources}))
    assert words in policy.await_condition("Ready", "False", "InvalidSpec")["message"]


def test_a_policy_named_like_another_one_s_cron_job_takes_nothing_from_it(policies: Policies) -> None:
    victim = policies.ready(f"{secrets.token_hex(4)}-" + "n" * 60)
    thief = policies.ready(cron_job_name(victim.name))
    assert victim.cron_job_name != thief.cron_job_name
    kubelet = Kubelet(policies.kubectl, policies.namespace)
    for policy in (victim, thief):
        job = policy.request_run()
        kubelet.finish(job, report())
        policy.await_record(job)
        assert len(policy.status()["history"]) == 1


# --- Pod Security ----------------------------------------------------------------------------------------------------


@pytest.fixture
def restricted(policies: Policies) -> Iterator[str]:
    """A namespace that admits only restricted Pods."""
    kubectl = policies.kubectl
    with kubectl.temporary_namespace("restricted") as namespace:
        kubectl.run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        eventually(lambda: kubectl.exists("serviceaccount", "default", namespace), what="the default service account")
        yield namespace


FULL: Spec = {
    "suspend": True,
    "dryRun": True,
    "logs": {"volumeClaim": "logs", "hashKeyFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    "alerts": {"operations": {"urlsFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}},
    "job": {
        "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
        "tolerations": [{"operator": "Exists"}],
        "resources": {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"cpu": "64", "memory": "1Ti"}},
    },
}


@pytest.mark.representative(2)
@pytest.mark.parametrize(
    "change",
    [
        None,
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod.update(hostPID=True),
        lambda pod: pod["volumes"].append({"name": "v", "hostPath": {"path": "/"}}),
        lambda pod: pod["securityContext"].pop("runAsNonRoot"),
        lambda pod: pod["securityContext"].update(runAsUser=0),
        lambda pod: pod["securityContext"].pop("seccompProfile"),
        lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"),
        lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
        lambda pod: pod["containers"][0].update(ports=[{"containerPort": 80, "hostPort": 80}]),
        lambda pod: pod.update(initContainers=[{"name": "plain", "image": "x"}]),
    ],
)
def test_the_server_and_the_unit_tests_judge_pod_security_alike(
    policies: Policies, restricted: str, change: Callable[[Spec], object] | None
) -> None:
    pod = pod_spec(policies.ready(**FULL))
    if change:
        change(pod)
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod}
    attempt = ("create", "--dry-run=server", "-n", restricted, "-f", "-")
    if not violations(document):
        assert change is None
        policies.kubectl.run(*attempt, stdin=json.dumps(document))
        return
    with pytest.raises(subprocess.CalledProcessError) as raised:
        policies.kubectl.run(*attempt, stdin=json.dumps(document))
    assert 'violates PodSecurity "restricted' in raised.value.stderr


# --- requested runs --------------------------------------------------------------------------------------------------


def test_requested_runs_are_made_one_at_a_time_and_the_last_request_counts(policies: Policies) -> None:
    policy, kubelet = policies.ready(), Kubelet(policies.kubectl, policies.namespace)
    first = policy.request_run("first")

    def annotate(token: str) -> None:
        annotation = f"{RUN_REQUEST_ANNOTATION}={token}"
        policies.kubectl.run("annotate", "spol", policy.name, "-n", policy.namespace, "--overwrite", annotation)

    for number in range(20):
        annotate(f"flood-{number}")
    policy.await_status(
        lambda status: any("run flood-19 starts" in c["message"] for c in status["conditions"]), "it is told"
    )
    assert [job["metadata"]["name"] for job in policy.jobs()] == [first]
    assert policy.status()["lastHandledRunRequest"] == "first"
    kubelet.finish(first, report())
    policy.await_status(lambda status: status["lastHandledRunRequest"] == "flood-19", "the last request is handled")
    (second,) = {job["metadata"]["name"] for job in policy.jobs()} - {first}
    kubelet.finish(second, report())
    policy.await_record(second)
    assert len(policy.status()["history"]) == 2


# --- the operator's configuration ------------------------------------------------------------------------------------


BIG = {"retries": 0, "resources": {"limits": {"cpu": "2"}}}


def test_a_policy_over_a_limit_is_refused_and_one_within_is_not(
    own: Policies, start_controller: StartController
) -> None:
    start_controller(own.namespace, SESSION_POLICY_JOB_MAX_CPU="1", SESSION_POLICY_JOB_ALLOW_LOG_VOLUMES="false")
    policy = own.named()
    policy.apply(job=BIG, logs={"volumeClaim": "data"})
    told = policy.await_condition("Ready", "False", "NotAllowed")
    assert "spec.job.resources.limits.cpu: 2 is over 1" in told["message"]
    assert "spec.logs.volumeClaim" in told["message"]
    policy.await_condition("Stalled", "True", "NotAllowed")
    assert "administrator" in policy.await_event("NotAllowed")
    assert not policy.has_cron_job()
    policy.apply()
    policy.await_ready()
    before = policy.cron_job()["spec"]
    # An edit that is refused leaves the CronJob, which asks for nothing that is not allowed.
    policy.apply(job=BIG)
    policy.await_condition("Ready", "False", "NotAllowed")
    assert policy.cron_job()["spec"] == before


@pytest.mark.exhaustive
@pytest.mark.representative(1)
@pytest.mark.parametrize("now", [{"job": BIG}, {"schedule": "nonsense"}], ids=["as it was", "broken since"])
def test_a_limit_that_is_lowered_stops_what_was_allowed_before_until_it_is_raised_again(
    own: Policies, start_controller: StartController, now: Spec
) -> None:
    first = start_controller(own.namespace)
    policy = own.ready(job=BIG)
    policy.apply(**now)
    first.stop()
    second = start_controller(own.namespace, SESSION_POLICY_JOB_MAX_CPU="1")
    eventually(lambda: policy.cron_job()["spec"]["suspend"] is True, what="the CronJob is suspended")
    policy.await_status(
        lambda s: any("no runs are started" in c["message"] for c in s["conditions"] if c["type"] == "Ready"), "told"
    )
    # Nobody gets round it: neither by hand nor by asking for a run.
    own.kubectl.run("annotate", "spol", policy.name, "-n", own.namespace, f"{RUN_REQUEST_ANNOTATION}=now")
    resume = json.dumps({"spec": {"suspend": False}})
    own.kubectl.run("patch", "cronjob", policy.cron_job_name, "-n", own.namespace, "--type=merge", "-p", resume)
    eventually(lambda: policy.cron_job()["spec"]["suspend"] is True, what="the CronJob is suspended again")
    assert policy.jobs() == []
    second.stop()
    start_controller(own.namespace, SESSION_POLICY_JOB_MAX_CPU="2")
    policy.apply(job=BIG)
    eventually(lambda: policy.cron_job()["spec"]["suspend"] is False, what="the CronJob is resumed")
    policy.await_ready()


@pytest.mark.exhaustive
def test_what_the_administrator_adds_to_the_pods_comes_and_goes_with_the_configuration(
    own: Policies, start_controller: StartController
) -> None:
    first = start_controller(own.namespace)
    policy = own.ready()
    plain = pod_spec(policy)
    first.stop()
    second = start_controller(
        own.namespace,
        SESSION_POLICY_JOB_POD_LABELS='{"team": "identity"}',
        SESSION_POLICY_JOB_POD_ANNOTATIONS='{"sidecar.istio.io/inject": "false"}',
        SESSION_POLICY_JOB_ENV='{"HTTPS_PROXY": "http://proxy:3128"}',
        SESSION_POLICY_JOB_SERVICE_ACCOUNT="cleaner",
    )
    eventually(lambda: pod_spec(policy).get("serviceAccountName") == "cleaner", what="the Pod template is changed")
    template = policy.cron_job()["spec"]["jobTemplate"]["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "identity"
    assert template["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in template["spec"]["containers"][0]["env"]
    # It is at rest: the server's own additions are not taken for somebody's changes.
    settled = resource_version(policy)
    policy.apply(schedule="1 1 1 1 1")
    eventually(lambda: policy.cron_job()["spec"]["schedule"] == "1 1 1 1 1", what="the edit has arrived")
    policy.apply()
    policy.await_ready()
    assert int(resource_version(policy)) > int(settled)
    second.stop()
    start_controller(own.namespace, SESSION_POLICY_RESYNC_SECONDS="1")
    eventually(lambda: "serviceAccountName" not in pod_spec(policy), what="the Pod template is as it was")
    template = policy.cron_job()["spec"]["jobTemplate"]["spec"]["template"]
    assert "team" not in template["metadata"]["labels"]
    assert not template["metadata"].get("annotations")
    assert _but_for_generation(template["spec"]) == _but_for_generation(plain)
    settled = resource_version(policy)
    # Another look at every policy, and nothing to do.
    other = own.ready()
    other.request_run()
    assert resource_version(policy) == settled


def _but_for_generation(spec: Spec) -> Spec:
    rest: Spec = json.loads(json.dumps(spec))
    del rest["containers"][0]["env"][0]
    return rest


# --- the example of an admission policy ------------------------------------------------------------------------------


def good(**changed: Any) -> Spec:
    source = {"urlFrom": {"secretKeyRef": {"name": "session-db", "key": "url"}}}
    return manifest("restricted", **{"stores": {"database": source}} | changed)


def secret(name: str) -> Spec:
    return {"secretKeyRef": {"name": name, "key": "url"}}


SESSIONS = secret("session-db")
REFUSED: dict[str, tuple[Spec, str]] = {
    "database": ({"stores": {"database": {"urlFrom": secret("billing-db")}}}, "not billing-db"),
    "redis": ({"stores": {"redis": {"urlFrom": secret("cache")}}}, "not cache"),
    "hash key": ({"logs": {"hashKeyFrom": secret("tls")}}, "not tls"),
    "operations": ({"alerts": {"operations": {"urlsFrom": secret("chat")}}}, "not chat"),
    "security": ({"alerts": {"security": {"urlsFrom": secret("chat")}}}, "not chat"),
    "table": ({"stores": {"database": {"urlFrom": SESSIONS, "table": {"name": "orders"}}}}, "table.name"),
    "schema": ({"stores": {"database": {"urlFrom": SESSIONS, "table": {"schema": "auth"}}}}, "table.schema"),
    "safety": ({"safety": {"maxDeletePercent": 51}}, "maxDeletePercent"),
    "volume": ({"logs": {"volumeClaim": "data"}}, "volumeClaim"),
}


def test_the_example_of_an_admission_policy_refuses_what_it_says_and_nothing_else(
    author: Author, policies: Policies
) -> None:
    kubectl = policies.kubectl
    for document in yaml.safe_load_all(RESTRICTION.read_text()):
        kubectl.apply(document)
    with kubectl.temporary_namespace("restricted") as namespace:
        kubectl.run("label", "namespace", namespace, "session-policies=restricted")
        restricted = Author(kubectl, namespace)

        def is_enforced() -> bool:
            try:
                restricted.apply(good(safety={"maxDeletePercent": 100}), "--dry-run=server")
            except subprocess.CalledProcessError as error:
                return "maxDeletePercent" in error.stderr
            return False

        eventually(is_enforced, what="the admission policy is enforced")
        for spec, words in REFUSED.values():
            assert words in restricted.refused(good(**spec), "--dry-run=server"), spec
            author.apply(good(**spec), "--dry-run=server")  # other namespaces are not concerned
        everything = {
            "stores": {
                "database": {"urlFrom": SESSIONS, "table": {"name": "web_sessions", "schema": "public"}},
                "redis": {"urlFrom": SESSIONS},
            },
            "alerts": {"operations": {"urlsFrom": SESSIONS}, "security": {"urlsFrom": SESSIONS}},
            "logs": {"volumeClaim": "session-logs", "hashKeyFrom": SESSIONS},
            "safety": {"maxDeletePercent": 10},
        }
        restricted.apply(good())
        restricted.apply(good(**everything))

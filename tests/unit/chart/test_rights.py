"""What the chart grants: exactly what is needed, nothing on the cluster where namespaces are given."""

from __future__ import annotations

from tests.support.chart import NAME, NAMESPACE, granted, of_kind, render

ALLOWED = {
    ("sessionpolicy.dev", "sessionpolicies"): {"get", "list", "watch"},
    ("sessionpolicy.dev", "sessionpolicies/status"): {"patch"},
    ("sessionpolicy.dev", "sessionrevocations"): {"get", "list", "watch", "delete"},
    ("sessionpolicy.dev", "sessionrevocations/status"): {"patch"},
    ("batch", "cronjobs"): {"get", "list", "watch", "create", "patch"},
    ("batch", "jobs"): {"get", "list", "watch", "create", "patch"},
    ("", "pods"): {"list", "watch"},
    ("", "events"): {"list", "create"},
}
ELECTION = {("coordination.k8s.io", "leases"): {"create", "get", "update"}}


def test_the_controller_may_do_exactly_what_it_does_and_read_no_secret() -> None:
    objects = render()
    (role,) = [r for r in of_kind(objects, "ClusterRole") if r["metadata"]["name"] == NAME]
    assert granted(role) == ALLOWED
    (binding,) = of_kind(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (account,) = of_kind(objects, "ServiceAccount")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": NAMESPACE}
    ]


def test_with_namespaces_given_the_controller_has_no_right_on_the_cluster() -> None:
    objects = render({"watchNamespaces": ["web", "shop"], "rbac": {"aggregateToDefaultRoles": False}})
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    cluster_wide = {manifest["kind"] for manifest in objects if "namespace" not in manifest["metadata"]}
    assert cluster_wide == {"CustomResourceDefinition"}
    roles = {role["metadata"]["namespace"]: granted(role) for role in of_kind(objects, "Role")}
    assert roles == {"web": ALLOWED, "shop": ALLOWED, NAMESPACE: ELECTION}
    bindings = of_kind(objects, "RoleBinding")
    assert {binding["metadata"]["namespace"] for binding in bindings} == {"web", "shop", NAMESPACE}
    (account,) = of_kind(objects, "ServiceAccount")
    for binding in bindings:
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": NAMESPACE}
        ]


def test_the_release_may_serve_its_own_namespace() -> None:
    roles = of_kind(render({"watchNamespaces": [NAMESPACE]}), "Role")
    assert [granted(role) for role in roles] == [ALLOWED, ELECTION]


def test_the_controllers_share_one_lease_of_their_own_namespace() -> None:
    for values in ({}, {"watchNamespaces": ["web"]}):
        roles = of_kind(render(values), "Role")
        (role,) = [role for role in roles if role["metadata"]["namespace"] == NAMESPACE]
        assert granted(role) == ELECTION
        named = [rule["resourceNames"] for rule in role["rules"] if rule["verbs"] != ["create"]]
        assert named == [[NAME]]


def test_readers_cannot_write_policies_and_nobody_writes_status_by_role() -> None:
    roles = {role["metadata"]["name"].rsplit("-", 1)[1]: role for role in of_kind(render(), "ClusterRole")}
    assert set().union(*granted(roles["view"]).values()) == {"get", "list", "watch"}
    assert set(granted(roles["edit"])) == {("sessionpolicy.dev", "sessionpolicies")}
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in roles["edit"]["metadata"]["labels"]
    assert roles["view"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert roles["edit"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"


def test_without_rbac_no_role_and_no_test_is_made() -> None:
    objects = render({"rbac": {"create": False, "aggregateToDefaultRoles": False}})
    kinds = {manifest["kind"] for manifest in objects}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Pod"}


def test_the_helm_test_may_only_handle_policies_of_one_namespace() -> None:
    for values, namespace in (({}, NAMESPACE), ({"watchNamespaces": ["web", "shop"]}, "web")):
        objects = render(values)
        (role,) = of_kind(objects, "Role", tests=True)
        assert granted(role) == {("sessionpolicy.dev", "sessionpolicies"): {"get", "create", "delete"}}
        assert role["metadata"]["namespace"] == namespace
        (pod,) = of_kind(objects, "Pod", tests=True)
        assert pod["spec"]["containers"][0]["command"][-1] == namespace
        assert pod["metadata"]["namespace"] == NAMESPACE


def test_r3_6_logging_out_is_a_power_of_its_own() -> None:
    """Writing policies does not bring it, and revocations name users: not even readers see them by a default role."""
    roles = of_kind(render(), "ClusterRole")
    (revoke,) = [r for r in roles if r["metadata"]["name"].endswith("-revoke")]
    assert not [label for label in revoke["metadata"]["labels"] if "aggregate" in label]
    assert set(granted(revoke)) == {("sessionpolicy.dev", "sessionrevocations")}
    for role in roles:
        if any("aggregate" in label for label in role["metadata"]["labels"]):
            assert not [resource for _, resource in granted(role) if "revocation" in resource]

"""The cache keeps the newest state of each object, in whatever order states arrive, and tombstones of finished Jobs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.kube import CRON_JOBS, JOBS, PODS, POLICIES, Kind
from controller.cache.indexer import Key
from controller.cache.object_cache import ObjectCache, parse_version
from policy.names import POLICY_LABEL
from tests.unit.controller.builders import JOB_UID, POLICY_UID, policy_resource, report, terminated
from tests.unit.controller.builders import job as job_resource
from tests.unit.controller.builders import pod as pod_resource

SHOP = ("web", "shop")
CRON_JOB_UID = "uid-of-cron-job"

Resource = dict[str, Any]


def at(version: int | str, resource: Resource, *, owner: str = "") -> Resource:
    """The resource, labelled, as it is stored under a resourceVersion."""
    metadata = resource["metadata"] | {"resourceVersion": str(version), "labels": {POLICY_LABEL: "shop"}}
    metadata.setdefault("namespace", "web")
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {**resource, "metadata": metadata}


def job(version: int, ended: str | None = None, **changed: Any) -> Resource:
    return at(version, job_resource(ended=ended, **changed), owner=CRON_JOB_UID)


def pod(version: int, **changed: Any) -> Resource:
    return at(version, pod_resource(**changed), owner=changed.get("owner", JOB_UID))


def cron_job(version: int, uid: str = CRON_JOB_UID, policy_uid: str = POLICY_UID) -> Resource:
    return at(version, {"metadata": {"name": "shop", "uid": uid, "generation": 1}, "spec": {}}, owner=policy_uid)


def names(cache: ObjectCache) -> list[str]:
    return [cached.resource()["metadata"]["name"] for cached in cache.jobs(SHOP)]


# --- the newest wins -----------------------------------------------------------------------------------------------


@dataclass
class World:
    """What really happened to some objects, and all that may be told of it."""

    revision: int = 0
    objects: dict[Key, Resource] = field(default_factory=dict)
    told: list[Callable[[ObjectCache], object]] = field(default_factory=list)

    def write(self, key: Key, uid: str, generation: int) -> None:
        self.revision += 1
        written = at(
            self.revision,
            {"metadata": {"namespace": key[0], "name": key[1], "uid": uid, "generation": generation}, "spec": {}},
        )
        self.objects[key] = written
        self.told.append(lambda cache: cache.upsert(CRON_JOBS, written))

    def delete(self, key: Key) -> None:
        self.revision += 1
        last = copy.deepcopy(self.objects.pop(key))
        last["metadata"]["resourceVersion"] = str(self.revision)
        self.told.append(lambda cache: cache.delete(CRON_JOBS, last))

    def list(self, namespace: str | None) -> None:
        listed = {key: found for key, found in self.objects.items() if namespace in (None, key[0])}
        version = self.revision

        def tell(cache: ObjectCache) -> None:
            for found in listed.values():
                cache.upsert(CRON_JOBS, found)
            cache.replace(CRON_JOBS, namespace, set(listed), version)

        self.told.append(tell)


KEYS: list[Key] = [("web", "a"), ("web", "b"), ("shop", "a")]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(KEYS)),
        st.tuples(st.just("delete"), st.sampled_from(KEYS)),
        st.tuples(st.just("list"), st.sampled_from([None, "web", "shop"])),
    ),
    max_size=25,
)


def happen(steps: list[tuple[str, Any]]) -> World:
    world = World()
    for number, (what, where) in enumerate(steps):
        if what == "list":
            world.list(where)
        elif what == "write":
            found = world.objects.get(where)
            world.write(where, found["metadata"]["uid"] if found else f"uid-{number}", number)
        elif where in world.objects:
            world.delete(where)
    return world


def holds(cache: ObjectCache, objects: dict[Key, Resource]) -> bool:
    return all(cache.cron_job(*key) == objects.get(key) for key in KEYS)


@given(steps, st.randoms())
def test_any_order_and_repetition_of_events_lists_and_answers_leaves_the_newest(steps: list[Any], random: Any) -> None:
    world = happen(steps)
    told = world.told + random.sample(world.told, len(world.told) // 2)
    random.shuffle(told)
    cache = ObjectCache()
    for tell in told:
        tell(cache)
    assert holds(cache, world.objects)


@given(steps, st.randoms())
def test_one_list_makes_up_for_any_events_that_were_lost(steps: list[Any], random: Any) -> None:
    world = happen(steps)
    told = random.sample(world.told, len(world.told) // 2)
    cache = ObjectCache()
    for tell in told:
        tell(cache)
    world.list(None)
    world.told[-1](cache)
    assert holds(cache, world.objects)


def test_what_is_newer_than_a_list_stays_though_the_list_does_not_have_it() -> None:
    cache = ObjectCache()
    cache.upsert(CRON_JOBS, cron_job(8))
    assert cache.replace(CRON_JOBS, None, set(), 7) == set()
    assert cache.cron_job("web", "shop") == cron_job(8)
    assert cache.replace(CRON_JOBS, None, set(), 8) == {SHOP}
    assert cache.cron_job("web", "shop") is None


def test_a_list_of_one_namespace_says_nothing_of_others() -> None:
    cache = ObjectCache()
    cache.upsert(CRON_JOBS, cron_job(5))
    cache.replace(CRON_JOBS, "other", set(), 7)
    assert cache.cron_job("web", "shop") is not None


def test_where_versions_are_no_integers_the_last_that_is_seen_counts() -> None:
    assert [parse_version(text) for text in ("17", "", "v17", "-1", "1.5", "\u0661")] == [17] + [None] * 5
    cache = ObjectCache()
    old, new = cron_job(1), cron_job(2)
    for resource, version in ((old, "beta"), (new, "alpha")):
        resource["metadata"]["resourceVersion"] = version
        cache.upsert(CRON_JOBS, resource)
    assert cache.cron_job("web", "shop") == new
    cache.delete(CRON_JOBS, new)
    assert cache.cron_job("web", "shop") is None


def test_an_object_made_again_under_its_name_is_not_lost_by_the_deletion_of_the_former() -> None:
    cache = ObjectCache()
    cache.upsert(CRON_JOBS, cron_job(1, "first"))
    assert cache.upsert(CRON_JOBS, cron_job(3, "second"))
    assert not cache.delete(CRON_JOBS, cron_job(2, "first"))
    found = cache.cron_job("web", "shop")
    assert found is not None
    assert found["metadata"]["uid"] == "second"


def test_a_request_that_finds_nothing_does_not_undo_what_came_in_meanwhile() -> None:
    cache = ObjectCache()
    cache.upsert(CRON_JOBS, cron_job(1))
    asked_at = cache.resource_version(CRON_JOBS, SHOP)
    cache.upsert(CRON_JOBS, cron_job(2))
    assert not cache.delete_if_unchanged(CRON_JOBS, SHOP, asked_at)
    assert cache.cron_job("web", "shop") is not None
    assert cache.delete_if_unchanged(CRON_JOBS, SHOP, cache.resource_version(CRON_JOBS, SHOP))
    assert cache.cron_job("web", "shop") is None
    assert not cache.upsert(CRON_JOBS, cron_job(2))  # an event that comes late


def test_only_what_matters_is_news() -> None:
    cache = ObjectCache()
    assert cache.upsert(JOBS, job(1))
    assert not cache.upsert(JOBS, job(1))
    assert not cache.upsert(JOBS, job(2) | {"status": {"active": 1}})
    assert cache.upsert(JOBS, job(3, "Complete"))
    assert not cache.upsert(JOBS, job(1))
    assert cache.delete(JOBS, job(4, "Complete"))
    assert not cache.delete(JOBS, job(4, "Complete"))


def test_what_has_no_label_is_nobody_s() -> None:
    stranger = job(1)
    stranger["metadata"]["labels"] = {}
    cache = ObjectCache()
    assert not cache.upsert(JOBS, stranger)
    assert not cache.delete(JOBS, stranger)


def test_a_long_policy_name_is_found_by_the_label() -> None:
    cache, name = ObjectCache(), "n" * 100
    policy = at(1, policy_resource(name))
    assert cache.policy_of(("web", "n" * 40)) == ("web", "n" * 40)
    cache.upsert(POLICIES, policy)
    (key,) = cache.keys(POLICIES, "web")
    assert key == ("web", name)
    label = cache._indexers[POLICIES].objects[key].label
    assert cache.policy_of(("web", label)) == ("web", name)
    assert cache.keys(POLICIES, "other") == []


# --- what is held of each --------------------------------------------------------------------------------------------


def test_a_cron_job_is_held_whole_since_drift_is_told_from_its_managed_fields() -> None:
    cache, whole = ObjectCache(), cron_job(1)
    whole["metadata"]["managedFields"] = [{"manager": "x", "operation": "Update", "fieldsV1": {"f:spec": {}}}]
    cache.upsert(CRON_JOBS, whole)
    assert cache.cron_job("web", "shop") == whole


def test_what_is_read_of_a_job_and_a_pod_is_held() -> None:
    cache = ObjectCache()
    cache.upsert(JOBS, job(1, "Complete", dry_run=True))
    cache.upsert(PODS, pod(1, state=terminated(0, report())))
    (cached,) = cache.jobs(SHOP)
    found, whole = cached.resource(), job(1, "Complete", dry_run=True)
    for part in ("status", "metadata"):
        assert found[part] == whole[part]
    assert found["spec"]["template"] == whole["spec"]["template"]
    (found,) = cache.pods(JOB_UID).present
    assert found == pod(1, state=terminated(0, report()))


def test_what_nobody_reads_is_let_go() -> None:
    policy = at(1, policy_resource())
    policy["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    policy["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"}
    cache = ObjectCache()
    cache.upsert(POLICIES, policy)
    found = cache.policy("web", "shop")
    assert found is not None
    assert "managedFields" not in found["metadata"]
    assert found["metadata"]["annotations"] == {"mine": "x"}
    assert "managedFields" in policy["metadata"]  # Kopf's object is left as it is


# --- tombstones ------------------------------------------------------------------------------------------------------


def watched(order: list[int]) -> ObjectCache:
    """A Job and its Pod come, end, and go; told in an order."""
    state = terminated(0, report())
    told: list[Callable[[ObjectCache], object]] = [
        lambda cache: cache.upsert(JOBS, job(1)),
        lambda cache: cache.upsert(PODS, pod(2)),
        lambda cache: cache.upsert(PODS, pod(3, state=state)),
        lambda cache: cache.upsert(JOBS, job(4, "Complete")),
        lambda cache: cache.delete(JOBS, job(5, "Complete")),
        lambda cache: cache.delete(PODS, pod(6, state=state)),
    ]
    cache = ObjectCache()
    for number in order:
        told[number](cache)
    return cache


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=4))
def test_r1_2_a_finished_job_that_is_deleted_is_known_with_its_pods_until_it_is_recorded(
    order: list[int], again: list[int]
) -> None:
    cache = watched(order + again)
    (cached,) = cache.jobs(SHOP)
    assert cached.uid == JOB_UID
    assert cached.ended
    assert [p["status"]["containerStatuses"][0]["state"] for p in cache.pods(JOB_UID).deleted] == [
        terminated(0, report())
    ]
    assert cache.pods(JOB_UID).present == ()
    cache.drop_tombstones(SHOP, [JOB_UID])
    assert cache.jobs(SHOP) == []
    assert cache.pods(JOB_UID).all == ()


def test_a_list_that_has_a_finished_job_no_more_does_not_lose_it() -> None:
    cache = ObjectCache()
    cache.upsert(JOBS, job(1, "Complete"))
    cache.upsert(PODS, pod(2, state=terminated(0, report())))
    cache.replace(PODS, None, set(), 9)
    cache.replace(JOBS, None, set(), 9)
    assert names(cache) == ["shop-29000000"]
    assert cache.pods(JOB_UID).deleted != ()


def test_the_last_word_on_a_job_counts_though_a_list_missed_it_before() -> None:
    cache = ObjectCache()
    cache.upsert(JOBS, job(1))
    cache.replace(JOBS, None, set(), 9)
    assert names(cache) == []
    cache.delete(JOBS, job(8, "Complete"))
    assert names(cache) == ["shop-29000000"]


def test_a_job_that_is_deleted_while_it_runs_is_no_run() -> None:
    cache = ObjectCache()
    cache.upsert(JOBS, job(1))
    cache.delete(JOBS, job(2))
    assert names(cache) == []


def test_tombstones_go_with_the_policy() -> None:
    cache = ObjectCache()
    cache.upsert(POLICIES, at(1, policy_resource()))
    cache.delete(JOBS, job(2, "Complete"))
    cache.delete(PODS, pod(2))
    cache.delete(POLICIES, at(3, policy_resource()))
    assert names(cache) == []
    assert cache.pods(JOB_UID).all == ()


def test_tombstones_are_not_handed_on_to_a_policy_made_again_under_the_name() -> None:
    cache = ObjectCache()
    cache.upsert(POLICIES, at(1, policy_resource()))
    cache.upsert(CRON_JOBS, cron_job(2))
    cache.delete(CRON_JOBS, cron_job(3))
    assert cache.deleted_cron_jobs(SHOP, POLICY_UID) == {CRON_JOB_UID}
    assert cache.deleted_cron_jobs(SHOP, "another policy's") == set()
    cache.delete(JOBS, job(4, "Complete"))
    again = at(5, policy_resource())
    again["metadata"]["uid"] = "another policy's"
    cache.upsert(POLICIES, again)
    assert names(cache) == []
    assert cache.deleted_cron_jobs(SHOP, POLICY_UID) == set()


def test_a_deleted_cron_job_is_known_as_long_as_one_of_its_jobs() -> None:
    cache = ObjectCache()
    cache.upsert(CRON_JOBS, cron_job(1))
    cache.upsert(JOBS, job(2))
    cache.delete(CRON_JOBS, cron_job(3))
    cache.drop_tombstones(SHOP, [])
    assert cache.deleted_cron_jobs(SHOP, POLICY_UID) == {CRON_JOB_UID}
    cache.delete(JOBS, job(4))
    cache.drop_tombstones(SHOP, [])
    assert cache.deleted_cron_jobs(SHOP, POLICY_UID) == set()


def test_tombstones_are_bounded() -> None:
    cache = ObjectCache()
    for number in range(200):
        uid = f"job-{number}"
        cache.delete(JOBS, job(number + 1, "Complete", name=f"shop-{number}", uid=uid))
        cache.delete(PODS, pod(number + 1, name=f"shop-{number}-a", owner=uid))
        cache.delete(PODS, pod(number + 1, name=f"shop-0-{number}", owner="one job"))
    assert names(cache) == [f"shop-{number}" for number in range(150, 200)]  # the newest
    assert len(cache.pods("one job").deleted) == 20
    assert len(cache.pods("job-199").deleted) == 1
    # Pods of no Job are kept until a list shows that there is none.
    cache.replace(JOBS, None, set(), 500)
    assert cache.pods("one job").deleted == ()
    assert cache.pods("job-0").deleted == ()
    assert len(cache.pods("job-199").deleted) == 1


@pytest.mark.parametrize("kind", [JOBS, PODS])
def test_nothing_remains_of_objects_that_are_gone_and_recorded(kind: Kind) -> None:
    cache = ObjectCache()
    for number in range(100):
        uid = f"job-{number}"
        cache.upsert(JOBS, job(3 * number + 1, "Complete", uid=uid))
        cache.upsert(PODS, pod(3 * number + 1, owner=uid))
        cache.delete(PODS, pod(3 * number + 2, owner=uid))
        cache.delete(JOBS, job(3 * number + 3, "Complete", uid=uid))
        cache.drop_tombstones(SHOP, [uid])
    cache.replace(kind, None, set(), 1000)
    assert cache._job_tombstones == {}
    assert cache._pod_tombstones == {}
    indexer = cache._indexers[kind]
    assert (indexer.objects, indexer.deletions, indexer._by_label, indexer._by_controller) == ({}, {}, {}, {})

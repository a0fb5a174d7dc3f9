"""What the controller does with what it is told; against a real API server it is tested in tests/controlplane."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from controller.api.kube import JOBS
from controller.controller import Controller
from controller.metrics.controller_metrics import Metrics
from controller.runtime.leader_election import SoleLeader
from controller.tracing.interface import NoTracing
from tests.unit.controller.builders import SETTINGS, job


def labelled(resource: dict[str, Any], version: int) -> dict[str, Any]:
    metadata = resource["metadata"] | {
        "resourceVersion": str(version),
        "labels": {"sessionpolicy.dev/policy": "shop"},
    }
    return resource | {"metadata": metadata}


def test_an_object_that_makes_no_sense_does_not_keep_the_others_from_being_seen() -> None:
    controller = Controller(cast("Any", SimpleNamespace(now=None)), SETTINGS, Metrics(), SoleLeader(), NoTracing())
    nonsense = labelled(job(ended="Failed", uid="nonsense", name="nonsense"), 1)
    del nonsense["status"]["conditions"][0]["lastTransitionTime"]
    controller.on_event(JOBS, nonsense, deleted=False)
    controller.on_event(JOBS, labelled(job(), 2), deleted=False)
    assert [held.uid for held in controller._cache.jobs(("web", "shop"))] == [job()["metadata"]["uid"]]

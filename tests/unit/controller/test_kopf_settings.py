"""Kopf as it is configured, and the defaults of Kopf that are relied upon."""

from __future__ import annotations

import itertools

import kopf
from kopf._cogs.structs.references import Resource

from controller.kopf_settings import Backoffs, kopf_settings


def test_requests_to_an_api_server_that_is_away_are_repeated_for_ever() -> None:
    backoffs = Backoffs()
    first = list(itertools.islice(backoffs, 100))
    assert first[0] < 1
    assert max(first) == first[-1] == 15
    assert list(itertools.islice(backoffs, 100)) == first  # each request begins anew
    assert not hasattr(backoffs, "__len__")  # Kopf would count the attempts


def test_children_are_selected_by_the_server() -> None:
    selectors = kopf_settings().watching.label_selectors
    for group, plural in (("batch", "cronjobs"), ("batch", "jobs"), ("", "pods")):
        assert selectors.collect(Resource(group=group, version="v1", plural=plural)) == ["sessionpolicy.dev/policy"]
    policies = Resource(group="sessionpolicy.dev", version="v1alpha1", plural="sessionpolicies")
    assert selectors.collect(policies) == []


def test_kopf_needs_no_rights_beyond_the_operator_s() -> None:
    settings = kopf_settings()
    assert settings.scanning.disabled
    assert settings.peering.standalone
    assert not settings.posting.enabled


def test_defaults_of_kopf_that_are_relied_upon() -> None:
    # Five thousand policies took seconds without a limit and minutes with one.
    assert kopf.OperatorSettings().queueing.worker_limit is None

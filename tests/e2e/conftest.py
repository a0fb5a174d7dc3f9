"""Fixtures of the end-to-end tests: a given cluster, the operator in it, and stores in a pod."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.application import Application
from tests.e2e.cluster_state import cluster_scoped_objects
from tests.e2e.operator_release import APPLICATIONS, TALKATIVE, OperatorRelease, defined_elsewhere
from tests.e2e.stores import Stores
from tests.support.kube import Kubectl, eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def version() -> str:
    """The tag of the images under test."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return os.environ.get("VERSION") or found


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """kubectl on the cluster that KUBECONFIG names: never on whatever the current context happens to be."""
    given = os.environ.get("KUBECONFIG")
    if not given:
        pytest.exit("set KUBECONFIG to the cluster to test on; `make e2e` does it for kind", returncode=2)
    if not Path(given).is_file():
        pytest.exit(f"KUBECONFIG is {given!r}: there is no such file", returncode=2)
    return Kubectl(Path(given))


@pytest.fixture(scope="session", autouse=True)
def cluster_left_as_it_was(kubectl: Kubectl) -> Iterator[None]:
    """Refuse a cluster where the operator already works; afterwards nothing of the tests may be left."""
    if running := kubectl.list("deployments", selector="app.kubernetes.io/name=session-policy-operator"):
        where = running[0]["metadata"]["namespace"]
        pytest.exit(f"an operator already runs on this cluster, in namespace {where}", returncode=2)
    before = cluster_scoped_objects(kubectl)
    yield
    with contextlib.suppress(AssertionError):  # the assertion below says what is left
        eventually(lambda: cluster_scoped_objects(kubectl) <= before, what="the cluster as before")
    assert sorted(cluster_scoped_objects(kubectl) - before) == []


@pytest.fixture(scope="module")
def release(kubectl: Kubectl, version: str) -> Iterator[OperatorRelease]:
    """The operator's release, not installed yet. Resource definitions from elsewhere are left alone."""
    found = OperatorRelease(kubectl, version, brings_crds=not defined_elsewhere(kubectl))
    try:
        found.prepare_namespace()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def operator(release: OperatorRelease) -> OperatorRelease:
    """The operator, installed with Helm into a namespace of its own."""
    release.install(TALKATIVE)
    return release


@pytest.fixture(scope="session")
def stores(kubectl: Kubectl, version: str) -> Iterator[Stores]:
    """PostgreSQL and Redis in a pod, reached by its address."""
    with kubectl.temporary_namespace("e2e-stores") as namespace:
        yield Stores.start(kubectl, namespace, f"session-policy-e2e-stores:{version}")


@contextlib.contextmanager
def prepared_application(kubectl: Kubectl, stores: Stores, version: str) -> Iterator[Application]:
    """A namespace under Pod Security "restricted", with an empty database and Redis of its own."""
    with kubectl.temporary_namespace(APPLICATIONS) as namespace:
        level = "pod-security.kubernetes.io/enforce=restricted"
        kubectl.run("label", "namespace", namespace, level)
        yield Application.prepare(kubectl, namespace, stores.fresh(), f"session-policy-job:{version}")


@pytest.fixture
def application(kubectl: Kubectl, stores: Stores, version: str) -> Iterator[Application]:
    """An application of the test's own."""
    with prepared_application(kubectl, stores, version) as found:
        yield found

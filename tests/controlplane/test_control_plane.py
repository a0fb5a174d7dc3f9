"""The control plane fixture itself: the faults the other tests rely on are real."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.controlplane import ControlPlane, ControlPlaneUnavailable, find_programs
from tests.support.kube import Kubectl


@pytest.fixture
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return Kubectl(control_plane.kubeconfig)


def test_objects_survive_an_api_server_crash(own_control_plane: ControlPlane, kubectl: Kubectl) -> None:
    with kubectl.temporary_namespace() as namespace:
        kubectl.run("create", "configmap", "kept", "-n", namespace)
        own_control_plane.kill_api_server()
        assert not own_control_plane.api_server_ready()
        with pytest.raises(subprocess.CalledProcessError):
            kubectl.run("get", "namespaces", "--request-timeout=2s")
        own_control_plane.start_api_server()
        assert kubectl.names("configmaps", namespace=namespace) >= {"kept"}


def test_garbage_collection_works(kubectl: Kubectl) -> None:
    with kubectl.temporary_namespace() as namespace:
        owner = kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}, namespace)
        reference = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
        kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "child", "ownerReferences": [reference]},
            },
            namespace,
        )
        kubectl.run("delete", "configmap", "owner", "-n", namespace)
        kubectl.run("wait", "--for=delete", "configmap/child", "-n", namespace, "--timeout=240s")


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ControlPlaneUnavailable, match=r"kube-apiserver.*KUBEBUILDER_ASSETS"):
        find_programs()

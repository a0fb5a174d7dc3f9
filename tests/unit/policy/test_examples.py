"""Every example is one that works: the policies parse, the rest is valid Kubernetes, the names fit together."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from policy.manifest import parse_policy, parse_revocation
from policy.names import KIND, REVOCATION_KIND
from tests.support.pod_security import violations

ROOT = Path(__file__).parents[3]
# Those for GitOps tools are patches of these tools' own objects; tests/controlplane/test_gitops.py tries them.
FILES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if path.parent.name != "gitops")


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def everything() -> list[dict[str, Any]]:
    return [document for path in FILES for document in documents(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_manifest_is_valid(path: Path) -> None:
    for manifest in documents(path):
        if manifest["kind"] == KIND:
            parse_policy(manifest)
        elif manifest["kind"] == REVOCATION_KIND:
            parse_revocation(manifest)
        else:
            kubernetes_validate.validate(manifest, "1.36", strict=True)


def secret_references(node: Any) -> list[tuple[str, str]]:
    if isinstance(node, list):
        return [found for item in node for found in secret_references(item)]
    if not isinstance(node, dict):
        return []
    found = [reference for value in node.values() for reference in secret_references(value)]
    if reference := node.get("secretKeyRef"):
        found.append((reference["name"], reference["key"]))
    return found


def test_every_secret_that_is_referred_to_is_among_the_examples() -> None:
    secrets = {
        (manifest["metadata"]["name"], key)
        for manifest in everything()
        if manifest["kind"] == "Secret"
        for key in manifest["stringData"]
    }
    references = secret_references(everything())
    assert references
    assert set(references) <= secrets


def test_jobs_pass_pod_security_restricted() -> None:
    jobs = [manifest for manifest in everything() if manifest["kind"] == "Job"]
    assert jobs
    assert [violations(job["spec"]["template"]) for job in jobs] == [[] for _ in jobs]


def test_images_have_the_present_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = [
        container["image"]
        for manifest in everything()
        if manifest["kind"] == "Job"
        for container in manifest["spec"]["template"]["spec"]["containers"]
    ]
    assert images == [f"session-policy-job:{version}"]

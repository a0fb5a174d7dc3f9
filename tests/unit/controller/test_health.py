"""What tools make of the status: kstatus (Flux, `kubectl wait`, Helm) and Argo CD.

kstatus is a Go library. Its documented rules for any resource are written down here; Argo CD's health check is the
script that users install, run by a real Lua interpreter on statuses as the controller writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51

from policy.status import SessionPolicyStatus
from tests.unit.controller.builders import policy_resource
from tests.unit.controller.health_cases import CASES

CONFIG_MAP = Path(__file__).parents[3] / "examples" / "gitops" / "argocd-health.yaml"


def resource(found: SessionPolicyStatus | None) -> dict[str, Any]:
    return policy_resource() | ({"status": found.to_json_object()} if found else {})


def kstatus(found: dict[str, Any]) -> str:
    """The verdict by kstatus' rules for resources that it knows nothing special of."""
    metadata, seen = found["metadata"], found.get("status", {})
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if "observedGeneration" in seen and seen["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    conditions = {condition["type"]: condition["status"] for condition in seen.get("conditions", [])}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "InProgress" if conditions.get("Ready") in ("False", "Unknown") else "Current"


@pytest.mark.parametrize("case", [name for name in CASES if name != "not seen yet"])
def test_kstatus_judges_rightly(case: str) -> None:
    found, expected, _ = CASES[case]
    assert kstatus(resource(found)) == expected


@pytest.fixture(scope="module")
def argo_cd() -> Any:
    """The script, as Argo CD runs it: Lua 5.1, with the resource as the global `obj`."""
    data = yaml.safe_load(CONFIG_MAP.read_text())["data"]
    script = data["resource.customizations.health.sessionpolicy.dev_SessionPolicy"]

    def judge(found: dict[str, Any]) -> tuple[str, str]:
        lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)
        lua.globals().obj = lua.table_from(found, recursive=True)
        verdict = lua.execute(script)
        return verdict.status, verdict.message

    return judge


@pytest.mark.parametrize("case", CASES)
def test_argo_cd_judges_rightly(argo_cd: Any, case: str) -> None:
    found, _, expected = CASES[case]
    assert argo_cd(resource(found))[0] == expected


def test_argo_cd_shows_what_to_do(argo_cd: Any) -> None:
    stuck, _, _ = CASES["stuck"]
    assert argo_cd(resource(stuck))[1] == "Unschedulable: no node"
    failed, _, _ = CASES["last run failed"]
    assert argo_cd(resource(failed))[1] == "last run: SomethingWrong: run -1"

"""The words that programs may rely on are those that are used, no more and no fewer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.metrics.reason_labels import LAST_RUN_REASONS, STALLED_REASONS
from controller.runs.warning_events import NO_POD_REASONS
from job.steps.settings_verification import REASON
from policy.reasons import ALERTS, ENDINGS, FAILURES
from policy.rules import RuleType
from stores.model import errors

ROOT = Path(__file__).parents[3]
# Of the container of a SessionRevocation, whose metrics nobody asks for.
NOT_A_POLICYS = {"revocation.py", "revocation_status.py", "revocation_job.py", "pod_extras.py"}


def called(folder: str, *names: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls of these functions in a package, with the module they are in."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        if file.name not in NOT_A_POLICYS:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                    yield file.name, node


def words(folder: str, name: str, position: int) -> set[str]:
    """The words that calls of a function give as this argument, where they are there to read."""
    given = [call.args[position] for _, call in called(folder, name) if len(call.args) > position]
    return {arg.value for arg in given if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}


def test_a_run_fails_for_the_reasons_of_its_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RunError)]
    assert {kind.reason for kind in kinds} == FAILURES


def test_a_run_alerts_of_its_failures_its_findings_and_its_rules() -> None:
    found = words("job", "Problem", 0)
    assert len(found) > 5
    assert FAILURES | found | {REASON} | {kind.value for kind in RuleType} == ALERTS


@pytest.mark.parametrize("reason", ["DeletionsFailed", "DeletionLimitReached", "Completed", "DryRun", "LockHeld"])
def test_a_run_ends_with_words_that_are_known(reason: str) -> None:
    assert reason in ENDINGS
    sources = [ROOT / "job" / "run.py", ROOT / "job" / "steps" / "conclusion.py"]
    assert any(f'"{reason}"' in source.read_text() for source in sources)


def test_the_controller_gives_reasons_that_are_known() -> None:
    found = words("controller", "Problem", 0) | NO_POD_REASONS
    assert {"OOMKilled", "ImagePullBackOff", "Unschedulable", "PodSecurity"} <= found
    assert found <= STALLED_REASONS <= LAST_RUN_REASONS

"""A rule type is one line and one module: each has all its parts, and a new one needs nothing else."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import stores.rules
from policy.rules import RuleType, SessionRule
from stores.rules.detector import Detector
from stores.rules.table import detector_class, make_detector
from tests.support.made_up_rule import CopyWithRule
from tests.support.session_stores import SessionStores

ROOT = Path(__file__).parents[3]
RULES_PAGE = (ROOT / "docs" / "how-to" / "rules.md").read_text()


@pytest.mark.parametrize("kind", list(RuleType))
def test_a_rule_type_has_one_module_with_all_its_parts(kind: RuleType) -> None:
    found = detector_class(kind)
    assert found.__name__ == kind.value
    assert kind.meaning
    assert issubclass(found, Detector)
    module = inspect.getmodule(found)
    assert module is not None
    assert (module.__doc__ or "").startswith(f"{kind.value}: ")
    assert found.__doc__ != Detector.__doc__
    detector = make_detector(SessionRule(type=kind))
    # Which sessions to look at is told by SQL, or by the access logs.
    assert detector.reads_access_log or "sql_condition" in vars(found)
    assert bool(detector.log_entries) is detector.reads_access_log
    assert detector.numbers == kind.defaults
    assert detector.unusable == detector.incomplete == ""
    assert set(kind.defaults) <= set(SessionRule.model_fields)
    assert f"\n| `{kind.value}` |" in RULES_PAGE


def test_every_class_in_a_rules_module_is_of_a_rule_type() -> None:
    modules = [import_module(f"stores.rules.{path.stem}") for path in Path(stores.rules.__path__[0]).glob("[a-z]*.py")]
    classes = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Detector) and each is not Detector
    }
    assert classes == {detector_class(kind) for kind in RuleType}


def test_the_sql_condition_of_a_rule_is_in_no_other_module() -> None:
    """A store that knew rule types by name would have to be changed for each of them."""
    allowed = {ROOT / "policy" / "rules.py", *(ROOT / "job" / "demo").rglob("*.py")}
    for package in ("policy", "stores", "job", "controller"):
        for path in set((ROOT / package).rglob("*.py")) - allowed:
            assert not any(f"RuleType.{kind.name}" in path.read_text() for kind in RuleType), path


def test_a_new_rule_is_one_module_and_one_line(tmp_path: Path, sqlite_url: str) -> None:
    product = CopyWithRule(tmp_path)
    properties = yaml.safe_load(product.definition())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    rule = properties["spec"]["properties"]["rules"]["items"]
    assert "LongId" in rule["properties"]["type"]["enum"]
    assert "LongId: has an id of more than count characters" in rule["properties"]["type"]["description"]
    assert "LongId (default 10)" in rule["properties"]["count"]["description"]
    assert any("'LongId'" in each["rule"] for each in rule["x-kubernetes-validations"] if "count" in each["rule"])
    sessions = SessionStores(sqlite_url)
    try:
        for name in ("short", "long enough", "0123456789a"):
            sessions.add(name)
        printed = product.run(sqlite_url, {"type": "LongId"})
        assert "LongId" in printed
        assert len(sessions.ids()) == 3
        product.run(sqlite_url, {"type": "LongId", "action": "Delete"})
        assert sessions.ids() == {"short"}
        product.run(sqlite_url, {"type": "LongId", "action": "Delete", "count": 4})
        assert sessions.ids() == set()
    finally:
        sessions.close()

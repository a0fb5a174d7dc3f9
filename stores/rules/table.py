"""Finds the class of each rule type, and checks several rules at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from importlib import import_module

from policy.rules import RuleType, SessionRule
from stores.rules.details import SessionDetails
from stores.rules.detector import Detector, RequiredField

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def detector_class(kind: RuleType) -> type[Detector]:
    """The class of a rule type, from the module named after it. Only rules that a policy has are imported."""
    module = import_module(f"stores.rules.{_WORD_START.sub('_', kind.value).lower()}")
    found: type[Detector] = getattr(module, kind.value)
    return found


def make_detector(rule: SessionRule, skew: timedelta = timedelta(0)) -> Detector:
    """What finds the sessions that a rule of a policy applies to.

    Args:
        rule: from the policy.
        skew: how far clocks may differ.
    """
    return detector_class(rule.type)(rule, skew)


def missing_fields(rule: SessionRule, mapped: Collection[RequiredField]) -> list[str]:
    """The fields of the policy without which the rule can find nothing."""
    return [field.value for field in detector_class(rule.type).requires if field not in mapped]


def matching(detectors: Iterable[Detector], details: SessionDetails, now: datetime) -> list[Detector]:
    """Those whose rule applies to a session, in their order."""
    return [detector for detector in detectors if detector.matches(details, now)]


def most_severe(detectors: Sequence[Detector]) -> Detector:
    """The one whose action is taken where several rules apply: the first with the most severe action."""
    return max(detectors, key=lambda detector: detector.rule.action.severity)


def log_entries_to_read(detectors: Iterable[Detector]) -> int:
    """How many entries of each access log the rules look at; 0 where none does."""
    return max((detector.log_entries for detector in detectors), default=0)

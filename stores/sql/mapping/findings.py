"""Findings of the checks before a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "Error"
    """No run may begin."""
    WARNING = "Warning"
    """A run works, but slowly, or not as somebody may expect."""
    INFO = "Info"
    """Worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        severity: how bad it is.
        field: what it is about, as a path in the spec.
        message: what was found.
        remedy: what to do; DDL where a statement helps.
    """

    severity: Severity
    field: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")

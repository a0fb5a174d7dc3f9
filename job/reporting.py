"""R2.10: the report of a run, or of a revocation, to where the controller finds it."""

from __future__ import annotations

import json
from pathlib import Path

from policy.model import Model
from policy.names import TERMINATION_MESSAGE_PATH


def to_text(report: Model) -> str:
    """The report as one line of JSON, as the termination message and ``--output json`` have it."""
    return json.dumps(report.to_json_object(), separators=(",", ":"), ensure_ascii=False)


def write_termination_message(report: Model, path: Path = Path(TERMINATION_MESSAGE_PATH)) -> None:
    """Leaves the report where the kubelet reads it; outside a Pod there is no such file, and nothing is written.

    The kubelet keeps only the last 4,096 bytes; a report cannot be longer, because each of its fields is bounded.
    """
    if path.exists():
        path.write_text(to_text(report), encoding="utf-8")

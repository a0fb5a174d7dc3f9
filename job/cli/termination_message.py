"""R2.10: the report of a run, or of a revocation, to where the controller finds it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from policy.model import Model
from policy.names import TERMINATION_MESSAGE_PATH


def to_text(report: Model) -> str:
    """The report as one line of JSON, as the termination message and ``--output json`` have it."""
    return json.dumps(report.to_json_object(), separators=(",", ":"), ensure_ascii=False)


def write_termination_message(report: Model, path: Path = Path(TERMINATION_MESSAGE_PATH)) -> None:
    """Leaves the report where the kubelet reads it; outside a Pod there is no such file, and nothing is written.

    The kubelet keeps only the last 4,096 bytes; a report cannot be longer, because each of its fields is bounded.

    It may be written again with more in it. Killed at any moment, the process leaves one whole report: it goes over the
    old one in a single write, and nothing is emptied first.
    """
    if path.exists():
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, os.write(descriptor, to_text(report).encode()))
        finally:
            os.close(descriptor)

"""Writes the report of a run or a revocation as the container's termination message (R2.10)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from policy.model import Model
from policy.names import TERMINATION_MESSAGE_PATH


def to_text(report: Model) -> str:
    """The report as one line of JSON, for the termination message and ``--output json``."""
    return json.dumps(report.to_json_object(), separators=(",", ":"), ensure_ascii=False)


def write_termination_message(report: Model, path: Path = Path(TERMINATION_MESSAGE_PATH)) -> None:
    """Writes the report to the file that the kubelet reads. Outside a Pod there is none, and nothing is written.

    The kubelet keeps only the last 4,096 bytes; a report is never longer, because each of its fields is bounded.

    It may be written again with more fields. A process killed at any moment leaves one whole report: a single write
    replaces the old one, and the file is not truncated before.
    """
    if path.exists():
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, os.write(descriptor, to_text(report).encode()))
        finally:
            os.close(descriptor)

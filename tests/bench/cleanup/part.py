"""The parts of the benchmark: each can be run by itself, and one that fails leaves the others their figures."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.demo.servers import EmbeddedServerUnavailable
from tests.bench.cleanup.goals import Goal, Row


class PartUnavailableError(Exception):
    """What a part needs is not on this machine; the message says what."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a part is run.

    Attributes:
        full: with the sizes that the goals name, which takes hours, instead of smaller ones.
        directory: where logs may be kept.
    """

    full: bool
    directory: Path

    def size(self, small: int, full: int) -> int:
        """How many sessions."""
        return full if self.full else small


@dataclass(frozen=True, slots=True)
class Part:
    """Some goals that are measured together.

    Attributes:
        name: for the command line.
        goals: what it measures.
        measure: does it, and returns a row for each goal it could measure.
    """

    name: str
    goals: Sequence[Goal]
    measure: Callable[[Setting], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a part came to.

    Attributes:
        part: its name.
        rows: one for each of its goals.
        seconds: how long it took.
        failed: whether it broke, which a missing program is not.
    """

    part: str
    rows: Sequence[Row]
    seconds: float
    failed: bool = False


def run(parts: Sequence[Part], setting: Setting, tell: Callable[[str], None]) -> Iterator[Outcome]:
    """Runs the parts one after another.

    Args:
        parts: the parts.
        setting: how.
        tell: is told what goes on.
    """
    for part in parts:
        tell(f"{part.name} ...")
        began = time.perf_counter()
        failed, why = False, "there is no figure"
        rows: Sequence[Row] = ()
        try:
            rows = part.measure(setting)
        except (PartUnavailableError, EmbeddedServerUnavailable) as missing:
            why = str(missing)
        except Exception as error:
            tell(traceback.format_exc())
            failed, why = True, f"it broke: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        found = {row.goal: row for row in rows}
        complete = [found.get(goal, Row(goal, unmeasured=why)) for goal in part.goals]
        seconds = time.perf_counter() - began
        tell(f"{part.name}: {', '.join(row.verdict for row in complete)}, {seconds:.0f} s")
        yield Outcome(part.name, complete, seconds, failed)

"""What the benchmark makes of its figures: verdicts, table and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.cleanup import plot, table
from tests.bench.cleanup.goals import Bound, Check, Curve, Goal, Row, Verdict, count, quantity, sizes
from tests.bench.cleanup.part import Outcome, Part, PartUnavailableError, Setting, run
from tests.bench.cleanup.parts import PARTS
from tests.bench.cleanup.published import DOCUMENT, with_figures
from tests.bench.cleanup.rounds import alternate, medians
from tests.bench.cleanup.sessions_redis import command
from tests.bench.figures import Figure

FAST = Goal("deleting", "≥ 0.6 × bare")
SMALL = Goal("memory", "≤ 200 MB")
ABOUT = {"machine": "2 cores"}


def check(value: float, bound: Bound = Bound.AT_LEAST, limit: float = 0.6) -> Check:
    return Check("bare", value, bound, limit)


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "bound", "limit", "holds", "used"),
    [
        (0.6, Bound.AT_LEAST, 0.6, True, 1.0),
        (1.2, Bound.AT_LEAST, 0.6, True, 0.5),
        (0.3, Bound.AT_LEAST, 0.6, False, 2.0),
        (0.0, Bound.AT_LEAST, 0.6, False, math.inf),
        (1.5, Bound.AT_MOST, 1.5, True, 1.0),
        (3.0, Bound.AT_MOST, 1.5, False, 2.0),
        (0, Bound.AT_MOST, 0, True, 0.0),
        (1, Bound.AT_MOST, 0, False, math.inf),
    ],
)
def test_a_check_holds_up_to_its_limit(value: float, bound: Bound, limit: float, holds: bool, used: float) -> None:
    found = check(value, bound, limit)
    assert (found.holds, found.used) == (holds, used)


@pytest.mark.parametrize("bound", list(Bound))
def test_what_is_not_a_number_holds_nowhere(bound: Bound) -> None:
    assert not check(math.nan, bound).holds


def test_a_goal_is_met_only_if_all_its_checks_hold() -> None:
    assert Row(FAST, (check(0.7), check(0.6))).verdict is Verdict.MET
    assert Row(FAST, (check(0.7), check(0.5))).verdict is Verdict.MISSED


def test_nothing_measured_is_no_verdict_and_neither_is_a_smaller_size_where_the_goal_is_absolute() -> None:
    assert Row(FAST).verdict is Verdict.NOT_MEASURED
    assert Row(SMALL, (check(10, Bound.AT_MOST, 200),), unmeasured="the goal is for 10 M").verdict is (
        Verdict.NOT_MEASURED
    )


def test_sizes_say_when_the_goal_is_for_another() -> None:
    assert sizes(2_000_000, 300_000) == "300 k sessions; the goal is for 2 M"
    assert sizes(2_000_000, 2_000_000) == "2 M sessions"
    assert (count(950), count(1_500)) == ("950", "1.5 k")
    assert (quantity(123456, "s"), quantity(0.1234, "×"), quantity(2, "")) == ("123,456 s", "0.123 ×", "2")


# --- parts -----------------------------------------------------------------------------------------------------------


def outcomes_of(*parts: Part) -> tuple[list[Outcome], str]:
    told: list[str] = []
    return list(run(parts, Setting(full=False, directory=Path()), told.append)), "\n".join(told)


def part(name: str, goal: Goal, rows: Sequence[Row] | Exception) -> Part:
    def measure(setting: Setting) -> Sequence[Row]:
        if isinstance(rows, Exception):
            raise rows
        return rows

    return Part(name, (goal,), measure)


def test_a_part_that_breaks_leaves_the_others_their_figures_and_is_told_of() -> None:
    outcomes, told = outcomes_of(
        part("broken", SMALL, RuntimeError("no room")), part("whole", FAST, [Row(FAST, (check(1),))])
    )
    broken, whole = outcomes
    assert (broken.failed, whole.failed) == (True, False)
    assert broken.rows[0].verdict is Verdict.NOT_MEASURED
    assert "no room" in broken.rows[0].unmeasured
    assert "Traceback" in told
    assert whole.rows[0].verdict is Verdict.MET


def test_a_missing_program_is_no_failure_but_is_said() -> None:
    (outcome,), _ = outcomes_of(part("node", FAST, PartUnavailableError("no npm on PATH")))
    assert not outcome.failed
    assert outcome.rows[0].unmeasured == "no npm on PATH"


def test_a_goal_that_a_part_forgets_is_not_measured() -> None:
    (outcome,), _ = outcomes_of(part("forgetful", FAST, []))
    assert outcome.rows[0].verdict is Verdict.NOT_MEASURED


def test_every_part_has_a_name_and_goals_of_its_own() -> None:
    names = [each.name for each in PARTS]
    goals = [goal for each in PARTS for goal in each.goals]
    assert len(set(names)) == len(names)
    assert len(set(goals)) == len(goals) >= 12


def test_ways_take_turns() -> None:
    order: list[str] = []

    def way(name: str, *seconds: float) -> Callable[[], float]:
        left = iter(seconds)

        def measured() -> float:
            order.append(name)
            return next(left)

        return measured

    found = alternate(3, {"a": way("a", 3.0, 1.0, 2.0), "b": way("b", 9.0, 5.0, 7.0)})
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert medians(found) == {"a": 2.0, "b": 7.0}


# --- what is shown ---------------------------------------------------------------------------------------------------


@pytest.fixture
def outcomes() -> list[Outcome]:
    fast = Row(
        FAST,
        (check(0.7), Check("deadlocks", 2, Bound.AT_MOST, 0, "")),
        "300 k sessions",
        figures=(Figure("ours", 700, "sessions/s", note="1 to 2 s"), Figure("<bare>", 1000, "sessions/s")),
        notes=("in <batches>",),
        curves=(Curve("wall time", "s", ((100, 1.0), (1000, 9.5))),),
    )
    return [
        Outcome("one", [fast], 12.0),
        Outcome("two", [Row(SMALL, (check(90, Bound.AT_MOST, 200),), unmeasured="the goal is for 10 M")], 1.0),
    ]


def test_the_table_has_a_line_for_each_goal_with_figure_and_verdict(outcomes: list[Outcome]) -> None:
    lines = table.text(outcomes, ABOUT).splitlines()
    fast = next(line for line in lines if line.startswith("| deleting"))
    assert [cell.strip() for cell in fast.strip("|").split("|")] == [
        "deleting", "≥ 0.6 × bare", "bare 0.7 ×; deadlocks 2", "missed", "300 k sessions",
    ]  # fmt: skip
    small = next(line for line in lines if line.startswith("| memory"))
    assert "not measured: the goal is for 10 M" in small


def test_under_the_table_are_the_figures_and_the_machine(outcomes: list[Outcome]) -> None:
    lines = table.text(outcomes, ABOUT).splitlines()
    assert "- deadlocks 2 (≤ 0): missed" in lines
    assert "- ours: 700 sessions/s (1 to 2 s)" in lines
    assert "- wall time: 100: 1 s, 1,000: 9.5 s" in lines
    assert "- in <batches>" in lines
    assert "machine: 2 cores" in lines


def test_the_json_keeps_what_the_table_shows(outcomes: list[Outcome], tmp_path: Path) -> None:
    table.save(outcomes, ABOUT, tmp_path / "cleanup.json")
    kept = json.loads((tmp_path / "cleanup.json").read_text())
    rows = [row for each in kept["parts"] for row in each["rows"]]
    assert [row["verdict"] for row in rows] == ["missed", "not measured"]
    assert [one["holds"] for one in rows[0]["checks"]] == [True, False]
    assert kept["about"] == ABOUT


def test_the_page_is_a_picture_by_itself_with_every_goal_and_verdict(outcomes: list[Outcome]) -> None:
    page = plot.page(outcomes, ABOUT)
    root = ElementTree.fromstring(page)
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for expected in ("deleting", "missed", "memory", "not measured", "<bare>", "machine: 2 cores"):
        assert expected in words
    assert "href" not in page
    assert "<script" not in page


def test_bars_end_within_the_page_however_bad_a_figure_is() -> None:
    rows = [Row(FAST, (check(value),)) for value in (0.6, 0.000_001, 0.0)]
    root = ElementTree.fromstring(plot.page([Outcome("one", rows, 1.0)], ABOUT))
    width = float(root.attrib["viewBox"].split()[2])
    boxes = list(root.iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert len(boxes) == len(rows)
    assert all(float(box.attrib["x"]) + float(box.attrib["width"]) < width for box in boxes)
    good, bad, worst = (float(box.attrib["width"]) for box in boxes)
    assert good < bad == worst


def test_the_documentation_keeps_everything_but_its_figures(outcomes: list[Outcome]) -> None:
    written = with_figures(DOCUMENT.read_text(), outcomes, ABOUT)
    assert "| deleting | ≥ 0.6 × bare | bare 0.7 ×; deadlocks 2 | missed" in written
    assert with_figures(written, outcomes[1:], ABOUT) == with_figures(DOCUMENT.read_text(), outcomes[1:], ABOUT)
    first, *_, last = DOCUMENT.read_text().splitlines()
    assert written.splitlines()[0] == first
    assert written.splitlines()[-1] == last


def test_figures_are_not_put_where_nobody_wants_them(outcomes: list[Outcome]) -> None:
    with pytest.raises(ValueError, match="where the figures go"):
        with_figures("# Something else\n", outcomes, ABOUT)


def test_only_figures_in_one_unit_are_drawn_beside_each_other() -> None:
    figures = [Figure("a", 1, "sessions/s"), Figure("b", 2, "ms"), Figure("c", 3, "sessions/s"), Figure("d", 4, "s")]
    assert [[one.what for one in group] for group in plot.comparable(figures)] == [["a", "c"]]


def test_commands_are_written_as_redis_reads_them() -> None:
    assert command(b"SET", b"k\r\n", "é".encode()) == b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$2\r\n\xc3\xa9\r\n"

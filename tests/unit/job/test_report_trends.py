"""Rates, plots and charts of the report."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from job.reports.html_page import to_page
from job.reports.svg_charts import Series, axis_maximum, bar_chart, line_chart, row_chart, short_number
from job.reports.text_plots import bars, condense, sparkline
from job.reports.trends import DeletedOnDay, RunPoint, Trends, to_points
from job.reports.trends_table import print_trends

START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


def row(hours: float, **changed: Any) -> dict[str, Any]:
    at = START + timedelta(hours=hours)
    base = {
        "started_at": at - timedelta(seconds=30),
        "completed_at": at,
        "outcome": "Succeeded",
        "active": 100,
        "active_users": 50,
        "created": None,
        "deleted": 0,
        "failed": 0,
        "abnormal": 0,
        "remaining": 0,
    }
    return base | changed


def test_r5_rates_are_per_hour_since_the_run_before() -> None:
    first, second, third = to_points(
        [row(0, active=100), row(2, active=140, deleted=20), row(3, active=130, deleted=30, created=25)]
    )
    assert (first.created_per_hour, first.deleted_per_hour) == (None, None)
    # 40 more than before, and 20 were deleted: 60 began in two hours.
    assert (second.created_per_hour, second.deleted_per_hour) == (30, 10)
    assert (third.created_per_hour, third.deleted_per_hour) == (25, 30)


def test_times_without_a_zone_are_utc() -> None:
    naive = row(0)
    naive |= {name: naive[name].replace(tzinfo=None) for name in ("started_at", "completed_at")}
    (point,) = to_points([naive])
    assert (point.at, point.seconds) == (START, 30)


def test_two_runs_at_once_divide_by_no_zero() -> None:
    points = to_points([row(0), row(0, deleted=5)])
    assert points[1].deleted_per_hour == 5 * 60


def trends(**changed: Any) -> Trends:
    days = [DeletedOnDay(date(2026, 3, n), {"Expired": 10 * n, "Evicted": n}, 11 * n * 600) for n in range(1, 6)]
    given: dict[str, Any] = {
        "policy": "web/shop",
        "since": START - timedelta(days=5),
        "until": START,
        "runs": to_points([row(n, active=100 + n % 7, deleted=n % 5) for n in range(300)]),
        "deleted_by_day": days,
        "by_hour": {n: n * n for n in range(24)},
        "by_client": {"Chrome": 70, "Firefox": 20},
    }
    return Trends(**(given | changed))


def test_averages_and_causes_are_over_the_whole_period() -> None:
    assert trends().average_minutes == pytest.approx(10)
    assert trends().causes == ["Expired", "Evicted"]
    assert trends(deleted_by_day=[]).average_minutes is None


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = to_page(trends())
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)\s*=|url\(|@import|https?://""", page)
    assert "prefers-color-scheme: dark" in page


def test_the_page_is_well_formed_and_has_every_chart() -> None:
    page = to_page(trends())
    body = ET.fromstring(page[page.index("<body>") : page.index("</body>") + len("</body>")])
    titles = [caption.text for caption in body.iter("figcaption")]
    assert len(titles) == 6
    assert len(list(body.iter("svg"))) == 6
    assert "Sessions deleted each day, by cause" in titles
    # Three hundred runs are not three hundred points.
    lines = [path for path in body.iter("path") if "line" in (path.get("class") or "")]
    assert lines
    assert all((path.get("d") or "").count(" ") <= 2 * 120 for path in lines)


def test_what_comes_from_outside_is_text_in_the_page() -> None:
    evil = "<img src=x onerror=alert(1)>"
    page = to_page(
        trends(policy=evil, by_client={evil: 1}, deleted_by_day=[DeletedOnDay(date(2026, 3, 1), {evil: 1}, 1)])
    )
    assert "<img" not in page


def test_a_period_without_runs_says_so() -> None:
    assert "No runs in this period" in to_page(trends(runs=[]))


def test_one_run_is_enough_for_a_page() -> None:
    assert "<svg" in to_page(trends(runs=to_points([row(0)]), deleted_by_day=[], by_hour={}, by_client={}))


def test_many_causes_are_folded_into_as_many_colours_as_there_are() -> None:
    day = DeletedOnDay(date(2026, 3, 1), {f"Cause{n}": 20 - n for n in range(9)}, 1)
    page = to_page(trends(deleted_by_day=[day]))
    assert "Other" in page
    assert 'class="bar c7"' not in page


# --- charts and plots ------------------------------------------------------------------------------------------------


@given(st.floats(0, 1e15))
def test_a_scale_reaches_above_the_highest_value_but_not_far(most: float) -> None:
    top = axis_maximum(most)
    assert top >= most * (1 - 1e-9)
    assert top <= max(4, most * 2.5 * 1.001) or most < 1


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (950, "950"), (1200, "1.2k"), (3e6, "3M"), (0.25, "0.25")])
def test_axis_numbers_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


VALUES = st.lists(st.one_of(st.none(), st.floats(0, 1e9)), max_size=300)


@given(VALUES, st.integers(1, 80))
def test_a_sparkline_is_never_wider_than_asked(values: list[float | None], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


@given(VALUES, st.integers(1, 80))
def test_condensing_keeps_the_range(values: list[float | None], width: int) -> None:
    known = [v for v in values if v is not None]
    for value in condense(values, width):
        if value is not None:
            assert min(known) * (1 - 1e-9) <= value <= max(known) * (1 + 1e-9)


def test_the_highest_value_has_the_highest_column_and_a_gap_stays_empty() -> None:
    assert sparkline([0, None, 5, 10]) == "▁ ▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 10], plain=True).isascii()


def test_bars_share_one_scale() -> None:
    assert bars({"a": 10, "b": 5, "c": 0}, 10) == [("a", 10, "█" * 10), ("b", 5, "█" * 5), ("c", 0, "")]


@given(VALUES)
def test_charts_are_well_formed_for_all_values(values: list[float | None]) -> None:
    labels = [str(n) for n in range(len(values))]
    for chart in (
        line_chart("t", labels, [Series("s", values)]),
        bar_chart("t", labels, [Series("a", values), Series("b & c", values)]),
        row_chart("t", {f"<{n}>": v or 0 for n, v in enumerate(values)}),
    ):
        ET.fromstring(chart)


def test_a_gap_in_a_line_is_a_gap() -> None:
    chart = line_chart("t", ["1", "2", "3", "4"], [Series("s", [1, None, 2, 3])])
    (path,) = re.findall(r' d="([^"]+)"', chart)
    assert [part[0] for part in re.findall(r"[ML]", path)] == ["M", "M", "L"]


def test_a_point_without_neighbours_is_a_dot_that_can_be_seen() -> None:
    chart = line_chart("t", ["1", "2", "3", "4"], [Series("s", [1, None, 2, 3])])
    assert re.findall(r'class="dot c1( alone)?"', chart) == [" alone", "", ""]
    assert "alone" in line_chart("t", ["1"], [Series("s", [1])])


def test_r5_what_a_run_left_undone_is_told_everywhere() -> None:
    told = trends(runs=to_points([row(0, remaining=4321)]))
    assert told.to_json_object()["runs"][0]["remaining"] == 4321
    assert "<td>4,321</td>" in to_page(told)
    shown = io.StringIO()
    print_trends(told, Console(file=shown, width=120))
    assert "4,321" in shown.getvalue()


def test_a_run_point_of_a_first_run_has_no_rate() -> None:
    point = RunPoint(START, "Succeeded", 1, 1, 5, 5, 0, 0, 0, 1.0, None)
    assert point.created_per_hour is None

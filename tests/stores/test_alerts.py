"""R2, R5: alerts over real HTTP, remembered in real stores."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from job.alerts.alert_memory import AlertMemory, database_copy, file_copy
from job.alerts.alert_state import AlertState, ProblemRecord
from job.alerts.channels import Channels, Delivery
from job.alerts.message import AlertSource
from job.alerts.notify import notify
from job.alerts.problems import Audience, Problem, problems
from policy.alerts import Alerts, Thresholds
from policy.report import Outcome, RunReport, SessionCounts
from tests.support.runs import Log, policy
from tests.support.session_stores import SessionStores
from tests.support.webhooks import WebHook, web_hook

# What these tests look at is the same in every database.
pytestmark = pytest.mark.representative(database_url=["sqlite"])

NOW = datetime(2026, 3, 1, 10, 50, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook() -> Iterator[WebHook]:
    with web_hook() as server:
        yield server


def failing(**changed: Any) -> RunReport:
    return RunReport(
        outcome=Outcome.FAILED,
        reason="RedisUnavailable",
        message="Redis refuses connections",
        start_time=NOW,
        completion_time=NOW,
        duration_seconds=5,
        **changed,
    )


def channels(*operations: str, security: Sequence[str] = ()) -> Channels:
    return Channels.from_environment(
        {"ALERT_OPERATIONS_URLS": "\n".join(operations), "ALERT_SECURITY_URLS": " ".join(security)}
    )


def told(
    to: Channels,
    memory: AlertMemory,
    report: RunReport | None = None,
    *findings: Problem,
    now: datetime = NOW,
    seconds: float = 8,
) -> tuple[list[Delivery], Log]:
    log, report = Log(), report or failing()
    found = problems(report, Thresholds(), findings)
    return notify(found, report, Alerts(), to, AlertSource("shop", "web"), memory, log, now, seconds), log


def succeeding(**counts: int) -> RunReport:
    changed = {"outcome": Outcome.SUCCEEDED, "reason": "Completed", "sessions": SessionCounts(**counts)}
    return failing().model_copy(update=changed)


def test_r2_redis_connection_failure_is_told_to_operations_once_a_day(database: SessionStores, hook: WebHook) -> None:
    memory = AlertMemory.of_policy(policy(), database.database_url, None, None)
    for hour in range(24):
        told(channels(hook.url), memory, now=NOW + timedelta(hours=hour))
    assert hook.titles == ["Session policy web/shop: RedisUnavailable"]
    assert "Redis refuses connections" in hook.received[0]["message"]
    told(channels(hook.url), memory, now=NOW + timedelta(hours=24))
    assert len(hook.received) == 2
    assert "Since: 2026-03-01 10:50 UTC" in hook.received[1]["message"]


def test_r2_abnormal_sessions_are_told_to_security(hook: WebHook) -> None:
    travel = Problem("ImpossibleTravel", Audience.SECURITY, "2 sessions", 2)
    with web_hook() as security:
        told(channels(hook.url, security=[security.url]), AlertMemory(), succeeding(abnormal=2), travel)
        assert (hook.titles, security.titles) == ([], ["Session policy web/shop: ImpossibleTravel"])
    # Without a channel of its own, what is security's goes to operations rather than to nobody.
    told(channels(hook.url), AlertMemory(), succeeding(abnormal=2), travel)
    assert hook.titles == ["Session policy web/shop: ImpossibleTravel"]


def test_two_policies_on_one_database_do_not_silence_each_other(database: SessionStores, hook: WebHook) -> None:
    for name in ("web/shop", "web/other"):
        told(channels(hook.url), AlertMemory(database_copy(database.database_url, name)))
    assert len(hook.received) == 2


def test_the_end_of_a_problem_is_told_once(database: SessionStores, hook: WebHook) -> None:
    memory = AlertMemory.of_policy(policy(), database.database_url, None, None)
    told(channels(hook.url), memory)
    for hour in range(1, 12):
        told(channels(hook.url), memory, succeeding(), now=NOW + timedelta(hours=hour))
    assert hook.titles == [f"Session policy web/shop: RedisUnavailable{end}" for end in ("", " resolved")]


def test_a_database_that_is_down_is_remembered_in_redis(redis_url: str, hook: WebHook) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:9/none"
    memory = AlertMemory.of_policy(policy(redis=True), nowhere, redis_url, None)
    for hour in range(3):
        told(channels(hook.url), memory, now=NOW + timedelta(hours=hour))
    assert len(hook.received) == 1


def test_of_several_copies_the_latest_counts_and_all_are_written(stores: SessionStores, tmp_path: Path) -> None:
    memory = AlertMemory.of_policy(policy(redis=True), stores.database_url, stores.redis_url, tmp_path)
    states = [
        AlertState(updated_at=NOW + timedelta(hours=n), problems={f"R{n}": ProblemRecord(since=NOW)}) for n in range(3)
    ]
    for copy, state in zip(memory.copies, (states[0], states[2], states[1]), strict=True):
        copy.save(state)
    assert memory.load(5) == states[2]
    assert memory.save(states[1], 5) == 3
    assert [AlertState.from_text(copy.load()) for copy in memory.copies] == [states[1]] * 3


def test_without_their_table_alerts_are_sent_and_it_is_said_that_they_repeat(
    database: SessionStores, hook: WebHook
) -> None:
    database.sql("DROP TABLE session_alerts")
    memory = AlertMemory.of_policy(policy(), database.database_url, None, None)
    for _ in range(2):
        _, log = told(channels(hook.url), memory)
        assert "session-policy init" in log.named("alert state not saved")[0]["remedy"]
    assert len(hook.received) == 2


def test_a_dry_run_logs_its_problems_and_sends_and_changes_nothing(database: SessionStores, hook: WebHook) -> None:
    before = database.dump()
    memory = AlertMemory.of_policy(policy(), database.database_url, None, None)
    deliveries, log = told(channels(hook.url), memory, failing(dry_run=True))
    assert (deliveries, hook.received, database.dump()) == ([], [], before)
    assert [e["reason"] for e in log.named("problem found")] == ["RedisUnavailable"]


def test_a_run_without_problems_sends_nothing_and_keeps_nothing(database: SessionStores, hook: WebHook) -> None:
    before = database.dump()
    told(channels(hook.url), AlertMemory.of_policy(policy(), database.database_url, None, None), succeeding())
    assert (hook.received, database.dump()) == ([], before)


def test_a_link_or_a_pipe_on_the_log_volume_is_neither_followed_nor_waited_for(tmp_path: Path, hook: WebHook) -> None:
    volume, report = tmp_path / "volume", tmp_path / "termination-log"
    (volume / "alerts").mkdir(parents=True)
    report.write_text("the report")
    state = volume / "alerts" / "state.web.shop.json"
    state.symlink_to(report)
    new = volume / "alerts" / f"state.web.shop.json.{os.getpid()}.new"
    new.symlink_to(report)
    told(channels(hook.url), AlertMemory(file_copy(volume, "web/shop")))
    assert report.read_text() == "the report"
    assert state.is_file()
    assert not state.is_symlink()
    state.unlink()
    os.mkfifo(state)
    told(channels(hook.url), AlertMemory(file_copy(volume, "web/shop")))
    told(channels(hook.url), AlertMemory(file_copy(volume, "web/shop")))
    assert len(hook.received) == 2  # nothing was known to the second, all of it to the third


def test_a_folder_that_is_a_link_is_not_written_to(tmp_path: Path, hook: WebHook) -> None:
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    volume.mkdir()
    elsewhere.mkdir()
    (volume / "alerts").symlink_to(elsewhere)
    _, log = told(channels(hook.url), AlertMemory(file_copy(volume, "web/shop")))
    assert list(elsewhere.iterdir()) == []
    assert log.named("alert state not saved")


# --- channels that do not work ---------------------------------------------------------------------------------------


def test_a_channel_that_refuses_is_told_without_its_url_and_tried_again_next_time(
    tmp_path: Path, hook: WebHook
) -> None:
    hook.status = 500
    memory = AlertMemory(file_copy(tmp_path, "web/shop"))
    deliveries, log = told(channels(hook.url), memory)
    assert [(d.sent, d.channel) for d in deliveries] == [(False, "1 (json)")]
    assert "token-nobody-may-see" not in str(log.events) + str(deliveries)
    hook.status = 200
    told(channels(hook.url), memory)
    assert len(hook.received) == 2  # the refused one, and the next run's


@pytest.mark.parametrize("url", ["xoxb-secret-token", "nosuchservice://secret-token", "slack://", "secret token"])
def test_a_url_that_is_none_fails_nothing_and_is_not_quoted(
    hook: WebHook, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    deliveries, log = told(channels(hook.url, url), AlertMemory())
    assert deliveries[0].sent
    assert not any(d.sent for d in deliveries[1:])
    assert "secret" not in str(log.events) + caplog.text
    assert len(hook.received) == 1


def test_r2_a_channel_that_hangs_holds_nothing_up_and_the_others_are_told(tmp_path: Path, hook: WebHook) -> None:
    with web_hook() as hanging:
        hanging.hangs = True
        began = time.monotonic()
        deliveries, _ = told(channels(hanging.url, hook.url), AlertMemory(file_copy(tmp_path, "web/shop")), seconds=4)
        assert time.monotonic() - began < 100  # the channel hangs for good
        assert [d.sent for d in deliveries] == [False, True]
        assert deliveries[0].error.startswith("no answer within")
        left = [t for t in threading.enumerate() if t.name.startswith("alert-")]
        assert left
        assert all(t.daemon for t in left)


_PROCESS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from job.alerts.alert_memory import AlertMemory
from job.alerts.channels import Channels
from job.alerts.message import AlertSource
from job.alerts.problems import Audience, Problem
from job.alerts.notify import notify
from policy.alerts import Alerts
from policy.report import RunReport
from tests.support.runs import Log
report = RunReport.model_validate_json(sys.argv[2], by_alias=True, by_name=False)
found = [Problem("RedisUnavailable", Audience.OPERATIONS, "x")]
notify(found, report, Alerts(), Channels({Audience.OPERATIONS: (sys.argv[1],)}), AlertSource("shop", "web"),
       AlertMemory(), Log(), datetime.now(UTC), 3)
print("told")
sys.exit(0)
"""


def test_r2_a_channel_that_hangs_does_not_keep_the_process_alive(hook: WebHook) -> None:
    hook.hangs = True
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, hook.url, failing().model_dump_json(by_alias=True)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n", "")


def test_no_run_pays_for_apprise_that_has_nothing_to_tell() -> None:
    imported = "import sys, job.alerts.notify, job.run; sys.exit('apprise' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", imported], cwd=ROOT, env=environment, check=False).returncode == 0


def test_the_channels_show_no_url(hook: WebHook) -> None:
    both = channels(hook.url, security=["mailto://user:password@example.org"])
    assert repr(both) == "Channels(operations, security)"
    assert not channels()

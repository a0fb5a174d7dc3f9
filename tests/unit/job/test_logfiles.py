"""R2: logs on a volume, under batch/, session/ and alerts/, with their retention kept by the run."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from job.logs.log_files import LogFiles, LogName, retention_days
from job.logs.run_logs import open_logs
from policy.spec import Logs
from tests.support import runs

TODAY = date(2026, 3, 10)


def files(directory: Path, policy: str = "web/shop", day: date = TODAY) -> tuple[LogFiles, list[str]]:
    failures: list[str] = []
    return LogFiles(directory, policy, failures.append, lambda: day), failures


def test_r2_each_log_has_its_folder_and_a_file_per_day(tmp_path: Path) -> None:
    today = [TODAY]
    log = LogFiles(tmp_path, "web/shop", pytest.fail, lambda: today[0])
    for name in LogName:
        log.write(name, f"{name}\n")
    today[0] += timedelta(days=1)
    log.write(LogName.RUN, "next day\n")
    log.close()
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        "batch/run-2026-03-10.web.shop.jsonl": "run\n",
        "batch/run-2026-03-11.web.shop.jsonl": "next day\n",
        "batch/error-2026-03-10.web.shop.jsonl": "error\n",
        "session/cleanup-2026-03-10.web.shop.jsonl": "cleanup\n",
        "alerts/alert-2026-03-10.web.shop.jsonl": "alert\n",
    }


def test_r2_default_retention_is_a_month_three_months_and_a_week() -> None:
    days = retention_days(Logs())
    assert (days[LogName.RUN], days[LogName.ERROR], days[LogName.CLEANUP]) == (30, 90, 7)
    assert days[LogName.ALERT] == 90


def test_r2_a_run_that_writes_files_deletes_its_old_ones(tmp_path: Path) -> None:
    obeyed = runs.policy(logs={"cleanupRetentionDays": 3})
    name = f"{obeyed.metadata.namespace}/{obeyed.metadata.name}"
    today = datetime.now(UTC).date()
    of_age = {
        age: LogFiles(tmp_path, name, pytest.fail).path(LogName.CLEANUP, today - timedelta(days=age)) for age in (2, 5)
    }
    for path in of_age.values():
        path.parent.mkdir(exist_ok=True)
        path.touch()
    open_logs(sys.stdout, logging.INFO).write_files(obeyed, tmp_path).close()
    assert [age for age, path in of_age.items() if path.exists()] == [2]


def test_r2_retention_removes_this_policy_s_old_files_and_nothing_else(tmp_path: Path) -> None:
    kept: list[Path] = []
    gone: list[Path] = []
    for policy in ("web/shop", "web/other"):
        log, _ = files(tmp_path, policy)
        for age in (0, 7, 8, 400):
            path = log.path(LogName.CLEANUP, TODAY - timedelta(days=age))
            path.parent.mkdir(exist_ok=True)
            path.write_text("x\n")
            (gone if policy == "web/shop" and age > 7 else kept).append(path)
    foreign = tmp_path / "session" / "cleanup-2020-01-01.web.shop.jsonl.gz"
    foreign.write_text("somebody's archive")
    no_day = tmp_path / "session" / "cleanup-2020-99-99.web.shop.jsonl"
    no_day.write_text("")
    log, failures = files(tmp_path)
    log.delete_old(retention_days(Logs()))
    assert failures == []
    assert all(path.exists() for path in [*kept, foreign, no_day])
    assert not any(path.exists() for path in gone)


def test_lines_are_appended_and_a_torn_one_is_ended_first(tmp_path: Path) -> None:
    log, _ = files(tmp_path)
    path = log.path(LogName.RUN, TODAY)
    path.parent.mkdir()
    path.write_text('{"a": 1}\n{"torn": ')
    log.write(LogName.RUN, '{"b": 2}\n')
    log.close()
    assert path.read_text() == '{"a": 1}\n{"torn": \n{"b": 2}\n'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_volume_is_told_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    log, failures = files(tmp_path)
    for _ in range(3):
        log.write(LogName.RUN, "line\n")
    assert len(failures) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_volume_fails_nothing_and_is_told_once_on_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    logs = open_logs(sys.stdout, logging.INFO)

    class Full(LogFiles):
        def _descriptor(self, log: LogName) -> int:
            return os.open("/dev/full", os.O_WRONLY)

    logs.sink.files = Full(
        Path("/nowhere"), "web/shop", lambda why: logs.log.warning("log files disabled", because=why)
    )
    for _ in range(3):
        logs.log.info("expired")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines].count("expired") == 3
    (warning,) = [line for line in lines if line["event"] == "log files disabled"]
    assert os.strerror(errno.ENOSPC) in warning["because"]


def test_a_volume_that_is_no_directory_is_told(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    log, failures = files(place)
    log.write(LogName.RUN, "line\n")
    log.delete_old(retention_days(Logs()))
    assert len(failures) == 1


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_in_the_place_of_a_log_is_not_written_to(tmp_path: Path, kind: str) -> None:
    log, failures = files(tmp_path)
    path, elsewhere = log.path(LogName.RUN, TODAY), tmp_path / "elsewhere"
    path.parent.mkdir()
    elsewhere.write_text("")
    path.symlink_to(elsewhere) if kind == "link" else os.mkfifo(path)
    log.write(LogName.RUN, "line\n")
    assert elsewhere.read_text() == ""
    assert len(failures) == 1


def test_a_link_that_others_lay_on_the_volume_leads_nowhere(tmp_path: Path) -> None:
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    volume.mkdir()
    elsewhere.mkdir()
    old = LogFiles(elsewhere.parent, "web/shop", pytest.fail).path(LogName.CLEANUP, TODAY - timedelta(days=400)).name
    (elsewhere / old).write_text("of somebody else\n")
    (volume / "session").symlink_to(elsewhere)
    log, failures = files(volume)
    log.delete_old({LogName.CLEANUP: 7})
    log.write(LogName.CLEANUP, "x\n")
    log.close()
    assert [path.name for path in elsewhere.iterdir()] == [old]
    assert len(failures) == 1


def test_a_file_where_the_folder_should_be_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "batch").write_text("of somebody else")
    log, failures = files(tmp_path)
    log.write(LogName.RUN, "x\n")
    assert (tmp_path / "batch").read_text() == "of somebody else"
    assert len(failures) == 1

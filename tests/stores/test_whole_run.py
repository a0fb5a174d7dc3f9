"""The whole of a run by the command line: every step, rule, store, log and alert of the requirements at once."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from job.alerts.notify import TOTAL_SECONDS
from policy.names import ALERT_OPERATIONS_URLS_ENV, ALERT_SECURITY_URLS_ENV, LOG_HASH_KEY_ENV
from policy.report import Outcome, RunReport
from policy.rules import RuleType
from stores.sql.schema.tables import settings
from tests.support.runs import Command, Finished, command, manifest, policy, run
from tests.support.session_stores import HOUR, SessionStores
from tests.support.webhooks import WebHook, web_hook

# Each is a whole run, in a process of its own.
pytestmark = pytest.mark.representative(database_url=["postgresql"])

CANARY = "canary"
TOKEN = "token-nobody-may-see"
HASH_KEY = f"{CANARY}-{secrets.token_hex(32)}"
DAY = 86_400
BERLIN, NEW_YORK = {"lat": 52.5, "lon": 13.4}, {"lat": 40.7, "lon": -74.0}

POLICY: Mapping[str, Any] = {
    "redis": True,
    "absoluteTimeoutSeconds": 7 * DAY,
    "cleanupBatchSize": 3,
    "duplicates": {"action": "KeepNewest"},
    "rules": [
        {"type": "Revoked", "action": "Delete"},
        {"type": "ImpossibleTravel", "action": "LogoutEverywhere"},
        {"type": "WeakId"},
        {"type": "AddressChange"},
        {"type": "LongRunning", "action": "Delete"},
    ],
    # How well this Redis' cache works says something about other tests only.
    "alerts": {"thresholds": {"cacheHitPercent": 0}},
}


@dataclass(frozen=True)
class Session:
    """A session of the story. Times are seconds before now."""

    user: str
    stays: bool
    began: int = HOUR
    used: int = 60
    client: str | None = None
    address: str | None = None
    revoked: bool = False
    accesses: tuple[tuple[int, Mapping[str, Any]], ...] = ()
    id: str = field(default_factory=lambda: CANARY + secrets.token_hex(32))


def story() -> dict[str, Session]:
    """Somebody for each step and rule, and who stays."""
    travel = ((60, {"location": NEW_YORK}), (1200, {"location": BERLIN}))
    moved = ((60, {"ip": "198.51.100.7"}),)
    phone, laptop = f"{CANARY}-phone", f"{CANARY}-laptop"
    told = {
        "begun first": Session("ann", stays=False, began=3000, used=1, client=phone),
        "begun later": Session("ann", stays=False, began=2000, client=phone),
        "begun last": Session("ann", stays=True, began=1000, client=phone),
        "other client": Session("ann", stays=True, client=laptop),
        "revoked": Session("bob", stays=False, revoked=True),
        "not revoked": Session("bob", stays=True),
        "travels": Session("cleo", stays=False, accesses=travel),
        "the traveller's": Session("cleo", stays=False, client=phone),
        "the traveller's too": Session("cleo", stays=False, client=laptop),
        "goes on and on": Session("dan", stays=False, began=2 * DAY),
        "went on for less": Session("dan", stays=True, began=DAY - HOUR),
        "moves": Session("eve", stays=True, address="192.0.2.1", accesses=moved),
        "weak": Session("fay", stays=True, id=f"{CANARY}-weak-id"),
        "idle in the policy's eyes": Session("gus", stays=False, used=HOUR),
        "too old": Session("gus", stays=False, began=8 * DAY),
        "idle for longer than ida's setting": Session("ida", stays=False, used=900),
        "within ida's setting": Session("ida", stays=True),
        "with the policy's timeout": Session("jon", stays=True, used=900),
        "with a setting that has no effect": Session("lea", stays=True, used=900),
    }
    # Hal may have two sessions, everybody four; the policy alone would allow ten.
    told |= {f"of hal {n}": Session("hal", stays=n < 2, used=60 * (n + 1)) for n in range(6)}
    told |= {f"of kim {n}": Session("kim", stays=n < 4, used=60 * (n + 1)) for n in range(6)}
    return told


SETTINGS: tuple[Mapping[str, Any], ...] = (
    {"scope": "Global", "subject": "", "max_sessions": 4},
    {"scope": "User", "subject": f"{CANARY}-hal", "max_sessions": 2},
    {"scope": "User", "subject": f"{CANARY}-ida", "idle_timeout_seconds": 600},
    {"scope": "User", "subject": f"{CANARY}-lea", "idle_timeout_seconds": DAY},
)
FOUND = {"expired": 3, "overLimit": 6, "duplicate": 2, "abnormal": 5}
DELETED = {"Expired": 3, "Duplicate": 2, "Evicted": 6, "Abnormal": 5}
ALERTS = {"RiskySettings": 1, "Revoked": 1, "ImpossibleTravel": 1, "WeakId": 1, "AddressChange": 1, "LongRunning": 1}


def fill(stores: SessionStores) -> dict[str, Session]:
    sessions, now = story(), datetime.now(UTC)

    def ago(seconds: float) -> datetime:
        return now - timedelta(seconds=seconds)

    stores.rows(
        {
            "session_id": s.id,
            "user_id": f"{CANARY}-{s.user}",
            "created_at": ago(s.began),
            "last_accessed_at": ago(s.used),
            "client": s.client,
            "address": s.address,
            "revoked_at": ago(60) if s.revoked else None,
        }
        for s in sessions.values()
    )
    with stores.engine.begin() as connection:
        for setting in SETTINGS:
            connection.execute(settings.insert().values(**setting))
    with stores.redis.pipeline() as pipeline:
        for s in sessions.values():
            content = {"userId": f"{CANARY}-{s.user}", "lastAccessedAt": ago(s.used).timestamp()}
            pipeline.set(f"sess:{s.id}", json.dumps(content), ex=HOUR)
            pipeline.sadd(f"user_sess:{CANARY}-{s.user}", s.id)
            for age, access in s.accesses:
                pipeline.rpush(f"access_log:{s.id}", json.dumps({"time": ago(age).timestamp(), **access}))
        pipeline.execute()
    return sessions


@dataclass(frozen=True)
class Channels:
    """Where alerts go."""

    operations: WebHook
    security: WebHook

    @property
    def environment(self) -> dict[str, str]:
        return {
            ALERT_OPERATIONS_URLS_ENV: self.operations.url,
            ALERT_SECURITY_URLS_ENV: self.security.url,
            LOG_HASH_KEY_ENV: HASH_KEY,
        }


@pytest.fixture
def channels() -> Iterator[Channels]:
    with web_hook() as operations, web_hook() as security:
        yield Channels(operations, security)


@dataclass(frozen=True)
class Installation:
    """A policy with its stores, channels and log volume."""

    directory: Path
    stores: SessionStores
    channels: Channels

    @property
    def volume(self) -> Path:
        return self.directory / "logs"

    def run(self, *arguments: str, **spec: Any) -> Finished:
        done = command(
            self.directory,
            manifest(**{**POLICY, **spec}),
            self.stores.database_url,
            self.stores.redis_url,
            "--log-directory",
            str(self.volume),
            *arguments,
            environment=self.channels.environment,
        )
        assert done.exit_code == 0, done
        return done

    def lines(self, log: str) -> list[dict[str, Any]]:
        """The lines of one log on the volume."""
        return read_log(self.volume, log)


def read_log(volume: Path, log: str) -> list[dict[str, Any]]:
    folder = {"run": "batch", "error": "batch", "cleanup": "session", "alert": "alerts"}[log]
    files = sorted((volume / folder).glob(f"{log}-*.web.shop.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert all(line["log"] == log for line in lines)
    return lines


def check_secrets(done: Finished, volume: Path, *hooks: WebHook) -> None:
    """No id of a session or user, no password, no token, no key in anything that was written or sent."""
    written = [file.read_text() for file in volume.rglob("*") if file.is_file()]
    assert written
    for text in (done.everything, *written, *(json.dumps(hook.received) for hook in hooks)):
        assert CANARY not in text
        assert TOKEN not in text


@pytest.fixture
def installation(tmp_path: Path, stores: SessionStores, channels: Channels) -> Installation:
    return Installation(tmp_path, stores, channels)


def test_r2_a_whole_run_does_what_every_step_and_rule_says(installation: Installation) -> None:
    stores, told = installation.stores, installation.channels
    sessions = fill(stores)
    staying = {s.id for s in sessions.values() if s.stays}

    first = installation.run()

    names = {s.id: name for name, s in sessions.items()}
    assert {names[i] for i in stores.ids()} == {name for name, s in sessions.items() if s.stays}
    check_redis(stores, sessions)
    report = first.report
    assert (report.outcome, report.reason) == (Outcome.SUCCEEDED, "Completed")
    counts = report.sessions.model_dump(by_alias=True)
    assert {name: counts[name] for name in FOUND} == FOUND
    assert (counts["active"], counts["deleted"], counts["evicted"]) == (len(staying), sum(DELETED.values()), 6)
    assert (counts["failed"], counts["remaining"]) == (0, 0)
    assert {alert.reason: alert.count for alert in report.alerts} == ALERTS

    # R2.7: who lost how many, and why.
    by_cause: Counter[str] = Counter()
    for (_, cause), (ended, _) in stores.history().items():
        by_cause[cause] += ended
    assert by_cause == DELETED
    (row,) = stores.statistics()
    assert (row["deleted"], row["duplicate"], row["abnormal"], row["active"]) == (
        sum(DELETED.values()),
        2,
        5,
        len(staying),
    )

    # Alerts: to whom they belong, with how many and what to do.
    assert told.operations.titles == ["Session policy web/shop: RiskySettings"]
    assert [title.partition(":")[0] for title in told.security.titles] == ["Session policy web/shop"]
    (message,) = [m["message"] for m in told.security.received]
    meanings = {kind.value: kind.meaning for kind in RuleType}
    for kind in ALERTS.keys() - {"RiskySettings"}:
        assert f"{kind}: 1 session found by rule {kind}: it {meanings[kind]}" in message
        assert f"runbooks/{kind}" in message
    assert "RiskySettings" not in message

    # Logs: each deleted session and each abnormal one, by hashes that tell no one who it was.
    cleaned = installation.lines("cleanup")
    assert Counter(line["cause"] for line in cleaned) == DELETED
    assert len({line["session"] for line in cleaned}) == len(cleaned)
    abnormal = [line for line in installation.lines("alert") if line["event"] == "abnormal session"]
    suspects = {line["rule"]: line["session"] for line in abnormal}
    assert suspects.keys() == ALERTS.keys() - {"RiskySettings"}
    gone = {line["session"] for line in cleaned}
    assert {rule for rule, session in suspects.items() if session in gone} == {
        "Revoked",
        "ImpossibleTravel",
        "LongRunning",
    }
    events = [line["event"] for line in installation.lines("run")]
    assert (events[0], events[-1]) == ("run started", "run finished")
    check_secrets(first, installation.volume, told.operations, told.security)

    # Once more: nothing is left to do, what still stands is logged by the same hashes, and nobody is told again.
    before = stores.dump()
    done = installation.run()
    second = done.report
    assert (second.outcome, second.sessions.deleted, second.sessions.remaining) == (Outcome.SUCCEEDED, 0, 0)
    assert {alert.reason: alert.count for alert in second.alerts} == {
        "RiskySettings": 1,
        "WeakId": 1,
        "AddressChange": 1,
    }
    after = stores.dump()
    for part in before.keys() | after.keys():
        if part not in {"session_statistics", "session_usage", "session_alerts"} and "session-policy:" not in part:
            assert after.get(part) == before.get(part), part
    assert len(installation.lines("cleanup")) == len(cleaned)
    again = [line for line in installation.lines("alert") if line["event"] == "abnormal session"][len(abnormal) :]
    assert {line["rule"]: line["session"] for line in again} == {k: suspects[k] for k in ("WeakId", "AddressChange")}
    assert (len(told.operations.received), len(told.security.received)) == (1, 1)
    check_secrets(done, installation.volume, told.operations, told.security)


@pytest.mark.representative(also=["a duplicate"])
@pytest.mark.parametrize("also", ["a duplicate", "over the limit"])
def test_r4_4_who_is_logged_out_everywhere_is_so_even_if_another_step_would_delete_what_gave_them_away(
    stores: SessionStores, also: str
) -> None:
    """Otherwise the run would delete its own evidence, and leave the rest to whoever has hijacked the session."""
    now = datetime.now(UTC)
    suspect: dict[str, Any] = {"session_id": secrets.token_hex(32), "user_id": "ann", "revoked_at": now}
    suspect |= {"created_at": now - timedelta(hours=2), "last_accessed_at": now - timedelta(minutes=10)}
    others: list[dict[str, Any]] = [
        {"session_id": secrets.token_hex(32), "user_id": user} for user in ("ann", "ann", "bob", None)
    ]
    client = {"client": "phone"} if also == "a duplicate" else {}
    stores.rows([{**suspect, **client}])
    stores.rows([{**others[0], **client}])
    stores.rows(others[1:])
    for row in (suspect, *others):
        stores.add_key(row["session_id"], row["user_id"], used=None)
    obeyed = policy(
        redis=True,
        rules=[{"type": "Revoked", "action": "LogoutEverywhere"}],
        duplicates={"action": "KeepNewest"},
        maxConcurrentSessions=10 if client else 2,
    )
    result = run(obeyed, stores.database_url, stores.redis_url)
    assert stores.ids() == {others[2]["session_id"], others[3]["session_id"]}
    counts = result.report.sessions
    assert (counts.abnormal, counts.deleted, counts.active, counts.remaining) == (1, 3, 2, 0)
    assert (counts.duplicate, counts.over_limit, counts.evicted) == ((1, 0, 0) if client else (0, 1, 0))


def test_r6_a_session_that_several_steps_want_to_delete_is_counted_once_for_the_share(sqlite_url: str) -> None:
    """Of all sessions no more than all can go: a share of 100 % never refuses."""
    stores = SessionStores(sqlite_url)
    now = datetime.now(UTC)
    stores.rows({"session_id": f"{n:064x}", "user_id": "ann", "client": "phone", "revoked_at": now} for n in range(120))
    obeyed = policy(
        rules=[{"type": "Revoked", "action": "Delete"}],
        duplicates={"action": "KeepNewest"},
        safety={"maxDeletePercent": 100},
    )
    result = run(obeyed, stores.database_url)
    counts = result.report.sessions
    assert (result.report.outcome, counts.deleted, counts.remaining) == (Outcome.SUCCEEDED, 120, 0)
    assert stores.ids() == set()
    stores.close()


def check_redis(stores: SessionStores, sessions: Mapping[str, Session]) -> None:
    """Redis holds just what belongs to the sessions that stay."""
    staying = [s for s in sessions.values() if s.stays]
    keys = stores.redis_keys()
    assert {key for key in keys if key.startswith("sess:")} == {f"sess:{s.id}" for s in staying}
    assert {key for key in keys if key.startswith("access_log:")} == {
        f"access_log:{s.id}" for s in staying if s.accesses
    }
    for user in {s.user for s in sessions.values()}:
        assert stores.members(f"{CANARY}-{user}") == {s.id for s in staying if s.user == user}


@pytest.mark.representative(how=["--dry-run"])
@pytest.mark.parametrize("how", ["--dry-run", "dryRun"])
def test_r6_a_dry_run_finds_the_same_and_changes_and_sends_nothing(installation: Installation, how: str) -> None:
    fill(installation.stores)
    before = installation.stores.dump()
    done = installation.run(how) if how.startswith("-") else installation.run(**{how: True})
    assert installation.stores.dump() == before
    counts = done.report.sessions.model_dump(by_alias=True)
    assert {name: counts[name] for name in FOUND} == FOUND
    assert (done.report.dry_run, counts["deleted"], counts["evicted"]) == (True, 0, 0)
    assert {alert.reason: alert.count for alert in done.report.alerts} == ALERTS
    told = installation.channels
    assert (told.operations.received, told.security.received) == ([], [])
    assert installation.lines("cleanup") == []
    check_secrets(done, installation.volume)


@pytest.mark.exhaustive
@pytest.mark.representative(trouble=["hanging"])
@pytest.mark.parametrize("trouble", ["dead", "refusing", "hanging"])
def test_r2_an_alert_channel_that_does_not_work_neither_fails_nor_delays_a_run(
    tmp_path: Path, postgres_and_redis: SessionStores, channels: Channels, trouble: str
) -> None:
    stores = postgres_and_redis
    sessions = fill(stores)
    channels.security.hangs = trouble == "hanging"
    channels.security.status = 500 if trouble == "refusing" else 200
    dead = {ALERT_SECURITY_URLS_ENV: f"json://{CANARY}:{CANARY}@127.0.0.1:9/{TOKEN}"} if trouble == "dead" else {}
    volume = tmp_path / "logs"
    started = Command(
        tmp_path,
        manifest(**POLICY),
        stores.database_url,
        stores.redis_url,
        "--log-directory",
        str(volume),
        environment=channels.environment | dead,
    )
    # The report is there before anybody is told; from then on the channel may take a few seconds, and no more.
    assert started.process.stdout
    line = started.process.stdout.readline()
    reported = time.monotonic()
    done = started.wait()
    assert time.monotonic() - reported < TOTAL_SECONDS + 100  # the channel hangs for good
    assert done.exit_code == 0, done
    report = RunReport.model_validate_json(done.termination_message, by_alias=True, by_name=False)
    assert (line + done.stdout).strip() == done.termination_message.strip()
    assert (report.outcome, report.sessions.deleted) == (Outcome.SUCCEEDED, sum(DELETED.values()))
    assert stores.ids() == {s.id for s in sessions.values() if s.stays}
    # The other channel is told all the same, and the log says which one was not.
    assert channels.operations.titles == ["Session policy web/shop: RiskySettings"]
    (unsent,) = [each for each in read_log(volume, "alert") if each["event"] == "alert not sent"]
    assert (unsent["audience"], unsent["channel"]) == ("security", "1 (json)")
    check_secrets(done, volume, channels.operations)


def test_r2_11_a_run_that_fails_tells_operations_once_and_keeps_the_error_log(
    tmp_path: Path, channels: Channels
) -> None:
    nowhere = f"postgresql://{CANARY}:{CANARY}-password@127.0.0.1:9/{CANARY}"
    volume = tmp_path / "logs"
    at_once = {"attempts": 1, "delaySeconds": 0}
    for _ in range(2):
        done = command(
            tmp_path,
            manifest(retries={"database": at_once}),
            nowhere,
            None,
            "--log-directory",
            str(volume),
            environment=channels.environment,
        )
        assert (done.exit_code, done.report.reason) == (1, "DatabaseUnavailable")
        assert [alert.reason for alert in done.report.alerts] == ["DatabaseUnavailable"]
        check_secrets(done, volume, channels.operations)
    # What was told is remembered on the log volume where the database is the very thing that is down.
    assert channels.operations.titles == ["Session policy web/shop: DatabaseUnavailable"]
    assert channels.security.received == []
    errors = [line for line in read_log(volume, "error") if line["event"] == "run failed"]
    assert [line["reason"] for line in errors] == ["DatabaseUnavailable"] * 2
    assert all(any(" in " in frame for frame in line["trace"]) for line in errors)


@pytest.mark.parametrize(
    ("stuck", "outcome", "reason"), [(2, "Succeeded", "Completed"), (3, "Degraded", "DeletionsFailed")]
)
def test_r2_more_than_five_percent_of_the_deletions_failed_is_degraded(
    database: SessionStores, stuck: int, outcome: str, reason: str
) -> None:
    """Of forty: two are five percent and no more than that; three are more."""
    database.add_many(((f"due-{n}", "u") for n in range(40 - stuck)), used=HOUR)
    database.add_many(((f"stuck-{n}", "u") for n in range(stuck)), used=HOUR)
    database.add("live")
    refuse_to_delete(database, "stuck-")
    result = run(policy(cleanupBatchSize=7), database.database_url)
    counts = result.report.sessions
    assert (result.report.outcome, result.report.reason, result.exit_code) == (outcome, reason, 0)
    assert (counts.deleted, counts.failed, counts.active) == (40 - stuck, stuck, 1)
    assert database.ids() == {"live", *(f"stuck-{n}" for n in range(stuck))}
    assert f"{stuck} failed" in result.report.message
    alerts = {alert.reason: alert.count for alert in result.report.alerts}
    assert alerts.get("DeletionsFailed") == (stuck if outcome == "Degraded" else None)


def refuse_to_delete(stores: SessionStores, beginning: str) -> None:
    """A trigger of the application's own, which keeps some sessions."""
    matches = f"substr(OLD.session_id, 1, {len(beginning)}) = '{beginning}'"
    head = "CREATE TRIGGER refuse BEFORE DELETE ON sessions FOR EACH ROW"
    match stores.engine.dialect.name:
        case "postgresql":
            stores.sql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
                f"{head} WHEN ({matches}) EXECUTE FUNCTION refuse()",
            )
        case "sqlite":
            stores.sql(f"{head} WHEN {matches} BEGIN SELECT RAISE(ABORT, 'no'); END")
        case _:
            stores.sql(f"{head} BEGIN IF {matches} THEN SIGNAL SQLSTATE '45000'; END IF; END")

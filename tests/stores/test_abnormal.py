"""R2.6, R4.3 to R4.5: abnormal and invalid sessions are found in the stores, and handled as each rule says."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from job.steps import abnormal, rule_scan
from job.steps.abnormal import find_abnormal_sessions, handle_abnormal_sessions, rule_matches
from policy.rules import RuleType
from stores.model.errors import SafetyLimitError
from stores.redis.content import access_log
from stores.redis.content.access_log import read_entry
from stores.rules.table import make_detector, matching
from stores.waiting.clock import RunClock
from tests.support.examples import at_most
from tests.support.made_up_rule import CopyWithRule
from tests.support.runs import policy
from tests.support.session_stores import HOUR, SessionStores
from tests.support.steps import steps

# MariaDB's SQL is tested in few other modules by `make test`, and everywhere by `make test-all`.
pytestmark = pytest.mark.representative(database_url=["postgresql", "sqlite"])

BERLIN, NEW_YORK = {"lat": 52.5, "lon": 13.4}, {"lat": 40.7, "lon": -74.0}
DAY = 86_400


def strong(name: str) -> str:
    """An id that no rule finds weak, with a name in it."""
    return name + secrets.token_hex(32)[len(name) :]


def fill(stores: SessionStores, rows: Mapping[str, Mapping[str, Any]], used: float = 60) -> dict[str, str]:
    """Rows by name; times are ages in seconds. Returns the ids by name, and there is a good session for each."""
    now = datetime.now(UTC)
    ids = {name: strong(name) for name in rows}
    complete = []
    for name, row in rows.items():
        fields = dict(row)
        complete.append(
            {
                "session_id": ids[name],
                "user_id": fields.get("user_id", f"user-{name}"),
                "created_at": now - timedelta(seconds=fields.get("began", HOUR)),
                "last_accessed_at": now - timedelta(seconds=fields.get("used", used)),
                "client": fields.get("client"),
                "address": fields.get("address"),
                "revoked_at": now if fields.get("revoked") else None,
            }
        )
    stores.rows(complete)
    return ids


def log_accesses(stores: SessionStores, session_id: str, accesses: Iterable[tuple[float, Mapping[str, Any]]]) -> None:
    """Accesses so many seconds ago, the newest first."""
    stores.redis.delete(f"access_log:{session_id}")
    now = datetime.now(UTC).timestamp()
    with stores.redis.pipeline() as pipeline:
        for age, fields in accesses:
            pipeline.rpush(f"access_log:{session_id}", json.dumps({"time": now - age, **fields}))
        pipeline.execute()


def rule(kind: str, action: str = "Delete", **fields: int) -> dict[str, Any]:
    return {"type": kind, "action": action, **fields}


def names(stores: SessionStores, ids: Mapping[str, str]) -> set[str]:
    left = stores.ids()
    return {name for name, session_id in ids.items() if session_id in left}


ONLY_A_TABLE: dict[str, dict[str, Any]] = {
    "good": {},
    "long": {"began": 2 * DAY},
    "revoked": {"revoked": True},
    "began ahead": {"began": -600},
    "used ahead": {"used": -600},
    "ownerless": {"user_id": None},
    "of nobody": {"user_id": ""},
}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("LongRunning", {"long"}),
        ("Revoked", {"revoked"}),
        ("FutureTime", {"began ahead", "used ahead"}),
        ("Ownerless", {"ownerless", "of nobody"}),
        ("WeakId", set()),
    ],
)
def test_r2_6_each_rule_finds_its_sessions_and_no_other(database: SessionStores, kind: str, found: set[str]) -> None:
    ids = fill(database, ONLY_A_TABLE)
    for action, gone in (("Report", set()), ("Delete", found)):
        with steps(policy(rules=[rule(kind, action)]), database) as run:
            tally = run.clean()
            assert set(ids) - names(database, ids) == gone
            assert (tally.abnormal, tally.deleted, tally.remaining) == (len(found), len(gone), 0)
            assert tally.active == len(ids) - len(gone)
            assert sum(run.found.found.values()) == len(found)
            assert all(p.count == len(found) for p in run.found.problems())
            # What was logged and told holds no id and no user.
            text = repr(run.log.events) + repr(run.found.problems())
            assert not any(session_id in text for session_id in ids.values())
            assert "user-" not in text


def test_r2_6_a_dry_run_counts_and_changes_nothing(database: SessionStores) -> None:
    fill(database, ONLY_A_TABLE)
    before = database.dump()
    with steps(policy(rules=[rule("Revoked"), rule("Ownerless", "LogoutEverywhere")]), database, dry_run=True) as run:
        tally = run.clean()
    assert database.dump() == before
    assert (tally.abnormal, tally.deleted, tally.remaining) == (3, 0, 0)


def test_r4_5_by_default_only_what_the_application_revoked_goes(database: SessionStores) -> None:
    ids = fill(database, ONLY_A_TABLE)
    with steps(policy(), database) as run:
        tally = run.clean()
    assert set(ids) - names(database, ids) == {"revoked"}
    # Reported are these and the ones with wrong times or that are too old.
    assert tally.abnormal == len({"revoked", "long", "began ahead", "used ahead"})
    assert dict(run.found.found) == {"Revoked": 1, "LongRunning": 1, "FutureTime": 2}


def test_r4_3_short_and_sequential_ids(database: SessionStores) -> None:
    ids = fill(database, {f"{n}": {} for n in range(30)})
    database.add("0123456789abcdef")
    with steps(policy(rules=[rule("WeakId")]), database) as run:
        assert run.clean().deleted == 1
    assert names(database, ids) == set(ids)
    database.sql("DELETE FROM sessions")
    database.add_many((f"{n:064}", f"u{n}") for n in range(40))
    with steps(policy(rules=[rule("WeakId", "Report")]), database) as run:
        assert run.clean().abnormal == 40


def test_r2_6_expired_sessions_are_expired_and_not_abnormal(database: SessionStores) -> None:
    fill(database, ONLY_A_TABLE, used=2 * HOUR)
    with steps(policy(rules=[rule("Ownerless"), rule("Revoked")]), database) as run:
        tally = run.clean()
    assert (tally.abnormal, tally.expired, tally.deleted) == (0, 6, 6)


def test_r4_4_logout_everywhere_ends_all_sessions_of_the_user_and_nobody_elses(stores: SessionStores) -> None:
    ids = fill(
        stores,
        {
            "bad": {"user_id": "a", "revoked": True},
            **{f"of a {n}": {"user_id": "a"} for n in range(5)},
            **{f"of b {n}": {"user_id": "b"} for n in range(3)},
            "alone": {"user_id": None, "revoked": True},
            "of nobody": {"user_id": None},
            "anonymous and bad": {"user_id": "", "revoked": True},
            "anonymous": {"user_id": ""},
        },
    )
    for name, session_id in ids.items():
        stores.add_key(session_id, {"bad": "a", "of a": "a", "of b": "b"}.get(name.rstrip(" 0123456789")))
    obeyed = policy(redis=True, cleanupBatchSize=2, rules=[rule("Revoked", "LogoutEverywhere")])
    with steps(obeyed, stores) as run:
        tally = run.clean()
    left = {"of b 0", "of b 1", "of b 2", "of nobody", "anonymous"}
    assert names(stores, ids) == left
    assert (tally.abnormal, tally.deleted, tally.active, tally.remaining) == (3, 8, 5, 0)
    keys = stores.redis_keys()
    gone = [session_id for name, session_id in ids.items() if name not in left]
    assert not any(session_id in key for key in keys for session_id in gone)
    assert stores.redis.smembers("user_sess:b") == {ids[n].encode() for n in left if n.startswith("of b")}
    assert stores.history()["a", "Abnormal"][0] == 6


def test_r4_4_a_login_after_the_logout_stays(postgres: SessionStores) -> None:
    """Between looking and deleting, the rightful owner logs in again."""
    ids = fill(postgres, {"bad": {"user_id": "a", "revoked": True}})
    with steps(policy(rules=[rule("Revoked", "LogoutEverywhere")]), postgres) as run:
        now = datetime.now(UTC)
        postgres.add("new", "a", began=-2, used=-2)
        pages = list(run.queries.pages_of_users(["a"], now))
        assert [[s.id for s in page] for page in pages] == [[ids["bad"]]]
        assert [s.id for s in run.queries.delete_of_users(pages[0], ["a"], now).deleted] == [ids["bad"]]
    assert postgres.ids() == {"new"}


def test_r2_6_a_session_that_is_all_right_again_stays(database: SessionStores) -> None:
    """The statement that deletes looks again."""
    ids = fill(database, {"revoked": {"revoked": True}, "other": {"revoked": True}})
    with steps(policy(rules=[rule("Revoked")]), database) as run:
        found = run.queries
        condition = make_detector(run.context.spec.session_rules[0]).sql_condition(found.columns, datetime.now(UTC))
        (page,) = found.detail_pages(condition)
        database.sql(f"UPDATE sessions SET revoked_at = NULL WHERE session_id = '{ids['revoked']}'")
        deleted = found.delete_matching([details.session for details in page], condition).deleted
    assert [s.id for s in deleted] == [ids["other"]]
    assert names(database, ids) == {"revoked"}


def test_r4_5_a_session_used_while_the_run_is_at_work_is_not_from_the_future(database: SessionStores) -> None:
    strict = {"clockSkewSeconds": 1, "maxDeletePercent": 100}
    with steps(policy(maxConcurrentSessions=0, rules=[rule("FutureTime")], safety=strict), database) as run:
        began = datetime.now(UTC)
        while datetime.now(UTC) - began < timedelta(seconds=2):
            database.add(strong("new"), began=0, used=0)
            assert run.clean().deleted == 0
    assert run.tally.abnormal == 0


# --- access logs ---


def test_r4_4_hijack_signs_in_access_logs(stores: SessionStores) -> None:
    ids = fill(
        stores,
        {
            "good": {"address": "192.0.2.1", "client": "curl/8.0"},
            "travels": {},
            "flies": {},
            "moves": {"address": "192.0.2.1"},
            "switches": {"client": "curl/8.0"},
            "bursts": {},
            "no log": {"address": "192.0.2.1"},
            "broken log": {},
        },
    )
    home = {"ip": "192.0.2.1", "client": "curl/8.1", "location": BERLIN}
    log_accesses(stores, ids["good"], [(n, home) for n in range(5)])
    log_accesses(stores, ids["travels"], [(5, {"location": NEW_YORK}), (900, {"location": BERLIN})])
    log_accesses(stores, ids["flies"], [(5, {"location": NEW_YORK}), (9 * HOUR, {"location": BERLIN})])
    log_accesses(stores, ids["moves"], [(5, {"ip": "192.0.2.2"})])
    log_accesses(stores, ids["switches"], [(5, {"client": "Firefox on Linux"})])
    log_accesses(stores, ids["bursts"], [(n / 10, {}) for n in range(350)])
    stores.redis.rpush(f"access_log:{ids['broken log']}", "entry", b"\xff", "[]", "{")
    stores.redis.set(f"access_log:{strong('x')}", "no list")
    found: list[tuple[str, str, dict[str, int]]] = [
        ("ImpossibleTravel", "travels", {}),
        ("AddressChange", "moves", {}),
        ("ClientChange", "switches", {}),
        ("RequestBurst", "bursts", {"count": 300}),
    ]
    for kind, name, numbers in found:
        with steps(policy(redis=True, rules=[rule(kind, "Report", **numbers)]), stores) as run:
            assert run.clean().abnormal == 1, kind
            assert dict(run.found.found) == {kind: 1}
        with steps(policy(redis=True, rules=[rule(kind, "Delete", **numbers)]), stores) as run:
            assert (run.clean().deleted, run.tally.remaining) == (1, 0)
        assert ids[name] not in stores.ids()
        assert not stores.redis.exists(f"access_log:{ids[name]}")
    assert names(stores, ids) == {"good", "flies", "no log", "broken log"}


def test_r4_4_a_burst_beyond_the_first_look_at_a_log_is_found(stores: SessionStores) -> None:
    ids = fill(stores, {"calm": {}, "bursts": {}})
    for name, apart in (("calm", 1.0), ("bursts", 0.01)):
        log_accesses(stores, ids[name], [(n * apart, {}) for n in range(900)])
    with steps(policy(redis=True, rules=[rule("RequestBurst")]), stores) as run:
        assert run.clean().abnormal == 1
    assert names(stores, ids) == {"calm"}


def test_a_session_that_breaks_several_rules_is_counted_once_and_the_gravest_action_taken(
    stores: SessionStores,
) -> None:
    ids = fill(stores, {"bad": {"user_id": "a", "revoked": True, "began": 2 * DAY}, "other": {"user_id": "a"}})
    log_accesses(stores, ids["bad"], [(5, {"location": NEW_YORK}), (900, {"location": BERLIN})])
    rules = [rule("Revoked", "Report"), rule("ImpossibleTravel", "LogoutEverywhere"), rule("LongRunning", "Delete")]
    with steps(policy(redis=True, rules=rules), stores) as run:
        tally = run.clean()
    assert (tally.abnormal, tally.deleted) == (1, 2)
    assert stores.ids() == set()
    assert dict(run.found.found) == {"Revoked": 1, "ImpossibleTravel": 1, "LongRunning": 1}


@pytest.mark.parametrize("pages_in_time", [0, 1, 3, 99])
def test_r6_reading_access_logs_takes_no_more_than_its_share_of_the_time(
    stores: SessionStores, monkeypatch: pytest.MonkeyPatch, pages_in_time: int
) -> None:
    """Every look at the clock finds a second gone. What the table tells is found of all sessions all the same."""
    ids = fill(stores, {f"{n}": {"address": "192.0.2.1"} for n in range(20)})
    for session_id in ids.values():
        log_accesses(stores, session_id, [(5, {"ip": "192.0.2.2"})])
    fill(stores, {f"r{n}": {"revoked": True} for n in range(7)})
    seconds = iter(range(10_000))
    obeyed = policy(
        redis=True, cleanupBatchSize=2, rules=[rule("AddressChange", "Report"), rule("Revoked", "Report")],
        job={"timeoutSeconds": 3600},
    )  # fmt: skip
    with steps(obeyed, stores) as run:
        most = run.overview.owners.most
        monkeypatch.setattr(RunClock, "elapsed_seconds", property(lambda _: float(next(seconds))))
        monkeypatch.setattr(rule_scan, "_LOGS_SHARE", (pages_in_time + 1) / 3600)
        found = find_abnormal_sessions(run.context, run.queries, run.logs, most).found
        whole = pages_in_time == 99
        assert found[RuleType.REVOKED] == 7
        assert found.get(RuleType.ADDRESS_CHANGE, 0) == min(20, 2 * pages_in_time)
        assert bool(run.log.named("rules incomplete")) is not whole


@pytest.mark.parametrize("begins", ["first", "middle", "last"])
def test_r6_access_logs_are_met_once_wherever_the_look_at_them_begins(
    stores: SessionStores, monkeypatch: pytest.MonkeyPatch, begins: str
) -> None:
    """Where there is time for some only, these are others in each run."""
    names = [strong(f"{n}") for n in range(300)]
    for name in names:
        log_accesses(stores, name, [(5, {})])
        stores.add_key(name, "u")
    monkeypatch.setattr(access_log, "_SCAN_COUNT", 10)
    pick = {"first": lambda _: 0, "middle": lambda n: n // 2, "last": lambda n: n - 1}[begins]
    with steps(policy(redis=True), stores) as run:
        assert run.logs is not None
        monkeypatch.setattr(secrets, "randbelow", lambda n: 0)
        in_order = list(run.logs.session_ids())
        monkeypatch.setattr(secrets, "randbelow", pick)
        found = list(run.logs.session_ids())
    assert sorted(found) == sorted(names)
    # The keys are not all logs, and SCAN tells of a few more at a time: what lies behind the last is the first again.
    assert begins == "last" or (found[0] == in_order[0]) is (begins == "first")


LOG_RULES = [rule("AddressChange", "Report"), rule("ClientChange", "Delete"), rule("ImpossibleTravel", "Delete")]
ADDRESSES = st.sampled_from([None, "", "192.0.2.1", "192.0.2.2", "192.0.2.1:80", "no address"])
CLIENTS = st.sampled_from([None, "", "curl/8.0", "curl/9", "Firefox on Linux"])
ENTRIES = st.fixed_dictionaries(
    {"ip": ADDRESSES, "client": CLIENTS, "location": st.sampled_from([None, BERLIN, NEW_YORK])},
    optional={"path": st.sampled_from("ab")},
)
SESSIONS = st.fixed_dictionaries(
    {
        "address": ADDRESSES,
        "client": CLIENTS,
        "began": st.sampled_from([HOUR, 3 * DAY]),
        "used": st.sampled_from([60, 2 * HOUR]),
        "revoked": st.booleans(),
        "log": st.none() | st.lists(ENTRIES, max_size=4) | ENTRIES.map(lambda entry: [entry] * 4),
    }
)


@pytest.mark.representative(database_url=["sqlite"])
@settings(
    max_examples=at_most(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to make a failing example smaller takes minutes here
)
@given(
    rows=st.lists(SESSIONS, max_size=12),
    batch=st.integers(1, 7),
    most_remembered=st.sampled_from([0, 50_000]),
    read_together=st.sampled_from([1, 20_000]),
)
def test_r4_4_what_is_found_is_what_judging_every_session_by_every_rule_finds(
    stores: SessionStores, rows: list[dict[str, Any]], batch: int, most_remembered: int, read_together: int
) -> None:
    """However few sessions and logs are looked at for it: the same sessions, for the same rules, each once."""
    stores.sql("DELETE FROM sessions")
    stores.redis.flushdb()
    ids = fill(stores, {str(n): row for n, row in enumerate(rows)})
    for name, row in zip(ids.values(), rows, strict=True):
        log_accesses(stores, name, [(60.0 * n, entry) for n, entry in enumerate(row["log"] or [])])
    log_accesses(stores, strong("of no row"), [(5, {"location": BERLIN}), (50, {"location": NEW_YORK})])
    rules = [*LOG_RULES, rule("Revoked", "LogoutEverywhere"), rule("LongRunning", "Report")]
    obeyed = policy(redis=True, cleanupBatchSize=batch, rules=rules, safety={"maxDeletePercent": 100})
    with steps(obeyed, stores) as run, pytest.MonkeyPatch.context() as patch:
        patch.setattr(abnormal, "_MOST_REMEMBERED", most_remembered)
        patch.setattr(rule_scan, "_ACCESSES_AT_ONCE", read_together)
        detectors = [make_detector(rule) for rule in obeyed.spec.session_rules]
        wanted: dict[str, tuple[Any, ...]] = {}
        for details in run.queries.details_of(list(ids.values())):
            entries = stores.redis.lrange(f"access_log:{details.session.id}", 0, -1)
            known = replace(details, accesses=[read_entry(entry) for entry in entries])
            if found_by := matching(detectors, known, datetime.now(UTC)):
                wanted[details.session.id] = tuple(detector.rule.type for detector in found_by)
        found = find_abnormal_sessions(run.context, run.queries, run.logs, 1)
        seen = [s for page in rule_matches(run.context, run.queries, run.logs, found) for s in page]
        assert sorted((s.session.id, tuple(r.type for r in s.rules)) for s in seen) == sorted(wanted.items())
        assert run.tally.abnormal == len(wanted)
        going = {i for i, kinds in wanted.items() if {"Revoked", "ClientChange", "ImpossibleTravel"} & set(kinds)}
        assert found.due == len(going)
        assert handle_abnormal_sessions(run.context, run.queries, run.logs, found) == len(going)
        assert stores.ids() == set(ids.values()) - going


# --- bursts of logins ---


def test_r4_4_login_bursts_by_user(database: SessionStores) -> None:
    ids = fill(
        database,
        {
            **{f"a{n}": {"user_id": "a", "began": 100 + n} for n in range(8)},
            "a old": {"user_id": "a", "began": 900},
            **{f"b{n}": {"user_id": "b", "began": 100 + 60 * n} for n in range(8)},
            **{f"c{n}": {"user_id": "c", "began": 100} for n in range(5)},
            **{f"n{n}": {"user_id": None, "began": 100} for n in range(9)},
            **{f"e{n}": {"user_id": "", "began": 100} for n in range(9)},
        },
    )
    obeyed = policy(cleanupBatchSize=3, rules=[rule("LoginBurst", count=5, withinSeconds=60)])
    with steps(obeyed, database) as run:
        tally = run.clean()
    assert set(ids) - names(database, ids) == {f"a{n}" for n in range(8)}
    assert tally.abnormal == 8


def test_r4_4_one_session_more_than_normal_is_a_login_burst(database: SessionStores) -> None:
    """Also where no user has more sessions than that."""
    ids = fill(database, {f"{user}{n}": {"user_id": user, "began": 100 + n} for user in "ab" for n in range(4)})
    for normal, found in ((4, 0), (3, 8)):
        with steps(policy(rules=[rule("LoginBurst", "Report", count=normal)]), database) as run:
            assert run.clean().abnormal == found
    assert names(database, ids) == set(ids)


def test_r4_4_a_login_burst_is_found_although_the_limit_evicts_it(database: SessionStores) -> None:
    fill(database, {f"{n}": {"user_id": "a", "began": 100 + n} for n in range(25)})
    with steps(policy(maxConcurrentSessions=3, rules=[rule("LoginBurst", "Report")]), database) as run:
        tally = run.clean()
    assert (tally.abnormal, tally.evicted) == (25, 22)


# --- what is not mapped, and limits ---


def test_r2_6_a_rule_made_of_one_module_and_one_line_finds_its_sessions(
    postgres: SessionStores, tmp_path: Path
) -> None:
    """In SQLite: tests/unit/stores/test_rules_one_module.py."""
    for name in ("short", "0123456789a"):
        postgres.add(name)
    CopyWithRule(tmp_path).run(postgres.database_url, {"type": "LongId", "action": "Delete"})
    assert postgres.ids() == {"short"}


def test_r2_6_a_rule_without_its_data_finds_nothing_and_says_so_once(database: SessionStores) -> None:
    fill(database, ONLY_A_TABLE)
    table = {"name": "sessions", "columns": {"id": {"name": "session_id"}, "expiresAt": {"name": "expires_at"}}}
    kinds = ["LongRunning", "ImpossibleTravel", "LoginBurst", "Revoked", "FutureTime", "Ownerless"]
    obeyed = policy(table=table, rules=[rule(kind) for kind in kinds])
    with steps(obeyed, database) as run:
        assert (run.clean().abnormal, len(database.ids())) == (0, 7)
        assert [event["rule"] for event in run.log.named("rule skipped")] == kinds


def test_r6_abnormal_sessions_count_in_the_share(database: SessionStores) -> None:
    fill(database, {**{f"r{n}": {"revoked": True} for n in range(6)}, **{f"g{n}": {} for n in range(4)}})
    before = database.dump()
    safety = {"maxDeletePercent": 50, "alwaysAllowedDeletions": 0}
    with steps(policy(rules=[rule("Revoked")], safety=safety), database) as run, pytest.raises(SafetyLimitError):
        run.clean()
    assert database.dump() == before
    with steps(policy(rules=[rule("Revoked", "Report")], safety=safety), database) as run:
        assert run.clean().abnormal == 6


def test_r6_logout_everywhere_counts_all_that_would_go(database: SessionStores) -> None:
    rows: dict[str, dict[str, Any]] = {f"{n}": {"user_id": "a"} for n in range(8)}
    fill(database, {"bad": {"user_id": "a", "revoked": True}, **rows, "b": {}})
    safety = {"maxDeletePercent": 50, "alwaysAllowedDeletions": 0}
    obeyed = policy(rules=[rule("Revoked", "LogoutEverywhere")], safety=safety)
    with steps(obeyed, database) as run, pytest.raises(SafetyLimitError):
        run.clean()
    assert len(database.ids()) == 10


def test_r6_what_is_over_the_limit_of_deletions_remains(database: SessionStores) -> None:
    fill(database, {f"r{n}": {"revoked": True} for n in range(7)})
    obeyed = policy(rules=[rule("Revoked")], cleanupBatchSize=2, safety={"maxDeletePercent": 100, "maxDeletions": 3})
    with steps(obeyed, database) as run:
        tally = run.clean()
        assert run.deletion_limit.reached
    assert (tally.abnormal, tally.deleted, tally.remaining, len(database.ids())) == (7, 3, 4, 4)

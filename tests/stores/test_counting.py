"""R2.2 to R2.5: what is counted in few passes is what counting one thing at a time finds, whatever the table."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from job.steps.overview import AGES, SESSIONS, between
from policy.spec import OnExceed
from stores.sql import owners, queries
from stores.sql.schema.tables import settings
from tests.support.runs import policy
from tests.support.runs import run as run_policy
from tests.support.session_stores import HOUR, SessionStores
from tests.support.steps import Steps, steps

EXEMPT = ["robot"]
# Names that some collations take for the same, in several scripts; none is written with a blank at its end.
USERS = ["ann", "Ann", "bob", "bób", "żaneta", "robot", "", None]
CLIENTS = ["phone", "Phone", "laptop", "curl/8", "", None]
LIMIT = 3
BERLIN = ZoneInfo("Europe/Berlin")


def columns(**more: Any) -> dict[str, Any]:
    named = {"id": "id", "userId": "who", "createdAt": "began", "lastAccessedAt": "used", "client": "client"}
    return {field: {"name": name, **more.get(field, {})} for field, name in named.items()}


@dataclass(frozen=True)
class Kind:
    """A way to keep sessions: types of the columns, and how a policy maps them."""

    who: Any
    time: Any
    mapping: dict[str, Any]

    def written(self, moment: datetime | None) -> Any:
        match self.mapping.get("createdAt", {}).get("encoding"):
            case "EpochSeconds":
                return moment and int(moment.timestamp())
            case "EpochMilliseconds":
                return moment and int(moment.timestamp() * 1000)
            case "JulianDay":
                return moment and moment.timestamp() / 86400 + 2440587.5
            case "NaiveTimestamp":
                return moment and moment.astimezone(BERLIN).replace(tzinfo=None)
        return moment

    def owner(self, user: str | None) -> Any:
        return {"user": {"id": user}} if "userId" in self.mapping else user


def _times(encoding: str, **more: str) -> dict[str, Any]:
    return {field: {"encoding": encoding, **more} for field in ("createdAt", "lastAccessedAt")}


KINDS = {
    "text": Kind(sa.String(64), sa.DateTime(timezone=True), {}),
    "json": Kind(sa.JSON(), sa.DateTime(timezone=True), {"userId": {"path": ["user", "id"]}}),
    "seconds": Kind(sa.String(64), sa.BigInteger(), _times("EpochSeconds")),
    "milliseconds": Kind(sa.String(64), sa.BigInteger(), _times("EpochMilliseconds")),
    "days": Kind(sa.String(64), sa.Double(), _times("JulianDay")),
    "naive": Kind(sa.String(64), sa.DateTime(), _times("NaiveTimestamp", timeZone="Europe/Berlin")),
}


def fill(stores: SessionStores, kind: Kind, seed: int = 1) -> dict[str, Any]:
    """A table of 400 sessions. Returns the policy's word for it."""
    table = sa.Table(
        "kept", sa.MetaData(), sa.Column("id", sa.String(32), primary_key=True), sa.Column("who", kind.who),
        sa.Column("client", sa.String(64)), sa.Column("began", kind.time), sa.Column("used", kind.time),
        mysql_charset="utf8mb4", mysql_collate="utf8mb4_general_ci",
    )  # fmt: skip
    chance, now = random.Random(seed), datetime.now(UTC)
    users = [*USERS, *(f"user {n}" for n in range(30))]

    def time(longest: float) -> datetime | None:
        return None if chance.random() < 0.05 else now - timedelta(seconds=chance.uniform(-600, longest))

    rows = [
        {
            "id": f"{chance.getrandbits(96):x}",
            "who": kind.owner(chance.choice(users if chance.random() < 0.3 else USERS)),
            "client": chance.choice(CLIENTS),
            "began": kind.written(time(chance.choice([HOUR, 30 * HOUR, 900 * HOUR]))),
            "used": kind.written(time(2 * HOUR)),
        }
        for _ in range(400)
    ]
    with stores.engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), rows)
        connection.execute(
            settings.insert(),
            [
                {"scope": "User", "subject": "ann", "max_sessions": 1, "idle_timeout_seconds": 900},
                {"scope": "User", "subject": "user 1", "max_sessions": 2, "idle_timeout_seconds": None},
            ],
        )
    return {"name": "kept", "columns": columns(**kind.mapping)}


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, database: SessionStores) -> Iterator[Steps]:
    table = fill(database, KINDS[request.param])
    obeyed = policy(table=table, maxConcurrentSessions=LIMIT, concurrency={"exemptUsers": EXEMPT}, cleanupBatchSize=7)
    with steps(obeyed, database) as run:
        yield run


def live(run: Steps) -> list[tuple[str, str | None, str | None]]:
    """Id, owner and client of the live sessions, row by row."""
    database = run.opened.database
    client = database.owners.client
    assert client is not None
    query = sa.select(*database.table.session_columns, client.label("client")).where(database.live)
    return [(row.id, row.user_id, row.client) for row in database.fetch(query)]


def allowed(user: str) -> int:
    return {"ann": 1, "user 1": 2}.get(user, LIMIT)


def too_many(sessions: Counter[str]) -> int:
    return sum(max(0, n - allowed(user)) for user, n in sessions.items() if user not in EXEMPT)


@pytest.mark.representative(opened=["text", "json", "naive"])
def test_r2_3_and_r2_5_users_limits_and_duplicates(opened: Steps) -> None:
    found = opened.overview.owners
    rows = [(user, client) for _, user, client in live(opened)]
    by_user = Counter(user for user, _ in rows if user)
    assert set(by_user) >= {"ann", "Ann", "bob", "bób", "żaneta", "robot"}
    assert found.users == len(by_user) + any(user == "" for user, _ in rows)
    assert (found.owners, found.most) == (len(by_user), max(by_user.values()))
    assert found.reaching == tuple(sum(n >= bound for n in by_user.values()) for bound in SESSIONS)
    assert found.over_limit == too_many(by_user) > 0

    pairs = Counter((user, client) for user, client in rows if user and client)
    more = Counter({pair[0]: 0 for pair in pairs})
    for (user, _), n in pairs.items():
        more[user] += n - 1
    assert found.duplicates == more.total() > 0
    assert found.over_limit_apart == too_many(by_user - more)
    assert 0 < found.over_limit_apart < found.over_limit
    assert opened.opened.database.totals().users == found.users


@pytest.mark.representative(opened=["text", "json", "naive"])
def test_r2_2_sessions_and_when_they_began(opened: Steps) -> None:
    """Against one statement for each number."""
    last = datetime.now(UTC) - timedelta(hours=3, seconds=17)
    overview = opened.look(last)
    database = opened.opened.database
    created = database.table.created_at
    assert created is not None

    def count(*conditions: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).select_from(database.table.clause).where(*conditions)
        return int(database.fetch(query)[0][0])

    def before(moment: datetime) -> int:
        return count(database.live, created.before(moment))

    assert (overview.totals.total, overview.totals.active) == (400, count(database.live))
    assert 0 < overview.totals.expired < 400
    assert overview.begun_since(last) == count(sa.not_(created.before(last + overview.offset)))
    hour = timedelta(hours=1)
    by_hour = {h.hour: before(h + hour) - before(h) for h in overview.hours}
    assert overview.begun_by_hour() == by_hour
    assert sum(n > 0 for n in by_hour.values()) > 6
    aged = [before(overview.at + overview.skew - timedelta(seconds=age)) for age in AGES]
    assert overview.live_by_age() == between(AGES, aged)


@pytest.mark.representative(opened=["text", "json", "naive"])
def test_r2_5_lists_of_users_are_the_same_in_any_number_of_parts(
    opened: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_user = Counter(user for _, user, _ in live(opened) if user)
    over = {user for user, n in by_user.items() if n > allowed(user)} - set(EXEMPT)
    many = {(user, n) for user, n in by_user.items() if n > 2}
    pairs = Counter((user, client) for _, user, client in live(opened) if user and client)
    alike = {user for (user, _), n in pairs.items() if n > 1}
    lists = opened.opened.database.owners
    for at_once in (1, 3, len(over), 1000):
        monkeypatch.setattr(owners, "USERS_AT_ONCE", at_once)
        for parts, expected in (
            (lists.over_limit(LIMIT, EXEMPT), over),
            ((([(row.owner, row.sessions) for row in part]) for part in lists.with_more_than(2)), many),
            (lists.with_duplicates(), alike),
        ):
            found = [part for part in parts if len(part) <= at_once]
            assert sorted(user for part in found for user in part) == sorted(expected)  # each once
            assert len(found) <= len(expected) // at_once + 1


@pytest.mark.representative(opened=["text", "json", "naive"])
def test_r2_5_pages_over_the_limit_hold_each_session_once(opened: Steps) -> None:
    database = opened.opened.database
    pages = list(database.over_limit_pages(LIMIT, OnExceed.EVICT_LEAST_RECENTLY_USED, EXEMPT))
    ids = [session.id for page in pages for session in page]
    assert len(set(ids)) == len(ids) == opened.overview.owners.over_limit
    assert max(map(len, pages)) <= 7


@pytest.mark.representative(opened=["text", "json", "naive"])
def test_r2_6_sessions_a_rule_may_apply_to_are_read_once_however_few_they_are(
    opened: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = opened.opened.database.table.id < "8"
    asked = opened.queries
    expected = sorted(session_id for session_id, *_ in live(opened) if session_id < "8")
    assert len(expected) > 20
    # Listed at once; listed a part at a time; more than are worth listing.
    for at_once, most in ((50_000, 500_000), (10, 500_000), (10, 20)):
        monkeypatch.setattr(queries, "_IDS_AT_ONCE", at_once)
        monkeypatch.setattr(queries, "_MOST_LISTED", most)
        pages = list(asked.detail_pages(condition))
        assert sorted(facts.session.id for page in pages for facts in page) == expected
        assert max(map(len, pages)) <= 7


def test_r6_a_session_due_for_two_reasons_counts_once_in_the_share(database: SessionStores) -> None:
    """Nine sessions on one client, of a user who may have three: eight go, and not fourteen of nine."""
    now = datetime.now(UTC)
    client = {"client": "phone", "user_id": "u"}
    database.rows({"session_id": f"s{n}", "created_at": now - timedelta(minutes=n), **client} for n in range(9))
    database.add_many((f"other {n}", f"other {n}") for n in range(7))
    share = {"maxDeletePercent": 50, "alwaysAllowedDeletions": 0}
    obeyed = policy(maxConcurrentSessions=3, rules=[], duplicates={"action": "KeepNewest"}, safety=share)
    result = run_policy(obeyed, database.database_url)
    assert (result.report.outcome.value, result.report.reason, result.deleted) == ("Succeeded", "Completed", 8)
    assert (result.report.sessions.over_limit, result.report.sessions.duplicate) == (6, 8)
    assert result.report.sessions.remaining == 0
    assert result.report.sessions.active == 8


def test_r2_7_nothing_is_counted_again_where_nothing_was_deleted(database: SessionStores) -> None:
    database.add_many((f"s{n}", f"u{n % 4}") for n in range(8))
    seen: list[str] = []

    def note(*call: Any) -> None:
        seen.append(call[2].replace("`", '"').lower())

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        result = run_policy(policy(), database.database_url)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert (result.report.sessions.active, result.deleted) == (8, 0)
    # Sessions, users and clients.
    assert sum('from "sessions"' in statement and "count(" in statement for statement in seen) == 3


@pytest.mark.parametrize("revoked", [False, True])
def test_r2_7_users_who_lost_their_last_session_do_not_count(database: SessionStores, revoked: bool) -> None:
    """Only a rule can take a user's last live session; without one, the users that were counted before remain."""
    database.add_many([("a1", "a"), ("a2", "a"), ("a3", "a")])
    database.add("gone", "b", used=2 * HOUR)
    database.rows([{"session_id": "c1", "user_id": "c", "revoked_at": datetime.now(UTC) if revoked else None}])
    report = run_policy(policy(maxConcurrentSessions=2), database.database_url).report
    assert report.sessions.deleted == 2 + revoked
    (row,) = database.statistics()
    assert (row["active"], row["active_users"]) == (3 - revoked, 2 - revoked)

"""A shop's sessions, made up: the same ones for the same moment, and the same numbers for every moment."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from job.demo.kinds import Kind
from job.demo.snapshot import Row

#: How many sessions of each kind there are under examples/policy.yaml; 20,000 in all.
NUMBERS = {
    Kind.LIVE: 10_842,
    Kind.NO_TTL: 587,
    Kind.NOT_IN_REDIS: 163,
    Kind.USED_SINCE: 312,
    Kind.OVER_LIMIT: 794,
    Kind.IDLE: 4_613,
    Kind.TOO_OLD: 887,
    Kind.ENDED: 604,
    Kind.ORPHANED: 1_198,
}
#: Entries of user indexes that point at no session.
STALE_ENTRIES = 941
#: The longest ago that a live session was used.
LIVE_WITHIN = timedelta(minutes=14)

_SEED = 20_000
_LIMIT = 5
_USERS = 4_800
_NAMED_SHARE = 0.02
_NAMES = (
    "ada", "alan", "barbara", "dennis", "donald", "edsger", "frances", "grace", "hedy", "jean", "joan", "katherine",
    "kathleen", "ken", "leslie", "linus", "margaret", "niklaus", "radia", "sophie", "tim", "tony",
)  # fmt: skip
_HEAVY_USERS = 130
_CLIENTS = ("web", "web", "web", "ios", "ios", "android", "android", "tablet")
_PLACES = ("Berlin", "Lagos", "Lima", "Lyon", "Osaka", "Oslo", "Porto", "Pune", "Quito", "Turin")
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")  # set aside for documentation: nobody's
# How busy a shop is at each hour of the day (UTC), 1 at its best.
_BUSY = (
    0.10, 0.06, 0.05, 0.05, 0.06, 0.10, 0.20, 0.35, 0.50, 0.60, 0.65, 0.70,
    0.80, 0.75, 0.65, 0.60, 0.65, 0.75, 0.90, 1.00, 0.95, 0.75, 0.45, 0.20,
)  # fmt: skip

_MINUTE = 60.0
_HOUR = 3600.0
_DAY = 24 * _HOUR
_MEAN_VISIT = 25 * _MINUTE
# The shop renews a key's TTL at every use: what was not used for longer is gone from Redis.
_TTL = _DAY
_REMEMBERED = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class RedisSession:
    """A session key.

    Attributes:
        session_id: the id in its name.
        user_id: whose it is.
        created_at: when the session began.
        last_accessed_at: when it was last used.
        client: kind of program it is used with.
        ip: address it is used from.
        location: where that is.
        as_hash: a hash instead of JSON.
        has_log: whether it has an access log.
        ttl_seconds: None if it would stay for ever.
    """

    session_id: str
    user_id: str
    created_at: datetime
    last_accessed_at: datetime
    client: str
    ip: str
    location: str
    as_hash: bool
    has_log: bool
    ttl_seconds: int | None


@dataclass(frozen=True, slots=True)
class Population:
    """What is in the stores.

    Attributes:
        rows: the session table.
        keys: session keys.
        index: entries of user indexes, as user and session id.
    """

    rows: list[Row]
    keys: list[RedisSession]
    index: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Ages:
    """How many seconds ago a session began, was last used, and ended by the application's own word."""

    created: float
    used: float
    expired: float | None = None


def populate(now: datetime) -> Population:
    """The shop as it is now.

    Args:
        now: by the clock of the stores.
    """
    return _Shop(now.replace(microsecond=0)).fill()


class _Shop:
    def __init__(self, now: datetime) -> None:
        self._now = now
        self._random = random.Random(_SEED)  # noqa: S311 - made up, and meant to be the same every time
        self._live_of: Counter[str] = Counter()
        self._made = Population([], [], [])

    def fill(self) -> Population:
        heavy = self._heavy_users()
        self._live_of.update(heavy)
        for user, sessions in heavy.items():
            for _ in range(sessions):
                self._add(user, self._in_use(), Kind.LIVE)
        live = NUMBERS[Kind.LIVE] + NUMBERS[Kind.OVER_LIMIT] - sum(heavy.values())
        for kind, number in {**NUMBERS, Kind.LIVE: live, Kind.OVER_LIMIT: 0}.items():
            for _ in range(number):
                self._add_one(kind)
        self._made.index.extend((self._user(), self._id()) for _ in range(STALE_ENTRIES))
        # As they would be after a day's work, and not kind by kind.
        for each in (self._made.rows, self._made.keys, self._made.index):
            self._random.shuffle(each)
        return self._made

    def _heavy_users(self) -> dict[str, int]:
        """Users over the limit, and how many live sessions they have."""
        users = [*self._random.sample(_NAMES, 6), *(_numbered(n) for n in self._random.sample(range(1, _USERS), 124))]
        excess = Counter(users)
        excess.update(self._random.choices(users, k=NUMBERS[Kind.OVER_LIMIT] - len(users)))
        return {user: _LIMIT + over for user, over in excess.items()}

    def _add_one(self, kind: Kind) -> None:
        match kind:
            case Kind.USED_SINCE | Kind.IDLE | Kind.ORPHANED:
                self._add(self._user(), self._idle(), kind)
            case Kind.TOO_OLD:
                self._add(self._user(), self._old(), kind)
            case Kind.ENDED:
                self._add(self._user(), self._ended(), kind)
            case _:
                self._add(self._user_below_limit(), self._in_use(), kind)

    def _add(self, user: str, ages: _Ages, kind: Kind) -> None:
        session_id = self._id()
        created, used = self._ago(ages.created), self._ago(ages.used)
        if kind is not Kind.ORPHANED:
            remembered = created + _REMEMBERED if self._random.random() < 0.4 else None  # noqa: PLR2004
            expires = self._ago(ages.expired) if ages.expired is not None else remembered
            self._made.rows.append(Row(session_id, user, created, used, expires))
        seconds_ago = ages.used
        if kind is Kind.USED_SINCE:  # the shop tells Redis of every use, the database of some
            seconds_ago = self._within_live()
        if kind is not Kind.NOT_IN_REDIS and seconds_ago < _TTL:
            self._made.keys.append(self._key(session_id, user, created, seconds_ago, kind))
        # An index has no TTL: its entry is left even where the key is gone.
        self._made.index.append((user, session_id))

    def _key(self, session_id: str, user: str, created: datetime, used: float, kind: Kind) -> RedisSession:
        draw = self._random
        for_ever = kind is Kind.NO_TTL or (kind is Kind.ORPHANED and draw.random() < 0.5)  # noqa: PLR2004
        return RedisSession(
            session_id=session_id,
            user_id=user,
            created_at=created,
            last_accessed_at=self._ago(used),
            client=draw.choice(_CLIENTS),
            ip=f"{draw.choice(_NETWORKS)}.{draw.randint(1, 254)}",
            location=draw.choice(_PLACES),
            as_hash=draw.random() < 0.15,  # noqa: PLR2004
            has_log=draw.random() < 0.3,  # noqa: PLR2004
            ttl_seconds=None if for_ever else int(_TTL - used),
        )

    # --- who and when ------------------------------------------------------------------------------------------------

    def _id(self) -> str:
        return f"{self._random.getrandbits(256):064x}"

    def _user(self) -> str:
        if self._random.random() < _NAMED_SHARE:
            return self._random.choice(_NAMES)
        return _numbered(self._random.randint(1, _USERS))

    def _user_below_limit(self) -> str:
        while self._live_of[user := self._user()] >= _LIMIT:
            pass
        self._live_of[user] += 1
        return user

    def _ago(self, seconds: float) -> datetime:
        return self._now - timedelta(seconds=int(seconds))

    def _within_live(self) -> float:
        return self._random.uniform(15, LIVE_WITHIN.total_seconds())

    def _visit(self, used: float, oldest: float = 23 * _HOUR) -> _Ages:
        return _Ages(created=min(used + 30 + self._random.expovariate(1 / _MEAN_VISIT), oldest), used=used)

    def _in_use(self) -> _Ages:
        return self._visit(self._within_live())

    def _idle(self) -> _Ages:
        return self._visit(next(self._busy_times(35 * _MINUTE, 22 * _HOUR)))

    def _old(self) -> _Ages:
        created = next(self._busy_times(_DAY + 10 * _MINUTE, 6 * _DAY))
        if self._random.random() < 0.6:  # noqa: PLR2004 - still in use: it ends however much it is used
            return _Ages(created, self._within_live())
        return _Ages(created, self._random.uniform(35 * _MINUTE, created))

    def _ended(self) -> _Ages:
        visit = self._visit(self._random.uniform(2 * _MINUTE, LIVE_WITHIN.total_seconds()))
        return _Ages(visit.created, visit.used, expired=self._random.uniform(30, visit.used))

    def _busy_times(self, latest: float, earliest: float) -> Iterator[float]:
        """Seconds ago, within these bounds, at hours when the shop is busy."""
        while True:
            seconds = self._random.uniform(latest, earliest)
            if self._random.random() < _BUSY[self._ago(seconds).hour]:
                yield seconds


def _numbered(number: int) -> str:
    return f"user-{number:04d}"

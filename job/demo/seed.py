"""A shop's sessions, made up: the same ones for the same moment, and the same numbers for every moment."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product

from job.demo.kinds import Kind
from job.demo.snapshot import Row
from stores.rules.details import Access, GeoPoint

#: How many sessions of each kind there are under examples/policy.yaml; 20,000 in all.
NUMBERS = {
    Kind.LIVE: 10_217,
    Kind.NEW_ADDRESS: 148,
    Kind.WEAK_ID: 64,
    Kind.NO_TTL: 587,
    Kind.NOT_IN_REDIS: 163,
    Kind.USED_SINCE: 312,
    Kind.IDLE: 4_613,
    Kind.TOO_OLD: 887,
    Kind.ENDED: 604,
    Kind.DUPLICATE: 236,
    Kind.OVER_LIMIT: 794,
    Kind.REVOKED: 118,
    Kind.TRAVELLED: 21,
    Kind.LOGGED_OUT: 38,
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
# Enough of them that no user needs one twice but those who are meant to.
_CLIENTS = tuple(
    f"{browser}/{version} ({platform})"
    for browser, version, platform in product(
        ("Chrome", "Firefox", "Safari", "Edg", "ShopApp"),
        range(141, 146),
        ("Windows", "Macintosh", "Android", "iPhone"),
    )
)
# Berlin, Lagos, Lima, Lyon, Osaka, Oslo, Porto, Pune, Quito, Turin.
_PLACES = tuple(
    GeoPoint(*degrees)
    for degrees in (
        (52.52, 13.41), (6.52, 3.38), (-12.05, -77.04), (45.76, 4.84), (34.69, 135.50),
        (59.91, 10.75), (41.15, -8.63), (18.52, 73.86), (-0.18, -78.47), (45.07, 7.69),
    )
)  # fmt: skip
_EUROPE, _FAR_AWAY = (_PLACES[0], _PLACES[3], _PLACES[9]), (_PLACES[2], _PLACES[4], _PLACES[8])
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
_LOG_ENTRIES = 3
_ID_BITS, _WEAK_BITS = 256, 64
_REMEMBERED = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class RedisSession:
    """A session key.

    Attributes:
        session_id: the id in its name.
        user_id: whose it is.
        created_at: when the session began.
        last_accessed_at: when it was last used.
        client: program it is used with.
        address: IP address it is used from.
        as_hash: a hash instead of JSON.
        log: its access log, the newest entry first; empty if it has none.
        ttl_seconds: None if it would stay for ever.
    """

    session_id: str
    user_id: str
    created_at: datetime
    last_accessed_at: datetime
    client: str
    address: str
    as_hash: bool
    log: tuple[Access, ...]
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
        self._clients_of: defaultdict[str, set[str]] = defaultdict(set)
        # They do nothing else, so that it is known who loses which sessions with the one that travelled.
        self._travellers = [*self._random.sample(_NAMES, 3), *(_numbered(_USERS + n) for n in range(1, 19))]
        self._names = [name for name in _NAMES if name not in self._travellers]
        self._made = Population([], [], [])

    def fill(self) -> Population:
        heavy = self._heavy_users()
        self._live_of.update(heavy)
        for user, sessions in heavy.items():
            for _ in range(sessions):
                self._add(user, self._in_use(), Kind.LIVE)
        self._add_travellers()
        # Of these, the others are there already; and each duplicate has the live one that stays with it.
        done = {Kind.OVER_LIMIT, Kind.TRAVELLED, Kind.LOGGED_OUT}
        live = NUMBERS[Kind.LIVE] + NUMBERS[Kind.OVER_LIMIT] - sum(heavy.values()) - NUMBERS[Kind.DUPLICATE]
        for kind, number in {**NUMBERS, Kind.LIVE: live, **dict.fromkeys(done, 0)}.items():
            for _ in range(number):
                self._add_one(kind)
        self._made.index.extend((self._user(), self._id()) for _ in range(STALE_ENTRIES))
        # As they would be after a day's work, and not kind by kind.
        for each in (self._made.rows, self._made.keys, self._made.index):
            self._random.shuffle(each)
        return self._made

    def _heavy_users(self) -> dict[str, int]:
        """Users over the limit, and how many live sessions they have."""
        users = [*self._random.sample(self._names, 6)]
        users += (_numbered(n) for n in self._random.sample(range(1, _USERS), 124))
        excess = Counter(users)
        excess.update(self._random.choices(users, k=NUMBERS[Kind.OVER_LIMIT] - len(users)))
        return {user: _LIMIT + over for user, over in excess.items()}

    def _add_travellers(self) -> None:
        for user in self._travellers:
            self._add(user, self._in_use(at_least=_HOUR), Kind.TRAVELLED)
        for n in range(NUMBERS[Kind.LOGGED_OUT]):
            self._add(self._travellers[n % len(self._travellers)], self._in_use(), Kind.LOGGED_OUT)

    def _add_one(self, kind: Kind) -> None:
        match kind:
            case Kind.USED_SINCE | Kind.IDLE | Kind.ORPHANED:
                self._add(self._user(), self._idle(), kind)
            case Kind.TOO_OLD:
                self._add(self._user(), self._old(), kind)
            case Kind.ENDED:
                self._add(self._user(), self._ended(), kind)
            case Kind.DUPLICATE:
                user, kept = self._user_below_limit(sessions=2), self._in_use()
                client = self._add(user, kept, Kind.LIVE)
                used = self._within_live()
                self._add(user, self._visit(used, began_before=kept.created + _MINUTE), kind, client)
            case _:
                self._add(self._user_below_limit(), self._in_use(), kind)

    def _add(self, user: str, ages: _Ages, kind: Kind, client: str | None = None) -> str:
        """Makes a session up. Returns its client."""
        session_id = self._id(_WEAK_BITS if kind is Kind.WEAK_ID else _ID_BITS)
        created, used = self._ago(ages.created), self._ago(ages.used)
        client, address = client or self._new_client(user), self._address()
        if kind is not Kind.ORPHANED:
            remembered = created + _REMEMBERED if self._random.random() < 0.4 else None  # noqa: PLR2004
            expires = self._ago(ages.expired) if ages.expired is not None else remembered
            revoked = used if kind is Kind.REVOKED else None
            self._made.rows.append(Row(session_id, user, created, used, expires, client, address, revoked))
        seconds_ago = ages.used
        if kind is Kind.USED_SINCE:  # the shop tells Redis of every use, the database of some
            seconds_ago = self._within_live()
        if kind is not Kind.NOT_IN_REDIS and seconds_ago < _TTL:
            for_ever = kind is Kind.NO_TTL or (kind is Kind.ORPHANED and self._random.random() < 0.5)  # noqa: PLR2004
            last = self._ago(seconds_ago)
            self._made.keys.append(
                RedisSession(
                    session_id=session_id,
                    user_id=user,
                    created_at=created,
                    last_accessed_at=last,
                    client=client,
                    address=address,
                    as_hash=self._random.random() < 0.15,  # noqa: PLR2004
                    log=self._log(created, last, client, address, kind),
                    ttl_seconds=None if for_ever else int(_TTL - seconds_ago),
                )
            )
        # An index has no TTL: its entry is left even where the key is gone.
        self._made.index.append((user, session_id))
        return client

    def _log(self, created: datetime, last: datetime, client: str, address: str, kind: Kind) -> tuple[Access, ...]:
        draw = self._random
        if kind is Kind.TRAVELLED:
            before = last - timedelta(minutes=draw.randint(8, 40))
            return (
                Access(last, self._address(other_than=address), client, draw.choice(_FAR_AWAY)),
                Access(before, address, client, draw.choice(_EUROPE)),
            )
        if kind is not Kind.NEW_ADDRESS and draw.random() >= 0.2:  # noqa: PLR2004
            return ()
        newest = self._address(other_than=address) if kind is Kind.NEW_ADDRESS else address
        place = draw.choice(_PLACES)
        step = (last - created) // timedelta(seconds=_LOG_ENTRIES)
        times = dict.fromkeys(last - n * timedelta(seconds=step) for n in range(_LOG_ENTRIES))
        return tuple(Access(at, address if n else newest, client, place) for n, at in enumerate(times))

    # --- who and when ------------------------------------------------------------------------------------------------

    def _id(self, bits: int = _ID_BITS) -> str:
        return f"{self._random.getrandbits(bits):0{bits // 4}x}"

    def _address(self, other_than: str = "") -> str:
        while (address := f"{self._random.choice(_NETWORKS)}.{self._random.randint(1, 254)}") == other_than:
            pass
        return address

    def _new_client(self, user: str) -> str:
        while (client := self._random.choice(_CLIENTS)) in self._clients_of[user]:
            pass
        self._clients_of[user].add(client)
        return client

    def _user(self) -> str:
        if self._random.random() < _NAMED_SHARE:
            return self._random.choice(self._names)
        return _numbered(self._random.randint(1, _USERS))

    def _user_below_limit(self, sessions: int = 1) -> str:
        while self._live_of[user := self._user()] + sessions > _LIMIT:
            pass
        self._live_of[user] += sessions
        return user

    def _ago(self, seconds: float) -> datetime:
        return self._now - timedelta(seconds=int(seconds))

    def _within_live(self) -> float:
        return self._random.uniform(15, LIVE_WITHIN.total_seconds())

    def _visit(self, used: float, began_before: float = 0) -> _Ages:
        earliest = max(used + 30, began_before)
        return _Ages(created=min(earliest + self._random.expovariate(1 / _MEAN_VISIT), 23 * _HOUR), used=used)

    def _in_use(self, at_least: float = 0) -> _Ages:
        """In use now, in a session that has gone on for so long at least."""
        return self._visit(self._within_live(), began_before=at_least)

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

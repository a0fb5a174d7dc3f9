"""A shop's made-up sessions: the same ones for the same moment, and the same numbers of each kind at any moment."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import product

from job.demo.kinds import Kind
from job.demo.sessions import Access, Key, Row, StoreContents

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
_USERS_OVER_LIMIT = 124
_NAMES = (
    "ada", "alan", "barbara", "dennis", "donald", "edsger", "frances", "grace", "hedy", "jean", "joan", "katherine",
    "kathleen", "ken", "leslie", "linus", "margaret", "niklaus", "radia", "sophie", "tim", "tony",
)  # fmt: skip
# Enough that no user needs one twice but those who are meant to.
_CLIENTS = tuple(
    f"{browser}/{version} ({platform})"
    for browser, version, platform in product(
        ("Chrome", "Firefox", "Safari", "Edg", "ShopApp"),
        range(141, 146),
        ("Windows", "Macintosh", "Android", "iPhone"),
    )
)
# Latitude and longitude of Berlin, Lagos, Lima, Lyon, Osaka, Oslo, Porto, Pune, Quito, Turin.
_CITIES = (
    (52.52, 13.41), (6.52, 3.38), (-12.05, -77.04), (45.76, 4.84), (34.69, 135.50),
    (59.91, 10.75), (41.15, -8.63), (18.52, 73.86), (-0.18, -78.47), (45.07, 7.69),
)  # fmt: skip
_EUROPE, _FAR_AWAY = (_CITIES[0], _CITIES[3], _CITIES[9]), (_CITIES[2], _CITIES[4], _CITIES[8])
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")  # set aside for documentation: nobody's
# How busy the shop is at each hour of the day (UTC); 1 is its busiest.
_BUSY = (
    0.10, 0.06, 0.05, 0.05, 0.06, 0.10, 0.20, 0.35, 0.50, 0.60, 0.65, 0.70,
    0.80, 0.75, 0.65, 0.60, 0.65, 0.75, 0.90, 1.00, 0.95, 0.75, 0.45, 0.20,
)  # fmt: skip

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_LIVE_SECONDS = LIVE_WITHIN.total_seconds()
# The shop renews a key's TTL at every use: the key of a session that was not used for longer is gone.
_TTL = _DAY
_LOG_ENTRIES = 3
_ID_BITS, _WEAK_BITS = 256, 64
_REMEMBERED = timedelta(days=30)
_IS_HASH, _IS_REMEMBERED, _ORPHAN_HAS_NO_TTL, _HAS_LOG, _OLD_BUT_IN_USE, _HAS_NAME = 0.15, 0.4, 0.5, 0.2, 0.6, 0.02


def generate(now: datetime) -> StoreContents:
    """The shop's sessions as they would be in the stores at this moment, by the stores' clock."""
    return _Shop(now).generate()


class _Shop:
    """Makes sessions up. How long ago something was is in seconds throughout."""

    def __init__(self, now: datetime) -> None:
        self._taken_at, self._now = now, now.replace(microsecond=0)
        self._random = random.Random(_SEED)  # noqa: S311 - made up, and meant to be the same every time
        self._live_of: Counter[str] = Counter()
        self._clients_of: defaultdict[str, set[str]] = defaultdict(set)
        # They have no other sessions, so that it is known which ones go with the one that travelled.
        self._travellers = [*self._random.sample(_NAMES, 3), *(_numbered(_USERS + n) for n in range(1, 19))]
        self._names = [name for name in _NAMES if name not in self._travellers]
        self._rows: list[Row] = []
        self._keys: list[tuple[str, Key]] = []
        self._index: list[tuple[str, str]] = []
        self._logs: dict[str, tuple[Access, ...]] = {}

    def generate(self) -> StoreContents:
        over_limit = self._users_over_limit()
        self._live_of.update(over_limit)
        for user in over_limit.elements():
            self._add(Kind.LIVE, user, *self._in_use())
        for user in self._travellers:
            self._add(Kind.TRAVELLED, user, *self._in_use(at_least=_HOUR))
        for n in range(NUMBERS[Kind.LOGGED_OUT]):
            self._add(Kind.LOGGED_OUT, self._travellers[n % len(self._travellers)], *self._in_use())
        # Each duplicate comes with the live session that stays.
        live = NUMBERS[Kind.LIVE] + NUMBERS[Kind.OVER_LIMIT] - over_limit.total() - NUMBERS[Kind.DUPLICATE]
        done = (Kind.OVER_LIMIT, Kind.TRAVELLED, Kind.LOGGED_OUT)
        for kind, number in {**NUMBERS, Kind.LIVE: live, **dict.fromkeys(done, 0)}.items():
            for _ in range(number):
                self._add_one(kind)
        self._index.extend((self._user(), self._id()) for _ in range(STALE_ENTRIES))
        # In the table as after a day's work, and not kind by kind.
        self._random.shuffle(self._rows)
        rows = {row.session_id: row for row in self._rows}
        return StoreContents(self._taken_at, rows, dict(self._keys), set(self._index), self._logs)

    def _users_over_limit(self) -> Counter[str]:
        """Users over the limit, and how many live sessions they have."""
        users = [*self._random.sample(self._names, 6)]
        users += (_numbered(n) for n in self._random.sample(range(1, _USERS), _USERS_OVER_LIMIT))
        excess = Counter(users)
        excess.update(self._random.choices(users, k=NUMBERS[Kind.OVER_LIMIT] - len(users)))
        return Counter({user: _LIMIT + over for user, over in excess.items()})

    def _add_one(self, kind: Kind) -> None:
        draw = self._random.uniform
        match kind:
            case Kind.USED_SINCE | Kind.IDLE | Kind.ORPHANED:
                self._add(kind, self._user(), *self._visit(self._at_busy_hour(35 * _MINUTE, 22 * _HOUR)))
            case Kind.TOO_OLD:
                user, created = self._user(), self._at_busy_hour(_DAY + 10 * _MINUTE, 6 * _DAY)
                in_use = self._random.random() < _OLD_BUT_IN_USE  # it ends however much it is used
                self._add(kind, user, created, self._within_live() if in_use else draw(35 * _MINUTE, created))
            case Kind.ENDED:
                user, (created, used) = self._user(), self._visit(draw(2 * _MINUTE, _LIVE_SECONDS))
                self._add(kind, user, created, used, expired=draw(30, used))
            case Kind.DUPLICATE:
                user, (created, used) = self._user_below_limit(sessions=2), self._in_use()
                client = self._add(Kind.LIVE, user, created, used)
                self._add(kind, user, *self._in_use(at_least=created + _MINUTE), client=client)
            case _:
                self._add(kind, self._user_below_limit(), *self._in_use())

    def _add(
        self, kind: Kind, user: str, created: float, used: float, expired: float | None = None, client: str = ""
    ) -> str:
        """Adds a session to the stores. Returns its client."""
        session_id = self._id(_WEAK_BITS if kind is Kind.WEAK_ID else _ID_BITS)
        began, last = self._ago(created), self._ago(used)
        client, address = client or self._new_client(user), self._address()
        if kind is not Kind.ORPHANED:
            remembered = began + _REMEMBERED if self._random.random() < _IS_REMEMBERED else None
            expires = remembered if expired is None else self._ago(expired)
            revoked = last if kind is Kind.REVOKED else None
            self._rows.append(Row(session_id, user, began, last, expires, client, address, revoked))
        if kind is Kind.USED_SINCE:  # the shop tells Redis of every use, the database of some
            used = self._within_live()
            last = self._ago(used)
        if kind is not Kind.NOT_IN_REDIS and used < _TTL:
            no_ttl = kind is Kind.NO_TTL or (kind is Kind.ORPHANED and self._random.random() < _ORPHAN_HAS_NO_TTL)
            is_hash = self._random.random() < _IS_HASH
            self._keys.append((session_id, Key(None if no_ttl else int(_TTL - used), last, user, began, is_hash)))
            if log := self._access_log(kind, began, last, client, address):
                self._logs[session_id] = log
        # An index has no TTL: its entry is left even where the key is gone.
        self._index.append((user, session_id))
        return client

    def _access_log(self, kind: Kind, began: datetime, last: datetime, client: str, address: str) -> tuple[Access, ...]:
        draw = self._random
        if kind is Kind.TRAVELLED:
            before = last - timedelta(minutes=draw.randint(8, 40))
            return (
                Access(last, self._address(other_than=address), client, *draw.choice(_FAR_AWAY)),
                Access(before, address, client, *draw.choice(_EUROPE)),
            )
        if kind is not Kind.NEW_ADDRESS and draw.random() >= _HAS_LOG:
            return ()
        newest = self._address(other_than=address) if kind is Kind.NEW_ADDRESS else address
        city = draw.choice(_CITIES)
        step = timedelta(seconds=(last - began).total_seconds() // _LOG_ENTRIES)
        times = dict.fromkeys(last - n * step for n in range(_LOG_ENTRIES))
        return tuple(Access(at, address if n else newest, client, *city) for n, at in enumerate(times))

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
        if self._random.random() < _HAS_NAME:
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
        return self._random.uniform(15, _LIVE_SECONDS)

    def _in_use(self, at_least: float = 0) -> tuple[float, float]:
        """When a live session began, at least so long ago, and when it was last used."""
        return self._visit(self._within_live(), at_least)

    def _visit(self, used: float, at_least: float = 0) -> tuple[float, float]:
        """When a session that was last used then began, and that."""
        began = max(used + 30, at_least) + self._random.expovariate(1 / (25 * _MINUTE))
        return min(began, 23 * _HOUR), used

    def _at_busy_hour(self, latest: float, earliest: float) -> float:
        """A time within these bounds, at an hour when the shop is busy."""
        while True:
            seconds = self._random.uniform(latest, earliest)
            if self._random.random() < _BUSY[self._ago(seconds).hour]:
                return seconds


def _numbered(number: int) -> str:
    return f"user-{number:04d}"

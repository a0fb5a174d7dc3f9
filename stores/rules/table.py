"""Every rule type, what it needs and who judges it. A new rule is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from policy.rules import RuleAction, RuleType, SessionRule
from stores.rules.address_change import changes_address
from stores.rules.client_change import changes_client
from stores.rules.defaults import count
from stores.rules.facts import Facts, Survey
from stores.rules.future_time import is_in_the_future
from stores.rules.impossible_travel import travels_impossibly
from stores.rules.login_burst import belongs_to_burst
from stores.rules.long_running import is_long_running
from stores.rules.ownerless import is_ownerless
from stores.rules.request_burst import bursts_requests
from stores.rules.revoked import is_revoked
from stores.rules.weak_id import has_weak_id

MOST_ENTRIES = 10_000
"""The most entries of one access log that are read."""

_USUAL_ENTRIES = 100


class Need(Enum):
    """What a rule cannot judge without."""

    OWNER = auto()
    CREATION = auto()
    ANY_TIME = auto()
    FLAG = auto()
    ACCESS_LOG = auto()


NAMES = {
    Need.OWNER: "columns.userId",
    Need.CREATION: "columns.createdAt",
    Need.ANY_TIME: "columns.createdAt or columns.lastAccessedAt",
    Need.FLAG: "columns.revoked",
    Need.ACCESS_LOG: "stores.redis.keys.accessLog",
}
"""The field of the policy that a need is met by."""

Judge = Callable[[SessionRule, Facts, Survey, datetime], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """One rule type.

    Attributes:
        judge: whether the rule applies to a session.
        needs: what must be mapped.
    """

    judge: Judge
    needs: tuple[Need, ...] = ()

    @property
    def reads_log(self) -> bool:
        """Whether it judges by the access log, so that every live session has to be looked at."""
        return Need.ACCESS_LOG in self.needs


KINDS: dict[RuleType, Kind] = {
    RuleType.LONG_RUNNING: Kind(is_long_running, (Need.CREATION,)),
    RuleType.WEAK_ID: Kind(has_weak_id),
    RuleType.IMPOSSIBLE_TRAVEL: Kind(travels_impossibly, (Need.ACCESS_LOG,)),
    RuleType.ADDRESS_CHANGE: Kind(changes_address, (Need.ACCESS_LOG,)),
    RuleType.CLIENT_CHANGE: Kind(changes_client, (Need.ACCESS_LOG,)),
    RuleType.REQUEST_BURST: Kind(bursts_requests, (Need.ACCESS_LOG,)),
    RuleType.LOGIN_BURST: Kind(belongs_to_burst, (Need.OWNER, Need.CREATION)),
    RuleType.REVOKED: Kind(is_revoked, (Need.FLAG,)),
    RuleType.FUTURE_TIME: Kind(is_in_the_future, (Need.ANY_TIME,)),
    RuleType.OWNERLESS: Kind(is_ownerless, (Need.OWNER,)),
}

_SEVERITY = (RuleAction.REPORT, RuleAction.DELETE, RuleAction.LOGOUT_EVERYWHERE)


def missing_needs(rule: SessionRule, met: Collection[Need]) -> list[str]:
    """The fields of the policy without which the rule can find nothing."""
    return [NAMES[need] for need in KINDS[rule.type].needs if need not in met]


def matching(rules: Sequence[SessionRule], facts: Facts, survey: Survey, now: datetime) -> list[SessionRule]:
    """The rules that apply to a session, in their order."""
    return [rule for rule in rules if KINDS[rule.type].judge(rule, facts, survey, now)]


def gravest(rules: Iterable[SessionRule]) -> SessionRule:
    """The rule whose action decides where several apply: the first with the gravest action."""
    return max(rules, key=lambda rule: _SEVERITY.index(rule.action))


def entries_wanted(rules: Iterable[SessionRule]) -> int:
    """How many entries of each access log the rules look at; 0 where none does.

    Travel and changes are judged by the newest hundred; a burst needs more than the number that is still normal.
    """
    wanted = 0
    for rule in rules:
        if KINDS[rule.type].reads_log:
            more = 2 * count(rule) if rule.type is RuleType.REQUEST_BURST else 0
            wanted = max(wanted, _USUAL_ENTRIES, min(more, MOST_ENTRIES))
    return wanted

"""Which fields of a policy are not mapped that a rule needs."""

from __future__ import annotations

from policy.rules import SessionRule
from stores.rules.table import Need, missing_needs
from stores.sql.queries import RuleQueries


def unmapped_fields(rule: SessionRule, queries: RuleQueries, *, access_logs: bool) -> list[str]:
    """The fields without which the rule finds nothing.

    Args:
        rule: the rule.
        queries: on the database of the policy.
        access_logs: whether Redis has access logs; the database cannot know.
    """
    return missing_needs(rule, {*queries.met, Need.ACCESS_LOG} if access_logs else queries.met)

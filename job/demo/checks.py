"""Whether a run did all it should and nothing else: judged by what the stores hold, not only by its own report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from job.demo.kinds import RULES, Kind, rule_action, stays
from job.demo.sessions import StoreContents
from policy.report import Outcome, RunReport
from policy.spec import SessionPolicySpec


class Check(NamedTuple):
    """Whether something holds that must, and a sentence that says so with its numbers."""

    holds: bool
    text: str


def check_run(
    before: StoreContents,
    kinds: Mapping[str, Kind],
    after: StoreContents,
    report: RunReport,
    spec: SessionPolicySpec,
) -> Iterator[Check]:
    """Compares the stores before and after a run, given what kind of session each was."""
    yield Check(report.outcome is Outcome.SUCCEEDED, f"The run ended with {report.outcome}.")

    live = {i for i, kind in kinds.items() if stays(kind, spec)}
    lost = (live & before.rows.keys()) - after.rows.keys() | (live & before.keys.keys()) - after.keys.keys()
    if lost:
        yield Check(False, f"{len(lost):,} of {len(live):,} live sessions are missing in a store that held them.")
    else:
        yield Check(True, f"All {len(live):,} live sessions are still there, in each store that held them.")

    ended = kinds.keys() - live
    traces = after.count_traces(ended) + len(after.stale_entries)
    left = f"{traces:,} rows, keys, index entries or access logs are left"
    nothing = "nothing is left: no row, key, index entry or access log"
    yield Check(not traces, f"Of the {len(ended):,} others {left if traces else nothing}.")

    if all(rule.type in RULES.values() for rule in spec.session_rules):  # of a rule of others the demo cannot tell
        abnormal = sum(rule_action(kind, spec) is not None for kind in kinds.values())
        duplicates = sum(kind is Kind.DUPLICATE for kind in kinds.values())
        found = report.sessions
        right = (found.abnormal, found.duplicate) == (abnormal, duplicates)
        yield Check(
            right,
            f"It found {found.abnormal:,} abnormal sessions and {found.duplicate:,} duplicates; there were "
            f"{'as many' if right else f'{abnormal:,} and {duplicates:,}'}.",
        )

    no_ttl = sum(key.ttl_seconds is None for key in after.keys.values())
    yield Check(
        not no_ttl, f"{no_ttl:,} session keys have no TTL." if no_ttl else "Every session key in Redis has a TTL."
    )


def check_second_run(before: StoreContents, after: StoreContents, report: RunReport) -> Check:
    """Whether a run that had nothing to do changed nothing."""
    deleted = report.sessions.deleted + (report.redis.deleted if report.redis else 0)
    same = before.holds_the_same_as(after)
    return Check(
        report.outcome is Outcome.SUCCEEDED and deleted == 0 and same,
        f"A second run ended with {report.outcome} and deleted {deleted:,}; the stores hold "
        f"{'the same' if same else 'something else'}.",
    )

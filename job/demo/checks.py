"""Did it go right? Judged by what the stores hold, not by what the runs say of themselves alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from job.demo.kinds import RULES, Kind, is_abnormal, stays
from job.demo.snapshot import Snapshot
from policy.report import Outcome, RunReport
from policy.spec import SessionPolicySpec


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold.

    Attributes:
        holds: whether it does.
        text: what was found, with its numbers.
    """

    holds: bool
    text: str


def check_run(
    before: Snapshot, kinds: Mapping[str, Kind], after: Snapshot, report: RunReport, spec: SessionPolicySpec
) -> list[Check]:
    """Whether the run did all it should, and nothing else.

    Args:
        before: the stores before it.
        kinds: what kind of session each was.
        after: the stores after it.
        report: what it says.
        spec: what it obeyed.
    """
    live = {i for i, kind in kinds.items() if stays(kind, spec)}
    ended = kinds.keys() - live
    lost = sum((i in before.rows and i not in after.rows) or (i in before.ttls and i not in after.ttls) for i in live)
    traces = after.traces(ended) + len(after.stale_entries)
    for_ever = sum(ttl is None for ttl in after.ttls.values())
    return [
        Check(report.outcome is Outcome.SUCCEEDED, f"The run ended with {report.outcome}."),
        Check(
            lost == 0,
            f"All {len(live):,} live sessions are still there, in each store that held them."
            if lost == 0
            else f"{lost:,} of {len(live):,} live sessions are missing in a store that held them.",
        ),
        Check(
            traces == 0,
            f"Of the {len(ended):,} others nothing is left: no row, key, index entry or access log."
            if traces == 0
            else f"Of the {len(ended):,} others {traces:,} rows, keys, index entries or access logs are left.",
        ),
        *_check_findings(kinds, report, spec),
        Check(
            for_ever == 0,
            "Every session key in Redis has a TTL." if for_ever == 0 else f"{for_ever:,} session keys have no TTL.",
        ),
    ]


def _check_findings(kinds: Mapping[str, Kind], report: RunReport, spec: SessionPolicySpec) -> Iterator[Check]:
    """Whether the run has found what the rules are about, also where nothing was to be deleted."""
    if any(rule.type not in RULES.values() for rule in spec.session_rules):
        return  # an edited policy: the demo cannot tell
    abnormal = sum(is_abnormal(kind, spec) for kind in kinds.values())
    duplicates = sum(kind is Kind.DUPLICATE for kind in kinds.values())
    found = report.sessions
    right = (found.abnormal, found.duplicate) == (abnormal, duplicates)
    there_were = "as many" if right else f"{abnormal:,} and {duplicates:,}"
    yield Check(
        right,
        f"It found {found.abnormal:,} abnormal sessions and {found.duplicate:,} duplicates; there were {there_were}.",
    )


def check_second_run(before: Snapshot, after: Snapshot, report: RunReport) -> Check:
    """Whether a run that found everything in order left it so."""
    deleted = report.sessions.deleted + (report.redis.deleted if report.redis else 0)
    same = before.holds_the_same_as(after)
    return Check(
        report.outcome is Outcome.SUCCEEDED and deleted == 0 and same,
        f"A second run ended with {report.outcome} and deleted {deleted:,}; the stores hold "
        f"{'the same' if same else 'something else'}.",
    )

"""R2.9: the stored settings are verified, and every bad or risky one is reported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from job.alerts.problems import Audience, Problem
from job.steps.context import RunContext
from policy.lifetime import resolve_lifetime
from policy.profiles import PROFILES, Lifetime
from policy.spec import SessionPolicySpec
from stores.model.stored_settings import LARGEST, Scope, Setting, usable
from stores.sql.queries import RuleQueries

REASON = "RiskySettings"


@dataclass(frozen=True, slots=True)
class SettingsFinding:
    """Something wrong with stored settings. It names no tenant, role or user: those may be personal.

    Attributes:
        field: scope and column of a stored setting, or the field of the policy's spec.
        message: what is wrong.
        remedy: what to do about it.
        rows: how many settings it is about.
        in_policy: whether the policy itself is to be changed, and not stored settings.
    """

    field: str
    message: str
    remedy: str
    rows: int = 1
    in_policy: bool = False


def verify_settings(context: RunContext, queries: RuleQueries, settings: Sequence[Setting]) -> list[SettingsFinding]:
    """Verifies the stored settings, and the policy's own, and logs what is wrong with them.

    Args:
        context: the run.
        queries: of the session table.
        settings: all that are stored.
    """
    unmatched = queries.settings_of_nobody() if any(s.scope is not Scope.GLOBAL for s in settings) else {}
    findings = find_risky_settings(context.spec, settings, queries.scopes, unmatched)
    for finding in findings:
        context.log.warning(
            "risky setting", field=finding.field, rows=finding.rows, because=finding.message, remedy=finding.remedy
        )
    return findings


def settings_problems(findings: Sequence[SettingsFinding]) -> list[Problem]:
    """The findings as one problem, for the alerts of operations; none without findings."""
    rows = sum(finding.rows for finding in findings)
    if not rows:
        return []
    first = findings[0]
    message = f"stored session settings: {first.field}: {first.message}; {first.remedy}"
    return [Problem(REASON, Audience.OPERATIONS, message, rows)]


def find_risky_settings(
    spec: SessionPolicySpec, settings: Sequence[Setting], scopes: Collection[Scope], unmatched: Mapping[Scope, int]
) -> list[SettingsFinding]:
    """What is wrong with the settings, and with what they make of the policy.

    Args:
        spec: the policy.
        settings: all that are stored.
        scopes: the scopes that can apply to the table's sessions.
        unmatched: how many settings of each scope name a tenant, role or user without a session.
    """
    lifetime = resolve_lifetime(spec)
    found = [
        *(f for setting in settings for f in _of_setting(setting, lifetime, spec)),
        *_of_scopes(settings, scopes, unmatched),
        *_of_policy(spec, lifetime, settings),
    ]
    # Rows that are wrong in the same way are one finding.
    rows: dict[SettingsFinding, int] = {}
    for finding in found:
        same = replace(finding, rows=0)
        rows[same] = rows.get(same, 0) + finding.rows
    return [replace(finding, rows=count) for finding, count in rows.items()]


def _of_setting(setting: Setting, lifetime: Lifetime, spec: SessionPolicySpec) -> Iterator[SettingsFinding]:
    values = {
        "idle_timeout_seconds": (setting.idle, lifetime.idle),
        "absolute_timeout_seconds": (setting.absolute, lifetime.absolute),
        "max_sessions": (setting.limit, spec.max_concurrent_sessions or None),
    }

    def finding(column: str, message: str, remedy: str) -> SettingsFinding:
        return SettingsFinding(f"{setting.scope}.{column}", message, remedy, setting.rows)

    for column, (value, policy) in values.items():
        if value is None:
            continue
        if value <= 0:
            yield finding(
                column,
                "it is zero or negative, and has no effect",
                "set a number above zero, or NULL to use the policy's",
            )
        elif value >= LARGEST:
            yield finding(column, "it is too large to have an effect", "lower it, or set it NULL")
        elif policy is not None and value > policy:
            yield finding(
                column,
                f"it is higher than the policy's {policy} and has no effect: settings can only make a policy stricter",
                "lower it, or set it NULL; to allow more, change the policy",
            )
    if setting.idle and setting.absolute and 0 < setting.absolute < setting.idle:
        yield finding(
            "idle_timeout_seconds",
            "it is longer than absolute_timeout_seconds in the same row, and never reached",
            "make it shorter than absolute_timeout_seconds",
        )
    if setting.idle is setting.absolute is setting.limit is None:
        yield finding("*", "it sets nothing", "delete it, or set a timeout or a limit")


def _of_scopes(
    settings: Sequence[Setting], scopes: Collection[Scope], unmatched: Mapping[Scope, int]
) -> Iterator[SettingsFinding]:
    for scope in Scope:
        rows = sum(setting.rows for setting in settings if setting.scope is scope)
        if not rows:
            continue
        if scope not in scopes:
            column = {Scope.USER: "userId"}.get(scope, scope.value.lower())
            yield SettingsFinding(
                f"{scope}.subject",
                f"settings per {scope.value.lower()} have no effect: no column says which one a session belongs to",
                f"map stores.database.table.columns.{column}",
                rows,
            )
        elif unmatched.get(scope):
            yield SettingsFinding(
                f"{scope}.subject",
                f"no session belongs to the {scope.value.lower()} that it names",
                "correct the name, or delete the setting if there is no such one any more",
                unmatched[scope],
            )


def _of_policy(spec: SessionPolicySpec, lifetime: Lifetime, settings: Sequence[Setting]) -> Iterator[SettingsFinding]:
    for_everybody = [s for s in settings if s.scope is Scope.GLOBAL]
    if lifetime.absolute is None and not any(usable(s.absolute) for s in for_everybody):
        yield SettingsFinding(
            "spec.absoluteTimeoutSeconds",
            "a session in use never expires",
            "set absoluteTimeoutSeconds, or choose a profile",
            in_policy=True,
        )
    if spec.max_concurrent_sessions == 0 and not any(usable(s.limit) for s in for_everybody):
        yield SettingsFinding(
            "spec.maxConcurrentSessions",
            "a user may have any number of sessions",
            "set a limit per user",
            in_policy=True,
        )
    if spec.profile is None:
        return
    customary = PROFILES[spec.profile]
    weaker = {
        "spec.sessionTimeoutSeconds": (spec.session_timeout_seconds, customary.idle),
        "spec.absoluteTimeoutSeconds": (spec.absolute_timeout_seconds, customary.absolute),
    }
    for field, (value, usual) in weaker.items():
        if value is not None and usual is not None and value > usual:
            yield SettingsFinding(
                field,
                f"it is higher than {usual}, the value of profile {spec.profile}",
                "lower it, or choose the profile that fits the application",
                in_policy=True,
            )

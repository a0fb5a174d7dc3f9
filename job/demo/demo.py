"""The demo: fill the stores, run the policy twice, and show and check what became of the sessions."""

from __future__ import annotations

import io
import logging
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from job.alerts.problems import Audience, Problem
from job.demo.checks import check_run, check_second_run
from job.demo.demo_servers import Servers, running
from job.demo.directory import USABLE_FOR, DemoDirectory
from job.demo.example import NAME, example_policy, redis_of
from job.demo.generator import generate
from job.demo.kinds import classify
from job.demo.output import Output, contents_table, outcomes_table
from job.demo.servers import EmbeddedServerError, EmbeddedServerUnavailable
from job.demo.session_outcomes import SessionOutcomes, format_age
from job.demo.store_contents import fill, read
from job.logs.run_logs import open_logs
from job.reports.html_page import to_page
from job.reports.terminal_output import print_report
from job.reports.trends import read_trends
from job.run import Run
from job.steps.progress import NoProgress, Progress
from policy.lifetime import resolve_lifetime
from policy.manifest import InvalidPolicyError, SessionPolicy
from policy.report import RunReport
from policy.rules import RuleAction
from policy.spec import DuplicateAction, OnExceed, SessionPolicySpec
from stores.model.errors import ConfigurationError
from stores.waiting.clock import RunClock

_COMMAND = "session-policy"
_OK, _FAILED, _UNUSABLE = 0, 1, 2
_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_EVICTED = {
    OnExceed.EVICT_LEAST_RECENTLY_USED: "those not used for longest go",
    OnExceed.EVICT_OLDEST: "the oldest go",
    OnExceed.EVICT_NEWEST: "the newest go",
    OnExceed.REPORT: "more are reported",
}
_ACTIONS = {
    RuleAction.LOGOUT_EVERYWHERE: "logged out everywhere",
    RuleAction.DELETE: "deleted",
    RuleAction.REPORT: "reported",
}


def run_demo(directory: Path | None) -> int:
    """Runs the demo on standard output.

    Args:
        directory: where the servers keep their data, for the next demo; None for a temporary place.

    Returns:
        The exit code: 0 if all went right, 1 if something did not, 2 if this machine or the directory cannot be used,
        130 if it was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot write ✓ gets ?
    # As an exception, so that the servers are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        return _OK if _demo(directory) else _FAILED
    except (EmbeddedServerError, ConfigurationError, InvalidPolicyError) as error:
        print(f"error: {error}", file=sys.stderr)
        started = isinstance(error, EmbeddedServerError) and not isinstance(error, EmbeddedServerUnavailable)
        return _FAILED if started else _UNUSABLE
    except KeyboardInterrupt:
        print("Interrupted; the servers are stopped.", file=sys.stderr)
        return _INTERRUPTED


def _demo(directory: Path | None) -> bool:
    """Runs the demo. Returns whether all checks hold."""
    policy, out = example_policy(), Output()
    redis_of(policy)
    kept = DemoDirectory(directory) if directory else None
    out.console.print("A shop's sessions in PostgreSQL and Redis, and two runs of a policy\n", style="bold")
    started = time.monotonic()
    with running(kept.path if kept else None) as servers:
        out.done(f"{servers.versions} started", started)
        _fill_unless_fresh(servers, policy, kept, out)
        _describe(policy.spec, out)
        right = _run_and_check(servers, policy, out)
        # A run that failed may have left no statistics to report.
        page = _write_page(servers, policy, kept) if right else None
    if page:
        out.heading("The report", "statistics of both runs, to be opened in a browser")
        out.to_copy(str(page))
    _what_next(directory, out)
    return right


def _fill_unless_fresh(servers: Servers, policy: SessionPolicy, kept: DemoDirectory | None, out: Output) -> None:
    started, now = time.monotonic(), datetime.now(UTC)
    if kept and (filled_at := kept.filled_at):
        age = now - filled_at
        if timedelta() <= age <= USABLE_FOR:
            out.show(f"The stores that were filled {format_age(age)} ago are used again.")
            return
        out.show(f"The stores are {format_age(age)} old, and hardly a session is still live: made anew.")
    if kept:
        kept.note(None)
    made = generate(now)
    fill(servers.engine, servers.client, redis_of(policy), made)
    if kept:
        kept.note(now)
    sessions, users = made.rows.keys() | made.keys.keys(), {user for user, _ in made.index}
    out.done(f"{len(sessions):,} sessions of {len(users):,} users put in", started)


def _describe(spec: SessionPolicySpec, out: Output) -> None:
    """The policy in sentences."""
    out.heading("The policy", NAME + (f", profile {spec.profile}" if spec.profile else ""))
    lifetime = resolve_lifetime(spec)
    absolute = f", and {format_age(timedelta(seconds=lifetime.absolute))} after it began" if lifetime.absolute else ""
    out.show(f"A session ends {format_age(timedelta(seconds=lifetime.idle))} after its last use{absolute}.")
    if limit := spec.max_concurrent_sessions:
        out.show(f"A user may have {limit} at a time; of more, {_EVICTED[spec.concurrency.on_exceed]}.")
    if spec.duplicates.action is DuplicateAction.KEEP_NEWEST:
        out.show("Of a user's sessions on one client, the newest stays.")
    types = {action: [rule.type for rule in spec.session_rules if rule.action is action] for action in _ACTIONS}
    if rules := ", ".join(f"{' and '.join(found)} {_ACTIONS[action]}" for action, found in types.items() if found):
        out.show(f"By rule: {rules}.")
    out.show(f"If more than {spec.safety.max_delete_percent} % of all sessions would go, none does.")


def _run_and_check(servers: Servers, policy: SessionPolicy, out: Output) -> bool:
    """Runs the policy twice and shows what it did. Returns whether all checks hold."""
    spec, stores = policy.spec, (servers.engine, servers.client, redis_of(policy))
    before = read(*stores)
    kinds = classify(before, spec)
    out.heading("Before")
    out.show(contents_table(before, kinds, spec))

    out.heading("The run", f"what looks orphaned is looked at again after {spec.sync.grace_seconds} s")
    with out.progress() as progress:
        report, problems = _run(servers, policy, progress)
    out.console.print()
    print_report(report, out.console)
    out.console.print()
    for line in _alerts(problems):
        out.show(line)

    after = read(*stores)
    out.heading("After", "and the difference")
    out.show(contents_table(after, classify(after, spec), spec, earlier=(before, kinds)))

    outcomes = SessionOutcomes(before, kinds, after, spec)
    out.heading("What happened to whom, and why", "one of each kind")
    out.show(outcomes_table(outcomes.one_of_each_kind()))
    if sentence := outcomes.over_limit():
        out.console.print()
        out.show(sentence)

    second, _ = _run(servers, policy, NoProgress())
    checks = [*check_run(before, kinds, after, report, spec), check_second_run(after, read(*stores), second)]
    out.heading("Did it go right?", "by what is in the stores")
    for check in checks:
        out.check(*check)
    return all(check.holds for check in checks)


def _run(servers: Servers, policy: SessionPolicy, progress: Progress) -> tuple[RunReport, Sequence[Problem]]:
    log = open_logs(sys.stderr, logging.WARNING, for_people=True).log
    run = Run(policy, servers.urls, str(uuid.uuid4()), RunClock(policy.spec.job.timeout_seconds), log)
    run.progress = progress
    report, _ = run.execute()
    return report, run.problems


def _alerts(problems: Sequence[Problem]) -> Iterator[str]:
    """The alerts that would be sent: the example names nobody to send them to."""
    for audience in Audience:
        found = sorted((p for p in problems if p.audience is audience), key=lambda p: (-p.count, p.reason))
        if found:
            reasons = ", ".join(f"{problem.reason} ({problem.count:,})" for problem in found)
            yield f"An alert to {audience} would tell of {reasons}."


def _write_page(servers: Servers, policy: SessionPolicy, kept: DemoDirectory | None) -> Path:
    """Writes what ``session-policy report --html`` makes of the runs, and returns where.

    Without a directory it is a temporary file: nobody expects a demo to leave one in the current directory.
    """
    name = f"{policy.metadata.namespace}/{policy.metadata.name}"
    text = to_page(read_trends(servers.urls.database or "", name, 1, datetime.now(UTC)))
    try:
        if kept:
            page = kept.path / "session-report.html"
        else:
            page = Path(tempfile.mkstemp(prefix="session-report-", suffix=".html")[1])
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the report cannot be written: {error.strerror}") from None
    return page


def _what_next(directory: Path | None, out: Output) -> None:
    out.heading("What next")
    # Where it is not on PATH: as it was called, e.g. out of a virtual environment.
    called = sys.argv[0] if Path(sys.argv[0]).name == _COMMAND else _COMMAND
    command = _COMMAND if shutil.which(_COMMAND) else called
    again = "the same stores once more, within a few minutes" if directory else "stores that are kept"
    for where, commands in {
        again: [f"{command} demo --directory {directory or 'DIR'}"],
        "your own stores, changing nothing": [
            "export DATABASE_URL=postgresql://… REDIS_URL=redis://…",
            f"{command} run -f {NAME} --dry-run",
        ],
        "a cluster": [
            "helm install session-policy charts/session-policy-operator \\",
            "  --namespace session-policy --create-namespace",
            f"kubectl apply -f {NAME}",
        ],
    }.items():
        out.show(f"On {where}:")
        for line in commands:
            out.to_copy(line)

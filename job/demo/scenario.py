"""What the demo does, in its order: fill the stores, run the policy twice, and show what became of whom."""

from __future__ import annotations

import logging
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console, RenderableType
from rich.padding import Padding

from job.alerts.problems import Audience, Problem
from job.demo import tables
from job.demo.checks import Check, check_run, check_second_run
from job.demo.demo_servers import Servers, running
from job.demo.directory import USABLE_FOR, DemoDirectory
from job.demo.example import NAME, example_policy, redis_of
from job.demo.fill import fill
from job.demo.inspection import Inspector
from job.demo.kinds import Kind, classify
from job.demo.page import write_page
from job.demo.progress import Lines
from job.demo.seed import populate
from job.demo.snapshot import Snapshot
from job.demo.span import spoken
from job.demo.stories import Storyteller
from job.logs.run_logs import open_logs
from job.reports.terminal_output import TerminalProgress, print_report
from job.run import Run
from job.steps.progress import NoProgress, Progress
from policy.lifetime import resolve_lifetime
from policy.manifest import SessionPolicy
from policy.report import RunReport
from policy.rules import RuleAction
from policy.spec import DuplicateAction, OnExceed, SessionPolicySpec
from stores.waiting.clock import RunClock

_COMMAND = "session-policy"
_EVICTED = {
    OnExceed.EVICT_LEAST_RECENTLY_USED: "those not used for longest go",
    OnExceed.EVICT_OLDEST: "the oldest go",
    OnExceed.EVICT_NEWEST: "the newest go",
    OnExceed.REPORT: "more are reported",
}
_DONE = {
    RuleAction.REPORT: "reported",
    RuleAction.DELETE: "deleted",
    RuleAction.LOGOUT_EVERYWHERE: "logged out everywhere",
}


def play(directory: Path | None) -> bool:
    """Plays the demo on standard output. Returns whether all went right.

    Args:
        directory: where the stores are kept for the next demo; None for a temporary place.

    Raises:
        ConfigurationError, InvalidPolicyError: the directory, or the policy after an edit, cannot be used.
        EmbeddedServerError: a server does not start, or is not installed.
    """
    policy = example_policy()
    redis_of(policy)
    kept = DemoDirectory(directory) if directory else None
    stage = _Stage(Console(highlight=False), policy)
    stage.title("A shop's sessions in PostgreSQL and Redis, and two runs of a policy")
    started = time.monotonic()
    with running(kept.path if kept else None) as servers:
        stage.done(f"{servers.versions} started", started)
        _stock(servers, kept, stage)
        right = stage.perform(servers)
        # A run that failed may have left no statistics to report.
        page = write_page(servers.urls.database or "", policy, kept.path if kept else None) if right else None
    stage.epilogue(directory, page)
    return right


def _stock(servers: Servers, kept: DemoDirectory | None, stage: _Stage) -> None:
    """Sees to it that there are sessions in the stores."""
    started, now = time.monotonic(), datetime.now(UTC)
    filled_at = kept.filled_at if kept else None
    if filled_at and timedelta() <= now - filled_at <= USABLE_FOR:
        stage.say(f"The stores that were filled {spoken(now - filled_at)} ago are used again.")
        return
    if filled_at:
        stage.say(f"The stores are {spoken(now - filled_at)} old, and hardly a session is still live: made anew.")
    if kept:
        kept.note(None)
    population = populate(now)
    fill(servers.engine, servers.client, redis_of(stage.policy), population)
    if kept:
        kept.note(now)
    ids = {row.session_id for row in population.rows} | {key.session_id for key in population.keys}
    users = {user for user, _ in population.index}
    stage.done(f"{len(ids):,} sessions of {len(users):,} users put in", started)


@dataclass(frozen=True, slots=True)
class _Stage:
    console: Console
    policy: SessionPolicy

    def perform(self, servers: Servers) -> bool:
        """Runs the policy twice on the stores. Returns whether all went right."""
        spec, layout = self.policy.spec, redis_of(self.policy)
        inspector = Inspector(servers.engine, servers.client, layout)
        idle = timedelta(seconds=resolve_lifetime(spec).idle)

        self.heading("The policy", NAME + (f", profile {spec.profile}" if spec.profile else ""))
        for line in _in_words(spec):
            self.say(line)

        before = inspector.snapshot(idle)
        kinds = classify(before, spec)
        self.heading("Before")
        self.show(tables.contents(before, kinds, spec))

        self.heading("The run", f"what looks orphaned is looked at again after {spec.sync.grace_seconds} s")
        report, problems = self._run(servers)
        self.console.print()
        print_report(report, self.console)
        self._alerts(problems)

        after = inspector.snapshot(idle)
        self.heading("After", "and the difference")
        self.show(tables.contents(after, classify(after, spec), spec, earlier=(before, kinds)))

        self._tell(before, kinds, after)

        second, _ = self._run(servers, quiet=True)
        checks = check_run(before, kinds, after, report, spec)
        checks.append(check_second_run(after, inspector.snapshot(idle), second))
        self.heading("Did it go right?", "by what is in the stores")
        for check in checks:
            self._verdict(check)
        return all(check.holds for check in checks)

    def _run(self, servers: Servers, *, quiet: bool = False) -> tuple[RunReport, Sequence[Problem]]:
        log = open_logs(sys.stderr, logging.WARNING, for_people=True).log
        clock = RunClock(self.policy.spec.job.timeout_seconds)
        run = Run(self.policy, servers.urls, str(uuid.uuid4()), clock, log)
        with self._progress(quiet) as run.progress:
            report, _ = run.execute()
        return report, run.problems

    @contextmanager
    def _progress(self, quiet: bool) -> Iterator[Progress]:
        if quiet:
            yield NoProgress()
        elif self.console.is_terminal:
            with TerminalProgress(self.console) as terminal:
                yield terminal
        else:
            yield Lines(self.console)

    def _alerts(self, problems: Sequence[Problem]) -> None:
        """What somebody would have been told: the example names nobody to tell."""
        self.console.print()
        for audience in Audience:
            found = sorted((p for p in problems if p.audience is audience), key=lambda p: (-p.count, p.reason))
            if found:
                reasons = ", ".join(f"{problem.reason} ({problem.count:,})" for problem in found)
                self.say(f"An alert to {audience} would tell of {reasons}.")

    def _tell(self, before: Snapshot, kinds: Mapping[str, Kind], after: Snapshot) -> None:
        teller = Storyteller(before, kinds, after, self.policy.spec)
        self.heading("What happened to whom, and why", "one of each kind")
        self.show(tables.fates(teller.stories()))
        if sentence := teller.over_limit():
            self.console.print()
            self.say(sentence)

    def epilogue(self, directory: Path | None, page: Path | None) -> None:
        """What to look at and to try next."""
        if page:
            self.heading("The report", "statistics of both runs, to be opened in a browser")
            self.console.print(f"    {page}", style="cyan", markup=False, soft_wrap=True)
        self.heading("What next")
        # Not on PATH: as it was called, e.g. out of a virtual environment.
        called = sys.argv[0] if Path(sys.argv[0]).name == _COMMAND else _COMMAND
        command = _COMMAND if shutil.which(_COMMAND) else called
        for what, commands in (
            (
                "the same stores once more, within a few minutes" if directory else "stores that are kept",
                [f"{command} demo --directory {directory or 'DIR'}"],
            ),
            (
                "your own stores, changing nothing",
                [
                    "export DATABASE_URL=postgresql://… REDIS_URL=redis://…",
                    f"{command} run -f {NAME} --dry-run",
                ],
            ),
            (
                "a cluster",
                [
                    "helm install session-policy charts/session-policy-operator \\",
                    "  --namespace session-policy --create-namespace",
                    f"kubectl apply -f {NAME}",
                ],
            ),
        ):
            self.say(f"On {what}:")
            for line in commands:
                self.console.print(f"    {line}", style="cyan", markup=False, soft_wrap=True)

    # --- how it is said ----------------------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        self.console.print(text, style="bold", markup=False)
        self.console.print()

    def heading(self, text: str, aside: str = "") -> None:
        self.console.print()
        self.console.print(f"[bold]{text}[/]" + (f"  [dim]{aside}[/]" if aside else ""))

    def say(self, text: str) -> None:
        self.show(text)

    def done(self, text: str, started: float) -> None:
        self.console.print(f"  [green]✓[/] {text} [dim]({time.monotonic() - started:.1f} s)[/]")

    def show(self, what: RenderableType) -> None:
        self.console.print(Padding(what, (0, 0, 0, 2), expand=False), markup=False)

    def _verdict(self, check: Check) -> None:
        mark = "[green]✓[/]" if check.holds else "[bold red]✗[/]"
        self.console.print(f"  {mark} {check.text}")


def _in_words(spec: SessionPolicySpec) -> Iterator[str]:
    lifetime = resolve_lifetime(spec)
    absolute = f", and {spoken(timedelta(seconds=lifetime.absolute))} after it began" if lifetime.absolute else ""
    yield f"A session ends {spoken(timedelta(seconds=lifetime.idle))} after its last use{absolute}."
    if limit := spec.max_concurrent_sessions:
        yield f"A user may have {limit} at a time; of more, {_EVICTED[spec.concurrency.on_exceed]}."
    if spec.duplicates.action is DuplicateAction.KEEP_NEWEST:
        yield "Of a user's sessions on one client, the newest stays."
    types = {each: [rule.type for rule in spec.session_rules if rule.action is each] for each in reversed(_DONE)}
    if rules := ", ".join(f"{' and '.join(found)} {_DONE[each]}" for each, found in types.items() if found):
        yield f"By rule: {rules}."
    yield f"If more than {spec.safety.max_delete_percent} % of all sessions would go, none does."

"""``session-policy plan``: what a run would do, by rule, with a few examples."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import click

from job.cli.options import database_url, output, policy_file, prints_errors, read_policy, redis_url
from stores.model.errors import ConfigurationError

if TYPE_CHECKING:
    from job.cli.planning import Plan, PlannedAction
    from stores.model.sessions import Session


@click.command()
@policy_file
@database_url
@redis_url
@click.option("--full", is_flag=True, help="Show ids at their full length.")
@output
@prints_errors
def plan(path: str | None, database_url: str | None, redis_url: str | None, full: bool, output: str) -> None:
    """Shows what a run would do now, by rule. Takes no lock and changes nothing."""
    from job.cli.planning import make_plan
    from job.logs.run_logs import configure
    from job.revocation.stores import open_stores

    policy = read_policy(path)
    log = configure(sys.stderr, logging.ERROR, for_people=True)
    with open_stores(policy, database_url, redis_url, log, exclusive=False) as place:
        if place.opened is None:
            raise ConfigurationError(
                "plan needs stores.database; a policy without one is best tried with run --dry-run"
            )
        outlook = make_plan(place, place.opened, log)
    if output == "json":
        click.echo(json.dumps(_document(outlook, full), ensure_ascii=False))
    else:
        _print(outlook, full)


def _document(outlook: Plan, full: bool) -> dict[str, Any]:
    return {
        "sessions": outlook.sessions,
        "deleting": outlook.deleting,
        "refusal": outlook.refusal,
        "strategy": {
            "chosen": outlook.choice.strategy.value,
            "because": outlook.choice.because,
            "figures": outlook.choice.figures(),
        },
        "rules": [
            {
                "rule": line.rule,
                "action": line.action,
                "found": line.found,
                "note": line.note,
                "examples": [_example(session, full) for session in line.examples],
            }
            for line in outlook.lines
        ],
    }


def _print(outlook: Plan, full: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rule", no_wrap=True)
    table.add_column("action", no_wrap=True)
    table.add_column("found", justify="right", no_wrap=True)
    table.add_column("examples")
    table.add_column("note", style="dim")
    for line in outlook.lines:
        table.add_row(line.rule, line.action, _found(line), escape(_examples(line, full)), escape(line.note))
    console = Console()
    console.print(table)
    console.print(f"A run would delete about {outlook.deleting:,} of {outlook.sessions:,} sessions.", highlight=False)
    found = f"It would find expired sessions by {outlook.choice.strategy}: {outlook.choice.because}."
    console.print(found, markup=False, highlight=False)
    if outlook.refusal:
        console.print(f"It would refuse: {outlook.refusal}", markup=False, highlight=False)


def _found(line: PlannedAction) -> str:
    return "-" if line.found is None else f"{line.found:,}"


def _examples(line: PlannedAction, full: bool) -> str:
    return ", ".join(_example(session, full) for session in line.examples)


def _example(session: Session, full: bool) -> str:
    from job.cli.sessions import shortened

    return shortened(session.key, full)

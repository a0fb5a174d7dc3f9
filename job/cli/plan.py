"""``session-policy plan``: shows what a run would do, by rule, with a few examples."""

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
@click.option("--full", is_flag=True, help="Show ids unshortened.")
@output
@prints_errors
def plan(path: str | None, database_url: str | None, redis_url: str | None, full: bool, output: str) -> None:
    """Shows what a run would do now, by rule. Takes no lock and changes nothing."""
    from job.cli.planning import make_plan
    from job.logs.run_logs import open_logs
    from job.revocation.open_stores import open_stores

    policy = read_policy(path)
    log = open_logs(sys.stderr, logging.ERROR, for_people=True).log
    with open_stores(policy, database_url, redis_url, log, exclusive=False) as stores:
        if stores.run_stores is None:
            raise ConfigurationError("plan needs stores.database; for a policy without a database, use run --dry-run")
        result = make_plan(stores, stores.run_stores, log)
    if output == "json":
        click.echo(json.dumps(_document(result, full), ensure_ascii=False))
    else:
        _print(result, full)


def _document(result: Plan, full: bool) -> dict[str, Any]:
    return {
        "sessions": result.sessions,
        "deleting": result.deleting,
        "refusal": result.refusal,
        "strategy": {
            "chosen": result.choice.strategy.value,
            "because": result.choice.because,
            "figures": result.choice.figures(),
        },
        "rules": [
            {
                "rule": action.rule,
                "action": action.action,
                "found": action.found,
                "note": action.note,
                "examples": [_example(session, full) for session in action.examples],
            }
            for action in result.actions
        ],
    }


def _print(result: Plan, full: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rule", no_wrap=True)
    table.add_column("action", no_wrap=True)
    table.add_column("found", justify="right", no_wrap=True)
    table.add_column("examples")
    table.add_column("note", style="dim")
    for action in result.actions:
        table.add_row(action.rule, action.action, _found(action), escape(_examples(action, full)), escape(action.note))
    console = Console()
    console.print(table)
    console.print(f"A run would delete about {result.deleting:,} of {result.sessions:,} sessions.", highlight=False)
    found = f"It would find expired sessions by {result.choice.strategy}: {result.choice.because}."
    console.print(found, markup=False, highlight=False)
    if result.refusal:
        console.print(f"It would refuse: {result.refusal}", markup=False, highlight=False)


def _found(action: PlannedAction) -> str:
    return "-" if action.found is None else f"{action.found:,}"


def _examples(action: PlannedAction, full: bool) -> str:
    return ", ".join(_example(session, full) for session in action.examples)


def _example(session: Session, full: bool) -> str:
    from job.cli.sessions import shortened

    return shortened(session.key, full)

"""Deletes what has expired in a range of the table that was claimed: the same for the leader and for other workers."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

import sqlalchemy as sa

from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.progress import NoProgress
from stores.model.errors import RunError, StopRequestedError
from stores.model.tally import Tally
from stores.sql.removal.history import DeletionRecorder
from stores.sql.shared_work import Claim, ClaimLostError, WorkTable


def delete_claimed_range(context: RunContext, table: WorkTable, records: DeletionRecorder, claim: Claim) -> None:
    """Deletes what has expired in the range, and counts it in the table; nothing of it is in the context's own tally.

    Raises:
        StopRequestedError: the run has to stop; the claim is given back.
        ClaimLostError: the range is claimed by another worker by now.
        LeaderGoneError: nothing may be deleted any more.
    """
    tally = Tally()
    own = dataclasses.replace(context, tally=tally, progress=NoProgress(), log=context.log.bind(part=claim.number))
    records.count_in_part = table.count(claim, tally)
    try:
        kept = delete_expired(own, 0, [claim.key_range])
    except StopRequestedError:
        # Short, and so that another worker need not wait; if it fails, the claim is taken over.
        with suppress(ClaimLostError, RunError, sa.exc.SQLAlchemyError):
            table.give_back(claim, tally)
        raise
    finally:
        records.count_in_part = None
    table.finish(claim, tally, kept)

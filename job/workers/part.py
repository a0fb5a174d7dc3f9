"""Work on one part of what is shared: the same for the leader and for those who help it."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

import sqlalchemy as sa

from job.steps.context import RunContext
from job.steps.expired import delete_expired
from job.steps.progress import Silent
from stores.model.errors import RunError, StopRequestedError
from stores.model.tally import Tally
from stores.sql.removal.history import DeletionRecorder
from stores.sql.shared_work import Claim, ClaimLostError, WorkTable


def work_on(context: RunContext, table: WorkTable, records: DeletionRecorder, claim: Claim) -> None:
    """Deletes what has expired in the part, and counts it there; nothing of it is in the context's own tally.

    Raises:
        StopRequestedError: the run has to stop; the part is given back.
        ClaimLostError: the part is no longer this worker's.
        LeaderGoneError: nothing may be deleted any more.
    """
    tally = Tally()
    own = dataclasses.replace(context, tally=tally, progress=Silent(), log=context.log.bind(part=claim.number))
    records.count_in_part = table.count(claim, tally)
    try:
        kept = delete_expired(own, 0, [claim.key_range])
    except StopRequestedError:
        # Short, and so that another worker need not wait; if it fails, the part is taken over.
        with suppress(ClaimLostError, RunError, sa.exc.SQLAlchemyError):
            table.give_back(claim, tally)
        raise
    finally:
        records.count_in_part = None
    table.finish(claim, tally, kept)

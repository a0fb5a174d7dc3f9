"""No live session is ever deleted: an application works on the stores while runs repeat beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count

import pytest
import sqlalchemy as sa

from policy.report import Outcome
from stores.model.sessions import Session
from stores.redis.store import RedisStore, RemovalCounts
from tests.support.application import Application, lost
from tests.support.patience import PATIENCE_SECONDS
from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, TABLE, SessionStores

TIMEOUT = 1800
SECONDS = 6


@pytest.mark.representative(database_url=["postgresql"])
def test_live_sessions_survive_runs_beside_a_working_application(stores: SessionStores) -> None:
    check_runs_beside_an_application(stores, SECONDS)


def check_runs_beside_an_application(stores: SessionStores, seconds: float) -> None:
    # Sessions that are `ripe` expire unless their user comes back within seconds; in the meantime runs look at them.
    workers = [Application(stores, f"w{n}", seed=n, ripe_seconds=TIMEOUT - 600) for n in range(3)]
    obeyed = policy(
        redis=True,
        cleanupBatchSize=20,
        sessionTimeoutSeconds=TIMEOUT,
        maxConcurrentSessions=0,
        sync={"graceSeconds": 1},
    )
    deleted = planted = 0
    for worker in workers:
        worker.start()
    end = time.monotonic() + seconds
    for round_ in count():
        # What has expired lies among what is in use, in both stores; some of it in one store only.
        expired = [(f"w{round_ % 3}-{n}-expired-{round_}", f"w{round_ % 3}-user{n}") for n in range(60)]
        stores.add_many(expired, began=2 * HOUR, used=HOUR)
        for session_id, user in expired[:40]:
            stores.add_key(session_id, user, used=HOUR)
        planted += len(expired)
        result = run(obeyed, stores.database_url, stores.redis_url, run_id=f"run-{round_}")
        assert result.report.outcome is Outcome.SUCCEEDED, result.report
        deleted += result.deleted
        runs = round_ + 1
        # The test is worth something only if both sides did work, however slow the machine is.
        busy = min(worker.requests for worker in workers) > 50 and sum(len(worker.live) for worker in workers) > 50
        if time.monotonic() > end and ((runs >= 3 and busy) or any(worker.problems for worker in workers)):
            break
    for worker in workers:
        worker.finish()
    assert [problem for worker in workers for problem in worker.problems] == []
    live = {session_id: user for worker in workers for session_id, user in worker.live.items()}
    assert lost(stores, live) == {}
    assert deleted == planted
    last = run(obeyed, stores.database_url, stores.redis_url)
    assert stores.ids() == set(live)
    left = {key for key in stores.redis_keys() if key.startswith("sess:")}
    assert left == {f"sess:{session_id}" for session_id in live}
    assert last.report.sessions.active == len(live)


def test_sessions_touched_at_the_last_moment_survive(
    postgres_and_redis: SessionStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users come back to sessions that have just expired by the run's clock, and meet the run mid-way.

    A session may then be gone (its user was too late) or be there in full; what may not be is a session that took a
    request and is gone, or one that is in one store only.
    """
    stores = postgres_and_redis
    ids = [f"s{n:03}" for n in range(300)]
    stores.add_many(((i, "u") for i in ids), began=2 * HOUR, used=TIMEOUT + 60)
    for i in ids:
        stores.add_key(i, "u", used=TIMEOUT + 60)
    touched: set[str] = set()
    problems: list[BaseException] = []
    begun, met = threading.Event(), threading.Event()

    def come_back() -> None:
        assert begun.wait(PATIENCE_SECONDS)
        try:
            for i in reversed(ids):  # against the run's direction
                with stores.engine.begin() as connection:
                    done = connection.execute(
                        TABLE.update().where(TABLE.c.session_id == i).values(last_accessed_at=datetime.now(UTC))
                    )
                if done.rowcount:
                    touched.add(i)
                    met.set()
        except sa.exc.SQLAlchemyError as error:
            problems.append(error)
            met.set()

    original = RedisStore.delete

    def remove(self: RedisStore, sessions: Sequence[Session]) -> RemovalCounts:
        """The rows of a batch are gone. With the first one the users begin; the run goes on when one has come."""
        begun.set()
        assert met.wait(PATIENCE_SECONDS)
        return original(self, sessions)

    monkeypatch.setattr(RedisStore, "delete", remove)
    users = threading.Thread(target=come_back)
    users.start()
    result = run(policy(redis=True, cleanupBatchSize=5, maxConcurrentSessions=0), stores.database_url, stores.redis_url)
    users.join()
    assert problems == []
    assert result.report.outcome is Outcome.SUCCEEDED
    assert stores.ids() == touched
    assert {key for key in stores.redis_keys() if key.startswith("sess:")} == {f"sess:{i}" for i in touched}
    assert 0 < len(touched) < len(ids)
    assert result.deleted == len(ids) - len(touched)

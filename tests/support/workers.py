"""Several workers on one run, in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from job.steps.initialise import Urls
from job.workers.worker import Worker
from policy.manifest import SessionPolicy
from policy.names import JOB_INDEX_ENV, JOB_UID_ENV
from stores.waiting.clock import RunClock
from tests.support.patience import PATIENCE_SECONDS
from tests.support.runs import Log, Result, run
from tests.support.session_stores import SessionStores


def environment(index: int, run_id: str = "run") -> dict[str, str]:
    """As Kubernetes numbers the Pods of an Indexed Job."""
    return {JOB_INDEX_ENV: str(index), JOB_UID_ENV: run_id}


def lead(obeyed: SessionPolicy, stores: SessionStores, *, run_id: str = "run", clock: RunClock | None = None) -> Result:
    """The run of the worker that reports."""
    return run(
        obeyed,
        stores.database_url,
        stores.redis_url,
        run_id=run_id,
        clock=clock,
        environment=environment(0, run_id),
    )


class Helper:
    """A worker that helps, in a thread. What ends it by force is kept, as nobody sees how a killed process ends."""

    def __init__(self, obeyed: SessionPolicy, stores: SessionStores, index: int = 1, run_id: str = "run") -> None:
        self.log = Log()
        self.clock = RunClock(600)
        self.exit_code: int | None = None
        self.killed = False
        urls = Urls(stores.database_url, stores.redis_url)
        self._worker = Worker(obeyed, urls, run_id, self.clock, self.log)
        self._environment = environment(index, run_id)
        self._ended = threading.Event()
        self.thread = threading.Thread(target=self._work, name=f"helper-{index}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.exit_code = self._worker.execute(self._environment)
        except BaseException:
            self.killed = True
        finally:
            self._ended.set()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def wait(self) -> None:
        assert self._ended.wait(PATIENCE_SECONDS), "the helper does not end"

    def because(self) -> str:
        """Why it ended, in its own words."""
        self.wait()
        (finished,) = self.log.named("worker finished")
        return str(finished["because"])


def before_each_part(monkeypatch: Any, module: str, act: Callable[[], None]) -> None:
    """Has something done before the workers of this kind (leader or worker) begin a part."""
    import job.workers.leader
    import job.workers.worker

    where = {"leader": job.workers.leader, "worker": job.workers.worker}[module]
    original = where.delete_claimed_range

    def delete_claimed_range(*arguments: Any) -> None:
        act()
        original(*arguments)

    monkeypatch.setattr(where, "delete_claimed_range", delete_claimed_range)

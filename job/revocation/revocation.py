"""One attempt of a SessionRevocation: log a user out of all stores, or end one session, known by its hash.

Everything is looked up anew, so an attempt that was killed anywhere is finished by the next. The target's id is never
logged nor reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from job.logs.id_hasher import IdHasher
from job.logs.run_logs import HashedSessionLog, safe_traceback
from job.revocation.lookup import FoundSession
from job.revocation.open_stores import OpenStores, open_for_job
from job.revocation.revoker import RevocationResult, RevokedBatch
from job.steps.initialise import Urls
from policy.manifest import SessionPolicy
from policy.names import LOG_HASH_KEY_ENV
from policy.report import printable
from policy.revocation import RevocationCounts, RevocationReport, RevocationTarget
from stores.model.errors import ConfigurationError, LockHeldError, StopRequestedError
from stores.model.sessions import Cause
from stores.sql.connection.connect import as_run_error
from stores.waiting.clock import RunClock

# A cleanup run may take as long as this attempt may. Half of the time is for waiting, the other half for the work.
_WAITING_SHARE = 0.5
_FAILED = 1


class SessionsInUseError(Exception):
    """An application has locked some of the rows."""


@dataclass(slots=True)
class Revocation:
    """One attempt to revoke the sessions of a SessionRevocation, and its counts.

    Attributes:
        policy: where the sessions are, and whether this is a dry run.
        target: whose sessions end.
        urls: where the stores are.
        clock: deadline and stop requests.
        log: structured log.
        audit: the cleanup log.
        identities: hashes ids; None where there is no key, so that no hash can be known again.
        poll_seconds: pause between two looks whether the lock is free.
    """

    policy: SessionPolicy
    target: RevocationTarget
    urls: Urls
    clock: RunClock
    log: Any
    audit: HashedSessionLog
    identities: IdHasher | None
    poll_seconds: float = 5.0
    _counts: RevocationCounts = field(default_factory=RevocationCounts)

    def execute(self) -> tuple[RevocationReport, int]:
        """Revokes the sessions. Returns the report and the exit code of the process; raises nothing."""
        dry_run = self.policy.spec.dry_run
        metadata = self.policy.metadata
        self.log.info(
            "revocation started",
            policy=metadata.name,
            namespace=metadata.namespace,
            of="user" if self.target.user is not None else "session",
            dryRun=dry_run,
        )
        reason, message, exit_code = self._guarded(dry_run)
        report = RevocationReport(reason=reason, message=printable(message), dry_run=dry_run, sessions=self._counts)
        self.log.info("revocation finished", **report.to_json_object())
        return report, exit_code

    def _guarded(self, dry_run: bool) -> tuple[str, str, int]:
        try:
            if dry_run:
                return (*self._look(), 0)
            return (*self._revoke(), 0)
        except LockHeldError:
            return (
                "LockHeld",
                "a run holds the lock on these sessions and did not end in time; nothing was done",
                _FAILED,
            )
        except SessionsInUseError:
            held = f"an application has locked the rows of {_sessions(self._counts.left)}"
            return "SessionsInUse", f"{held}; {_sessions(self._counts.revoked)} revoked", _FAILED
        except StopRequestedError as stop:
            return stop.reason, f"the attempt was interrupted; {_sessions(self._counts.revoked)} revoked", _FAILED
        except Exception as error:
            failure = as_run_error(error)
            self.log.error(
                "revocation failed", reason=failure.reason, message=str(failure), trace=safe_traceback(error)
            )
            return failure.reason, str(failure), failure.exit_code

    def _look(self) -> tuple[str, str]:
        """Needs no lock: it changes nothing."""
        with self._open(exclusive=False) as stores:
            self._count(found=len(self._find(stores)))
        return "DryRun", f"dry run: {_sessions(self._counts.found)} would be revoked; nothing was changed"

    def _revoke(self) -> tuple[str, str]:
        wanted: list[FoundSession] = []
        if self.target.session_hash is not None:
            # Looking through ten million sessions must not keep runs from the lock.
            with self._open(exclusive=False) as stores:
                wanted = self._find(stores)
            if not wanted:
                return "NoSessions", "no session has this hash: it has ended, or its hash was made with another key"
        with self._locked() as stores:
            result = self._revoke_in(stores, wanted)
        if result.left:
            self._count(found=len(result.left), left=len(result.left))
            raise SessionsInUseError
        if not self._counts.revoked:
            return "NoSessions", "there was no session to revoke"
        return "Revoked", f"{_sessions(self._counts.revoked)} revoked"

    def _revoke_in(self, stores: OpenStores, wanted: Sequence[FoundSession]) -> RevocationResult:
        if self.target.user is not None:
            _require_users(stores)
            return stores.revoker.revoke_user(self.target.user, self._record)
        still_there = [stores.lookup.by_id(found.session.key) for found in wanted]
        return stores.revoker.revoke([found.session for found in still_there if found], self._record)

    def _find(self, stores: OpenStores) -> list[FoundSession]:
        if self.target.user is not None:
            _require_users(stores)
            return stores.lookup.of_user(self.target.user)
        if self.identities is None:
            raise ConfigurationError(
                f"the session is named by its hash, but {LOG_HASH_KEY_ENV} is not set: name the key that the hash was "
                "made with in spec.logs.hashKeyFrom of the policy"
            )
        hashed, wanted = self.identities.session, self.target.session_hash
        found = stores.lookup.search(lambda key: hashed(key) == wanted)
        return [found] if found else []

    def _open(self, *, exclusive: bool) -> AbstractContextManager[OpenStores]:
        return open_for_job(self.policy, self.urls, self.clock, self.log, exclusive=exclusive)

    @contextmanager
    def _locked(self) -> Iterator[OpenStores]:
        """The stores, with the lock that runs take; waits for a run that has it."""
        patience = self.policy.spec.job.timeout_seconds * _WAITING_SHARE
        with ExitStack() as stack:
            logged = False
            while True:
                try:
                    stores = stack.enter_context(self._open(exclusive=True))
                    break
                except LockHeldError:
                    if self.clock.elapsed_seconds + self.poll_seconds > patience:
                        raise
                if not logged:
                    self.log.info("waiting for the lock", because="a run holds it")
                    logged = True
                self.clock.wait(self.poll_seconds)
            yield stores

    def _record(self, batch: RevokedBatch) -> None:
        """Logs and counts a batch at once: an attempt that is killed a moment later has logged what it did."""
        self.audit.deleted(batch.sessions, Cause.REVOKED.value)
        number = len(batch.sessions)
        self._count(found=number, revoked=number, database_rows=batch.rows, redis_keys=batch.keys)

    def _count(self, **more: int) -> None:
        counts = self._counts
        self._counts = counts.model_copy(update={name: getattr(counts, name) + n for name, n in more.items()})


def _require_users(stores: OpenStores) -> None:
    if not stores.lookup.knows_users:
        raise ConfigurationError(
            "no column is mapped to userId, so the sessions of a user cannot be found: "
            "map stores.database.table.columns.userId"
        )


def _sessions(number: int) -> str:
    return "1 session" if number == 1 else f"{number:,} sessions"

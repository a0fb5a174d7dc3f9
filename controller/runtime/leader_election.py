"""Leader election: of several controllers, the one that holds a Lease works; the others stand by.

The rules are those of client-go's leaderelection. No candidate relies on another one's clock: a standby takes over when
it has seen the Lease unchanged for its duration, measured with its own clock. The leader stops writing when it could
not renew for the renew deadline, measured from before the request that renewed it, and so always earlier than any other
can take over. Every change names the resourceVersion that was read, so only one of several attempts is accepted.

The client library has an election, but it measures with the wall clock, which may jump; it ends at the first request
that gets no answer; its requests may take longer than the Lease lasts; and it never releases the Lease.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from controller.api.kube import ConflictError, KubeError, NotFoundError, Resource

log = structlog.get_logger("controller.runtime.leader_election")

LEASE_SECONDS: Final = 10
"""How long a Lease outlives its holder: short enough that a killed leader is replaced within seconds."""
RENEW_DEADLINE_SECONDS: Final = 7.0
"""The leader stops writing this long after its last renewal began: 3 seconds before any other may start, so that the
requests under way have arrived."""
RETRY_SECONDS: Final = 2.0
"""Between attempts, of the leader and of the standbys: several fit in the renew deadline."""

_RELEASE_ATTEMPTS: Final = 2


def uninterrupted_clock() -> float:
    """Seconds since some point, at a steady pace; where possible, those that the system was suspended are counted."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Leases(Protocol):
    """What an election needs of the API server."""

    async def get_lease(self, namespace: str, name: str) -> Resource | None:
        """The Lease, or None."""

    async def create_lease(self, lease: Resource) -> Resource:
        """Create it; a KubeError if there is one."""

    async def replace_lease(self, lease: Resource) -> Resource:
        """Replace the Lease of this resourceVersion; a ConflictError if it is another by now."""


class Leadership(Protocol):
    """Whether this controller is the leader, which alone may write."""

    def seconds_left(self) -> float:
        """For how long requests that change something may still be sent; 0 or less: not at all."""

    async def wait_until_leading(self) -> None:
        """Wait until this controller is certain to be the leader."""


class SoleLeader:
    """The leadership of a controller that is known to be the only one: it never ends."""

    def seconds_left(self) -> float:
        """Any time."""
        return math.inf

    async def wait_until_leading(self) -> None:
        """Return at once."""


class LeaderElector:
    """One candidate for the Lease."""

    def __init__(
        self,
        leases: Leases,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float] = uninterrupted_clock,
    ) -> None:
        """Stand for election.

        Args:
            leases: the API server.
            namespace: of the Lease.
            name: of the Lease; all candidates have the same.
            identity: this candidate's name; no other process, also none before it in the same Pod, has it.
            clock: steady seconds, see `uninterrupted_clock`.
        """
        self._leases = leases
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._lease: Resource | None = None  # as last read or written
        self._unchanged_since = -math.inf  # when its spec was first seen as it is, or that it is gone
        self._is_gone = False
        self._is_leader = False
        self._may_write_until = -math.inf
        self._renewed = asyncio.Event()

    def seconds_left(self) -> float:
        """For how long requests that change something may still be sent; 0 or less: not at all."""
        return self._may_write_until - self._clock()

    async def wait_until_leading(self) -> None:
        """Wait until the Lease is certainly held."""
        while self.seconds_left() <= 0:
            self._renewed.clear()
            await self._renewed.wait()

    async def acquire(self) -> None:
        """Wait until this candidate holds the Lease."""
        log.info("waiting for the lease", lease=self._name, identity=self._identity)
        known_holder = ""
        while True:
            try:
                if await self.try_acquire_or_renew():
                    log.info("became leader", lease=self._name, identity=self._identity)
                    return
                if self.holder != known_holder:
                    known_holder = self.holder
                    log.info("another controller is the leader", lease=self._name, holder=known_holder)
            except ConflictError:
                pass  # another one was faster
            except KubeError as error:
                log.warning("lease not acquired, will be retried", lease=self._name, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def renew(self) -> None:
        """Keep the Lease renewed; return when another candidate has taken it.

        An API server that does not answer does not end it: nothing is written meanwhile, and work goes on once the
        Lease has been renewed.
        """
        paused = False
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                if not await self.try_acquire_or_renew():
                    log.error("lease lost to another controller", lease=self._name, holder=self.holder)
                    return
                if paused:
                    log.info("lease renewed, writes are resumed", lease=self._name)
                paused = False
            except KubeError as error:
                if not paused and self.seconds_left() <= 0:
                    paused = True
                    log.warning("lease not renewed, writes are paused", lease=self._name, error=str(error))

    async def release(self) -> None:
        """Release the Lease, so that another need not wait until it expires. Nothing may be written afterwards."""
        self._may_write_until = -math.inf
        for _ in range(_RELEASE_ATTEMPTS if self._is_leader else 0):
            try:
                lease = self._lease or await self._read()
                if lease is None or _holder(lease) != self._identity:
                    break
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                await self._leases.replace_lease({**lease, "spec": spec})
                log.info("lease released", lease=self._name)
                break
            except ConflictError:
                self._lease = None  # a renewal that was cut off has arrived
            except KubeError as error:
                log.warning("lease not released, it expires by itself", lease=self._name, error=str(error))
                break
        self._is_leader = False

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last seen; empty for nobody."""
        return _holder(self._lease)

    async def try_acquire_or_renew(self) -> bool:
        """Try once to acquire or to renew the Lease.

        Returns:
            Whether it is held now. If not, another candidate holds it.

        Raises:
            KubeError: it is not known; nothing has changed for this candidate.
        """
        # A Lease that is held is renewed without reading it first: if it has changed, the server refuses.
        if self._is_leader and self._lease is not None:
            try:
                return await self._take(self._lease)
            except (ConflictError, NotFoundError):
                pass
        lease = await self._read()
        holder = _holder(lease)
        if self._is_leader and lease is not None and holder != self._identity:
            self._is_leader = False
            self._may_write_until = -math.inf
            return False
        if holder not in ("", self._identity) and not self._has_expired():
            return False
        return await self._take(lease)

    async def _read(self) -> Resource | None:
        seen = await self._leases.get_lease(self._namespace, self._name)
        if seen is None:
            # Its holder does not know yet that somebody deleted it, and may have renewed it right before.
            if not self._is_gone:
                self._is_gone = True
                self._unchanged_since = self._clock()
            return self._lease if self.holder not in ("", self._identity) and not self._has_expired() else None
        self._remember(seen)
        return seen

    async def _take(self, lease: Resource | None) -> bool:
        began = self._clock()
        manifest = self._manifest(lease)
        write = self._leases.create_lease if lease is None else self._leases.replace_lease
        self._remember(await write(manifest))
        self._is_leader = True
        self._may_write_until = began + RENEW_DEADLINE_SECONDS
        self._renewed.set()
        return True

    def _remember(self, lease: Resource) -> None:
        # Only the spec: a label that somebody sets does not show that the holder is alive.
        if self._lease is None or self._lease.get("spec") != lease.get("spec"):
            self._unchanged_since = self._clock()
        self._is_gone = False
        self._lease = lease

    def _has_expired(self) -> bool:
        stated = _spec(self._lease).get("leaseDurationSeconds") or 0
        return self._clock() >= self._unchanged_since + max(stated, LEASE_SECONDS)

    def _manifest(self, lease: Resource | None) -> Resource:
        """The Lease with this candidate as its holder."""
        spec = _spec(lease)
        now = _now()
        changed: dict[str, Any] = {"leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        if _holder(lease) != self._identity:
            changed |= {
                "holderIdentity": self._identity,
                "acquireTime": now,
                "leaseTransitions": (spec.get("leaseTransitions") or 0) + (lease is not None),
            }
        head = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
        }
        return {**(lease or head), "spec": {**spec, **changed}}


def _spec(lease: Resource | None) -> dict[str, Any]:
    return (lease or {}).get("spec") or {}


def _holder(lease: Resource | None) -> str:
    return _spec(lease).get("holderIdentity") or ""


def _now() -> str:
    """The time for people who look at the Lease; no candidate reads it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

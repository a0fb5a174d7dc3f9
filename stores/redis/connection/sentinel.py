"""Which server is the master: the sentinels know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, RedisError, ResponseError
from redis.sentinel import MasterNotFoundError, Sentinel

from stores.redis.connection.url import Address


class SentinelLoginError(RedisError):
    """The sentinels refuse the login."""


class NoSentinelError(RedisError):
    """What the URL names are no sentinels."""


class UnknownMasterError(RedisError):
    """The sentinels watch no master of that name."""


class MasterDiscovery(Sentinel):
    """Asks the sentinels for the master each time a connection is made, and tells what is wrong if there is no answer.

    Args:
        sentinels: where they are.
        login: how to log in to them, and how connections to them are made.
    """

    def __init__(self, sentinels: Sequence[Address], login: dict[str, Any]) -> None:
        super().__init__([(s.host, s.port) for s in sentinels], sentinel_kwargs=login)  # type: ignore[no-untyped-call]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the master, from the first sentinel that knows it.

        Raises:
            SentinelLoginError, NoSentinelError, UnknownMasterError: somebody has to change something.
            MasterNotFoundError: no sentinel can be reached.
        """
        errors: list[RedisError] = []
        for sentinel in list(self.sentinels):
            try:
                reply = self._ask(sentinel, service_name)
            except RedisError as error:
                errors.append(error)
                continue
            if reply is None:
                errors.append(UnknownMasterError())
                continue
            # It is asked first next time.
            self.sentinels.remove(sentinel)
            self.sentinels.insert(0, sentinel)
            return reply[0].decode(), int(reply[1])
        # One that answers tells more than one that cannot be reached.
        errors.sort(key=lambda error: isinstance(error, ConnectionError | redis.TimeoutError))
        if errors and not isinstance(errors[0], ConnectionError | redis.TimeoutError):
            raise errors[0] from None
        raise MasterNotFoundError from (errors[0] if errors else None)

    @staticmethod
    def _ask(sentinel: redis.Redis, name: str) -> Sequence[bytes] | None:
        try:
            reply: Sequence[bytes] | None = sentinel.execute_command(  # type: ignore[no-untyped-call]
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name
            )
        except (AuthenticationError, NoPermissionError):
            raise SentinelLoginError from None
        except ResponseError as error:
            if "unknown command" in str(error).lower():
                raise NoSentinelError from None
            raise
        return reply

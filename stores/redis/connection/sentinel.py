"""Finds the master behind Redis Sentinel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, RedisError, ResponseError
from redis.sentinel import MasterNotFoundError, Sentinel

from stores.redis.connection.url import Address


class SentinelLoginError(RedisError):
    """The sentinels refused the login."""


class NoSentinelError(RedisError):
    """The hosts in the URL are not sentinels."""


class UnknownMasterError(RedisError):
    """The sentinels do not monitor a master of that name."""


class MasterDiscovery(Sentinel):
    """Asks the sentinels for the master for each new connection; its errors say what is wrong.

    Args:
        sentinels: their addresses.
        options: redis-py options of the connections to them: login, TLS, timeouts.
    """

    def __init__(self, sentinels: Sequence[Address], options: dict[str, Any]) -> None:
        super().__init__([(s.host, s.port) for s in sentinels], sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the master, from the first sentinel that knows it.

        Raises:
            SentinelLoginError, NoSentinelError, UnknownMasterError: the configuration is wrong.
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
            # Ask this one first next time.
            self.sentinels.remove(sentinel)
            self.sentinels.insert(0, sentinel)
            return reply[0].decode(), int(reply[1])
        # The error of a sentinel that answered says more than that of one that cannot be reached.
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
        except ResponseError:
            if not _is_sentinel(sentinel):
                raise NoSentinelError from None
            raise
        return reply


def _is_sentinel(server: redis.Redis) -> bool:
    """Whether the server runs in Sentinel mode, as HELLO reports it. ACLs cannot forbid HELLO."""
    reply: Sequence[Any] = server.execute_command("HELLO")  # type: ignore[no-untyped-call]
    return dict(zip(reply[::2], reply[1::2], strict=True)).get(b"mode") == b"sentinel"

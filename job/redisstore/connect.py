"""From a Redis URL to a client, and from the client's errors to ours."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import SplitResult, parse_qsl, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from job.errors import ConfigurationError, RedisUnavailableError, RunError
from policy.names import REDIS_URL_ENV
from policy.stores import RedisMode, RedisStore

_CONNECT_TIMEOUT_SECONDS = 5.0
# Longer than any of our commands takes, shorter than people wait for a server that hangs.
_SOCKET_TIMEOUT_SECONDS = 15.0

_SCHEMES = ("redis", "rediss", "unix")
_OPTIONS = frozenset({"db", "username", "password"})
_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs"}
)

# Errors that Redis answers with, and that pass by themselves: a failover, a full disk, a script that runs for too long.
_PASSING = (
    BusyLoadingError, ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError,
)  # fmt: skip
_PASSING_CODES = ("BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED", "LOADING", "MASTERDOWN")


def connect(url: str, store: RedisStore) -> redis.Redis:
    """A client for the Redis at the URL; it connects with its first command.

    Keys and values stay bytes, and nothing is tried again by the client itself: both are the caller's business.

    Args:
        url: redis://, rediss:// or unix://, with user and password if Redis wants them.
        store: how the servers are arranged.

    Raises:
        ConfigurationError: the URL cannot be used. It is not repeated: it may hold a password.
    """
    assert store.mode is RedisMode.STANDALONE
    url = url.strip()
    _check(url)
    try:
        client = redis.Redis.from_url(
            url,
            decode_responses=False,
            protocol=2,  # every server and proxy speaks it; 3 would add notifications that nobody reads
            driver_info=None,
            socket_connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            # Or attempts would be multiplied: the policy says how often and how patiently to try again.
            retry=Retry(NoBackoff(), 0),
        )
        # Builds a connection without connecting, so that a wrong option shows here and not in the first command.
        client.connection_pool.make_connection()
    except (TypeError, ValueError, RedisError):
        raise _unreadable("an option has a value that cannot be used") from None
    return client


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        raise _unreadable(
            "host and port cannot be told apart; percent-encode special characters in the password"
        ) from None
    if parts.scheme not in _SCHEMES:
        raise _unreadable("it must begin with redis://, rediss:// or unix://")
    if parts.fragment:
        raise _unreadable("it contains a #; percent-encode special characters in the password")
    if parts.scheme == "unix":
        if not parts.path or parts.hostname:
            raise _unreadable("unix:// takes the path of a socket, e.g. unix:///run/redis.sock")
    else:
        _check_address(parts)
    allowed = _OPTIONS | _TLS_OPTIONS if parts.scheme == "rediss" else _OPTIONS
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not options.keys() <= allowed:
        raise _unreadable(f"it has an option other than {', '.join(sorted(allowed))}")
    if not _is_database(options.get("db", "0")):
        raise _unreadable("db must be a number, e.g. ?db=0")


def _check_address(parts: SplitResult) -> None:
    if not parts.hostname:
        raise _unreadable("it names no host")
    database = parts.path.removeprefix("/")
    # The client would take database 0 for what it cannot read, and the wrong database looks like one full of orphans.
    if database and not _is_database(database):
        raise _unreadable("after the host comes the number of the database, e.g. redis://host:6379/0")


def _is_database(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _unreadable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{REDIS_URL_ENV} cannot be used as a Redis URL: {why}; expected e.g. redis://:password@host:6379/0"
    )


def translate(error: RedisError | OSError) -> RunError:
    """The error as the report may tell it: RedisUnavailableError if another attempt may help, else ConfigurationError.

    The server's text is not repeated: it quotes commands, and with them keys.
    """
    if isinstance(error, AuthenticationError | AuthenticationWrongNumberOfArgsError | AuthorizationError):
        return ConfigurationError(f"Redis refused the login: check user and password in {REDIS_URL_ENV}")
    # Within a script the refusal has no code of its own.
    if isinstance(error, NoPermissionError) or "user executing the script" in str(error).lower():
        return ConfigurationError(
            "the Redis user lacks a permission: it needs +@read +@write +@connection +time +evalsha +script "
            "on the keys that stores.redis.keys names"
        )
    if isinstance(error, AskError):  # and MovedError
        return ConfigurationError(
            f"the Redis in {REDIS_URL_ENV} is one of a cluster, but stores.redis.mode is {RedisMode.STANDALONE}"
        )
    if isinstance(error, ResponseError) and not _passes(error):
        return _refused(error)
    return _unavailable(error)


def _passes(error: ResponseError) -> bool:
    return isinstance(error, _PASSING) or str(error).split(" ", 1)[0] in _PASSING_CODES


def _refused(error: ResponseError) -> RunError:
    text = str(error).lower()
    if "db index" in text:
        return ConfigurationError(f"Redis has no database of the number in {REDIS_URL_ENV}")
    if "unknown command" in text:
        return ConfigurationError(
            "Redis does not know, or has disabled, a command that is needed; needed are Redis 4 or later and "
            "SCAN, SSCAN, TIME, EVALSHA, SCRIPT LOAD, UNLINK, SREM, STRLEN, GET and HMGET"
        )
    return RedisUnavailableError(f"Redis refuses a command ({type(error).__name__})")


def _unavailable(error: BaseException) -> RunError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of Redis cannot be verified: name its authority in {REDIS_URL_ENV}, "
                "e.g. ?ssl_ca_certs=/path/ca.crt"
            )
        if isinstance(cause, socket.gaierror):
            return RedisUnavailableError("the host name of Redis does not resolve")
        if isinstance(cause, ConnectionRefusedError):
            return RedisUnavailableError("Redis refuses connections: is it up, is the port right?")
        if isinstance(cause, FileNotFoundError):
            return RedisUnavailableError("the socket of Redis does not exist: is it up, is the path right?")
        if isinstance(cause, TimeoutError | redis.TimeoutError):
            return RedisUnavailableError("Redis did not answer in time")
        cause = cause.__cause__ or cause.__context__
    return RedisUnavailableError(f"Redis failed or the connection was lost ({type(error).__name__})")

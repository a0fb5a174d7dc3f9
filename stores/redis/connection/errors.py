"""From the client's errors to ours. A server's words are never repeated: they quote commands, and with them keys."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.sentinel import MasterNotFoundError

from policy.names import REDIS_URL_ENV
from policy.stores import RedisMode
from stores.model.errors import ConfigurationError, RedisUnavailableError, RunError
from stores.redis.connection.permissions import PERMISSIONS
from stores.redis.connection.sentinel import NoSentinelError, SentinelLoginError, UnknownMasterError

_Kinds = tuple[type[BaseException], ...]

_LACKS_PERMISSION = (
    f"the Redis user lacks a permission: it needs {' '.join(PERMISSIONS)} on the keys that stores.redis.keys names, "
    "and a little more with a Cluster or without a database; docs/reference/redis.md has the whole line"
)
_IS_CLUSTER = f"the Redis in {REDIS_URL_ENV} is one of a cluster, but stores.redis.mode is not {RedisMode.CLUSTER}"

# What somebody has to change, by the kind of error.
_REFUSALS: tuple[tuple[_Kinds, str], ...] = (
    (
        (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError),
        f"Redis refused the login: check user and password in {REDIS_URL_ENV}",
    ),
    ((NoPermissionError,), _LACKS_PERMISSION),
    (
        (SentinelLoginError,),
        f"the sentinels refused the login: check sentinel_username and sentinel_password in {REDIS_URL_ENV}",
    ),
    (
        (NoSentinelError,),
        f"stores.redis.mode is {RedisMode.SENTINEL}, but {REDIS_URL_ENV} names no sentinels; look at the port",
    ),
    ((UnknownMasterError,), "the sentinels know no master of the name in stores.redis.sentinelMaster"),
    ((AskError, ClusterCrossSlotError), _IS_CLUSTER),  # AskError: and MovedError
)

# The same, by what the server says where its error has no kind of its own.
_REFUSED_WORDS: tuple[tuple[str, str], ...] = (
    ("user executing the script", _LACKS_PERMISSION),  # Redis 6
    ("acl failure in script", _LACKS_PERMISSION),  # Redis 7 and later, Valkey
    ("keys in request don't hash", _IS_CLUSTER),
    (
        "cluster support disabled",
        f"stores.redis.mode is {RedisMode.CLUSTER}, but the Redis in {REDIS_URL_ENV} is none of a cluster",
    ),
    ("db index", f"Redis has no database of the number in {REDIS_URL_ENV}"),
    (
        "unknown command",
        "Redis does not know, or has disabled, a command that is needed; needed are Redis 4 or later and SCAN, SSCAN, "
        "TIME, EVALSHA, SCRIPT LOAD, EXISTS, UNLINK, SREM, STRLEN, GET and HMGET",
    ),
)

# Errors that Redis answers with, and that pass by themselves: a failover, a full disk, a script that runs for too long.
_PASSING = (
    BusyLoadingError, ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError,
)  # fmt: skip
_PASSING_CODES = ("BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY")

# Why a server cannot be reached, by what lies beneath the client's error.
_CAUSES: tuple[tuple[_Kinds, str], ...] = (
    ((socket.gaierror,), "the host name of Redis does not resolve"),
    ((ConnectionRefusedError,), "Redis refuses connections: is it up, is the port right?"),
    ((FileNotFoundError,), "the socket of Redis does not exist: is it up, is the path right?"),
    ((TimeoutError, redis.TimeoutError), "Redis did not answer in time"),
)


def translate(error: RedisError | OSError) -> RunError:
    """The error for the report: RedisUnavailableError if another attempt may help, else ConfigurationError."""
    refusal = next((text for kinds, text in _REFUSALS if isinstance(error, kinds)), None)
    if refusal is None and isinstance(error, ResponseError) and not _passes(error):
        said = str(error).lower()
        refusal = next((text for words, text in _REFUSED_WORDS if words in said), None)
        if refusal is None:
            return RedisUnavailableError(f"Redis refuses a command ({type(error).__name__})")
    return ConfigurationError(refusal) if refusal else _unavailable(error)


def _passes(error: ResponseError) -> bool:
    return isinstance(error, _PASSING) or str(error).split(" ", 1)[0] in _PASSING_CODES


def _unavailable(error: BaseException) -> RunError:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of Redis cannot be verified: name its authority in {REDIS_URL_ENV}, "
                "e.g. ?ssl_ca_certs=/path/ca.crt, and the host as the certificate names it"
            )
        for kinds, text in _CAUSES:
            if isinstance(cause, kinds):
                return RedisUnavailableError(text)
    if isinstance(error, MasterNotFoundError):
        return RedisUnavailableError("no sentinel of Redis can be reached")
    return RedisUnavailableError(f"Redis failed or the connection was lost ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__

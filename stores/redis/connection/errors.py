"""Translates redis-py errors into run errors.

A server's message is never repeated: it may quote a command, and with it a session id.
"""

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

_ErrorTypes = tuple[type[BaseException], ...]

_LACKS_PERMISSION = (
    f"the Redis user lacks a permission: it needs {' '.join(PERMISSIONS)} on the keys that stores.redis.keys names, "
    "and more with a Cluster or without a database; see docs/reference/redis.md, Permissions"
)
_IS_CLUSTER_NODE = f"the Redis in {REDIS_URL_ENV} is a cluster node, but stores.redis.mode is not {RedisMode.CLUSTER}"

# What to change in the configuration, by redis-py's error class.
_CONFIGURATION_ERRORS: tuple[tuple[_ErrorTypes, str], ...] = (
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
        f"stores.redis.mode is {RedisMode.SENTINEL}, but {REDIS_URL_ENV} names no sentinels; check the port",
    ),
    ((UnknownMasterError,), "the sentinels do not monitor a master of the name in stores.redis.sentinelMaster"),
    ((AskError, ClusterCrossSlotError), _IS_CLUSTER_NODE),  # MovedError is an AskError
)

# The same, for errors that Redis sends with the general code ERR: only their text tells them apart.
_CONFIGURATION_ERROR_TEXTS: tuple[tuple[str, str], ...] = (
    ("user executing the script", _LACKS_PERMISSION),  # Redis 6
    ("acl failure in script", _LACKS_PERMISSION),  # Redis 7 and later, Valkey
    ("keys in request don't hash", _IS_CLUSTER_NODE),
    (
        "cluster support disabled",
        f"stores.redis.mode is {RedisMode.CLUSTER}, but the Redis in {REDIS_URL_ENV} is not a cluster node",
    ),
    ("db index", f"Redis has no database with the number in {REDIS_URL_ENV}"),
    (
        "unknown command",
        "Redis does not know a needed command, or it is disabled; needed are Redis 4 or later and SCAN, SSCAN, "
        "TIME, EVALSHA, SCRIPT LOAD, EXISTS, UNLINK, SREM, STRLEN, GET and HMGET",
    ),
)

# Errors that may pass by themselves: failover, full disk, a script that runs too long.
_TRANSIENT_ERRORS = (
    BusyLoadingError, ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError,
)  # fmt: skip
_TRANSIENT_CODES = ("BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY")

# Why a server cannot be reached, by the cause of redis-py's error.
_CAUSES: tuple[tuple[_ErrorTypes, str], ...] = (
    ((socket.gaierror,), "the host name of Redis does not resolve"),
    ((ConnectionRefusedError,), "Redis refuses connections; check that it is running and the port is right"),
    (
        (FileNotFoundError,),
        "the Unix socket of Redis does not exist; check that Redis is running and the path is right",
    ),
    ((TimeoutError, redis.TimeoutError), "Redis did not answer in time"),
)


def translate(error: RedisError | OSError) -> RunError:
    """The error for the run report: RedisUnavailableError if a retry may help, else ConfigurationError."""
    problem = next((text for types, text in _CONFIGURATION_ERRORS if isinstance(error, types)), None)
    if problem is None and isinstance(error, ResponseError) and not _is_transient(error):
        message = str(error).lower()
        problem = next((text for words, text in _CONFIGURATION_ERROR_TEXTS if words in message), None)
        if problem is None:
            return RedisUnavailableError(f"Redis refused a command ({type(error).__name__})")
    return ConfigurationError(problem) if problem else _unavailable(error)


def error_code(error: ResponseError) -> str:
    """The code that an error reply starts with, such as WRONGTYPE; redis-py has removed those it has a class for."""
    return str(error).split(" ", 1)[0]


def _is_transient(error: ResponseError) -> bool:
    return isinstance(error, _TRANSIENT_ERRORS) or error_code(error) in _TRANSIENT_CODES


def _unavailable(error: BaseException) -> RunError:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the TLS certificate of Redis cannot be verified; name its CA in {REDIS_URL_ENV}, "
                "e.g. ?ssl_ca_certs=/path/ca.crt, and use a host name that the certificate has"
            )
        for types, text in _CAUSES:
            if isinstance(cause, types):
                return RedisUnavailableError(text)
    if isinstance(error, MasterNotFoundError):
        return RedisUnavailableError("no sentinel can be reached")
    return RedisUnavailableError(f"Redis failed or the connection was lost ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__

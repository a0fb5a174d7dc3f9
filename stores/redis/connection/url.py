"""Parses Redis URLs: one server, or the hosts of a Sentinel or Cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from policy.names import REDIS_URL_ENV
from policy.stores import RedisMode
from stores.model.errors import ConfigurationError

DEFAULT_PORTS = {RedisMode.STANDALONE: 6379, RedisMode.SENTINEL: 26379, RedisMode.CLUSTER: 6379}

_EXAMPLES = {
    RedisMode.STANDALONE: "redis://:password@host:6379/0",
    RedisMode.SENTINEL: "redis://:password@sentinel-0:26379,sentinel-1:26379/0",
    RedisMode.CLUSTER: "redis://:password@node-0:6379,node-1:6379",
}
_OPTIONS = frozenset({"db", "username", "password"})
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
_TLS_FILES = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
_TLS_OPTIONS = _TLS_FILES | {"ssl_check_hostname", "ssl_cert_reqs"}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a server.

    Attributes:
        host: name or IP address.
        port: TCP port.
    """

    host: str
    port: int


@dataclass(frozen=True, slots=True, repr=False)
class RedisUrl:
    """A parsed Redis URL. It has no repr: it may hold passwords.

    Attributes:
        addresses: its hosts; none for a Unix socket.
        socket: path of the Unix socket.
        database: database number.
        username: Redis user; None for the default user.
        password: its password; None for no login.
        sentinel_username: user at the sentinels, which have a login of their own.
        sentinel_password: its password.
        tls: TLS options of redis-py; None without TLS.
    """

    addresses: tuple[Address, ...]
    socket: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: Mapping[str, Any] | None = field(default=None)


def parse_url(url: str, mode: RedisMode) -> RedisUrl:
    """Parses a Redis URL.

    Args:
        url: redis://, rediss:// (TLS) or, for one server, unix://; the hosts of a Sentinel or Cluster separated by
            commas. Options after the question mark: db, username, password; with Sentinel sentinel_username and
            sentinel_password; with rediss:// ssl_ca_certs, ssl_ca_path, ssl_certfile, ssl_keyfile, ssl_check_hostname
            and ssl_cert_reqs.
        mode: Standalone, Sentinel or Cluster.

    Raises:
        ConfigurationError: it is invalid. The message does not repeat the URL: it may hold a password.
    """
    return _Parser(mode).parse(url.strip())


class _Parser:
    def __init__(self, mode: RedisMode) -> None:
        self._mode = mode

    def parse(self, url: str) -> RedisUrl:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise self._invalid_address() from None
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise self._invalid("it must start with redis://, rediss:// or unix://")
        if parts.fragment:
            raise self._invalid("it contains a #; percent-encode special characters in the password")
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        options = self._options(parts)
        socket = self._socket(parts, hosts) if parts.scheme == "unix" else None
        return RedisUrl(
            addresses=() if socket else self._addresses(hosts),
            socket=socket,
            database=self._database("" if socket else parts.path.removeprefix("/"), options.get("db")),
            username=unquote(username) or options.get("username") or None,
            password=unquote(password) or options.get("password") or None,
            sentinel_username=options.get("sentinel_username") or None,
            sentinel_password=options.get("sentinel_password") or None,
            tls=self._tls(options) if parts.scheme == "rediss" else None,
        )

    def _options(self, parts: SplitResult) -> dict[str, str]:
        allowed = _OPTIONS
        if self._mode is RedisMode.SENTINEL:
            allowed |= _SENTINEL_OPTIONS
        if parts.scheme == "rediss":
            allowed |= _TLS_OPTIONS
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if not options.keys() <= allowed:
            raise self._invalid(f"it has an unknown option; known are {', '.join(sorted(allowed))}")
        return options

    def _socket(self, parts: SplitResult, hosts: str) -> str:
        if self._mode is not RedisMode.STANDALONE:
            raise self._invalid(f"unix:// is for one server, but stores.redis.mode is {self._mode}")
        if not parts.path or hosts:
            raise self._invalid("unix:// takes the path of a socket, e.g. unix:///run/redis.sock")
        return unquote(parts.path)

    def _addresses(self, hosts: str) -> tuple[Address, ...]:
        names = hosts.split(",")
        if len(names) > 1 and self._mode is RedisMode.STANDALONE:
            raise self._invalid(f"it has several hosts, but stores.redis.mode is {self._mode}")
        return tuple(self._address(name) for name in names)

    def _address(self, text: str) -> Address:
        try:
            parts = urlsplit(f"//{text}")
            host, port = parts.hostname, parts.port  # raises if the port is not a number
        except ValueError:
            raise self._invalid_address() from None
        if not host:
            raise self._invalid("it has no host")
        return Address(host, DEFAULT_PORTS[self._mode] if port is None else port)

    def _database(self, path: str, option: str | None) -> int:
        # redis-py falls back to database 0, and in the wrong database every key looks orphaned.
        if path and not _is_number(path):
            raise self._invalid("after the host comes the database number, e.g. redis://host:6379/0")
        if option is not None and not _is_number(option):
            raise self._invalid("db must be a number, e.g. ?db=0")
        database = int(option if option is not None else path or "0")
        if database and self._mode is RedisMode.CLUSTER:
            raise self._invalid("a Redis Cluster has only database 0")
        return database

    def _tls(self, options: Mapping[str, str]) -> dict[str, Any]:
        tls: dict[str, Any] = {}
        for name in sorted(_TLS_FILES & options.keys()):
            if not os.access(options[name], os.R_OK):
                raise self._invalid(f"the file in {name} does not exist or is not readable")
            tls[name] = options[name]
        reqs = options.get("ssl_cert_reqs", "required")
        check = options.get("ssl_check_hostname", "true").lower()
        if reqs not in ("none", "optional", "required") or check not in _TRUTH:
            raise self._invalid("ssl_cert_reqs must be none, optional or required; ssl_check_hostname true or false")
        # An unverified certificate does not prove the host.
        return {**tls, "ssl_cert_reqs": reqs, "ssl_check_hostname": _TRUTH[check] and reqs != "none"}

    def _invalid_address(self) -> ConfigurationError:
        return self._invalid("host and port are not readable; percent-encode special characters in the password")

    def _invalid(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"{REDIS_URL_ENV} is not a valid Redis URL: {why}; expected e.g. {_EXAMPLES[self._mode]}"
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()

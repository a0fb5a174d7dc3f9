"""An embedded Redis that speaks TLS only."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from job.demo.servers.errors import EmbeddedServerUnavailable
from job.demo.servers.process import HOST
from job.demo.servers.redis import EmbeddedRedis, server_program

_HOW_TO_GET = (
    "no Redis or Valkey server with TLS found: the wheel's has none; install one (for example apt install "
    "redis-server), or name the program in REDIS_SERVER_BIN"
)
_PROBE_SECONDS = 5


class EmbeddedTlsRedis(EmbeddedRedis):
    """A Redis without a plain port.

    Args:
        authority: Certificate of the authority (PEM) that signed the certificates of server and clients.
        certificate: Of the server.
        key: Of the certificate.
        client_certificates: Whether clients have to show one.
    """

    def __init__(self, authority: Path, certificate: Path, key: Path, *, client_certificates: bool = False) -> None:
        super().__init__(
            options={
                "tls-ca-cert-file": str(authority),
                "tls-cert-file": str(certificate),
                "tls-key-file": str(key),
                "tls-auth-clients": "yes" if client_certificates else "no",
            }
        )

    @property
    def url(self) -> str:
        """URL of database 0, without the options of TLS."""
        return f"rediss://{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        super()._prepare()
        self._program = tls_server_program()

    def _command(self, port: int) -> list[str]:
        command = super()._command(port)
        at = command.index("--port")
        return [*command[:at], "--port", "0", "--tls-port", str(port), *command[at + 2 :]]

    def _is_ready(self, port: int, pid: int) -> bool:
        del pid
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection((HOST, port), timeout=1) as plain, context.wrap_socket(plain):
                return True
        except OSError:
            return False


@cache
def tls_server_program() -> Path:
    """The first server program here that was built with TLS.

    Raises:
        EmbeddedServerUnavailable: There is none.
    """
    for program in _programs():
        if _speaks_tls(program):
            return program
    raise EmbeddedServerUnavailable(_HOW_TO_GET)


def _programs() -> Iterator[Path]:
    yield server_program()  # what REDIS_SERVER_BIN names comes first
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found)


def _speaks_tls(program: Path) -> bool:
    """Whether the server complains of a missing certificate, and not of the option."""
    with tempfile.TemporaryDirectory() as directory:
        command = [str(program), "--port", "0", "--tls-port", "1", "--dir", directory]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
    said = ended.stdout + ended.stderr
    # Redis and Valkey without TLS.
    return "Bad directive" not in said and "Failed finding TLS support" not in said

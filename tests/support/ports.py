"""Loopback ports for servers that tests start."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import count

HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)
_port_numbers = count(os.getpid() * 101)


def free_port(another: int = 0) -> int:
    """A loopback port nobody listened on a moment ago.

    It lies below those that systems give to outgoing connections: none of these can have it while its server is
    restarted. Processes begin at places of their own, so that two of them do not find the same one free.

    Args:
        another: the port so far above it is to be free as well; 0 for none.
    """
    for number in _port_numbers:
        port = _PORTS[number % len(_PORTS)]
        with suppress(OSError):
            for each in {port, port + another}:
                with socket.socket() as probe:
                    probe.bind((HOST, each))
            return port
    raise AssertionError("numbers do not end")

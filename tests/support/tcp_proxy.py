"""A network between two parties that a test can cut, freeze or refuse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar

from tests.support.patience import PATIENCE_SECONDS

_HOST = "127.0.0.1"
_CHUNK_BYTES = 65_536

T = TypeVar("T")


class TcpProxy:
    """Passes bytes on to a port of this machine. Use it as a context manager; it runs in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._frozen = False
        self._connections: dict[asyncio.Task[None], asyncio.Event] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._refuse())
        self._run(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where the API server seems to be."""
        return f"https://{_HOST}:{self.port}"

    def cut(self) -> int:
        """End all connections at once; new ones are accepted. Returns how many there were."""
        return self._run(self._cut())

    def freeze(self) -> None:
        """From now on packets are dropped: connections stay open and are silent, these and those made until `restore`.

        They stay so for ever, as when a router has forgotten them: it is for the client to notice.
        """
        self._run(self._freeze())

    def refuse(self) -> None:
        """Refuse new connections, as a machine does on which nothing listens. Those that there are stay as they are."""
        self._run(self._refuse())

    def restore(self) -> None:
        """Pass on what comes over new connections, on the same port."""
        self._run(self._restore())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=PATIENCE_SECONDS)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, _HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _freeze(self) -> None:
        self._frozen = True
        for flowing in self._connections.values():
            flowing.clear()

    async def _restore(self) -> None:
        self._frozen = False
        await self._listen()

    async def _cut(self) -> int:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        return len(connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = flowing = asyncio.Event()
        if not self._frozen:
            flowing.set()
        writers = [writer]
        try:
            with suppress(OSError):
                there, back = await asyncio.open_connection(_HOST, self._target_port)
                writers.append(back)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass(reader, back, flowing))
                    both.create_task(self._pass(there, writer, flowing))
        except (ExceptionGroup, asyncio.CancelledError):
            pass  # one end is gone, or the connection was cut: so is the other
        finally:
            for end in writers:
                end.transport.abort()
            del self._connections[task]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

"""Something that happens in the middle of a run: right before the n-th thing it sends to Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from redis.connection import AbstractConnection


class Interruptions:
    """Does what it is given, once each, before the sends of these numbers. What it sends itself does not count."""

    def __init__(self, actions: Mapping[int, Callable[[], object]]) -> None:
        self._actions = dict(actions)
        self._sent = 0
        self._busy = False

    @property
    def left(self) -> int:
        """How many have not happened."""
        return len(self._actions)

    @property
    def sent(self) -> int:
        """How many things were sent."""
        return self._sent

    def install(self, patch: pytest.MonkeyPatch) -> None:
        send: Any = AbstractConnection.send_packed_command

        def interrupted(connection: AbstractConnection, *arguments: Any, **options: Any) -> None:
            if not self._busy:
                self._sent += 1
                if action := self._actions.pop(self._sent, None):
                    self._busy = True
                    try:
                        action()
                    finally:
                        self._busy = False
            send(connection, *arguments, **options)

        patch.setattr(AbstractConnection, "send_packed_command", interrupted)

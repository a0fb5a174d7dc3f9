"""The directory that keeps the demo's stores from one demo to the next."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from job.demo.generator import LIVE_WITHIN
from stores.model.errors import ConfigurationError

# Between two demos nobody uses the sessions: after a while the live ones are idle. A demo needs a few minutes itself.
USABLE_FOR = timedelta(minutes=24) - LIVE_WITHIN
_MARKER = "session-policy-demo.json"


class DemoDirectory:
    """A directory with a file that says it is a demo's, and since when its stores are filled.

    Args:
        path: made if it does not exist.

    Raises:
        ConfigurationError: it cannot be used, or holds something else: files of others are never written over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._marker = self.path / _MARKER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self._marker.exists():
                if any(self.path.iterdir()):
                    raise ConfigurationError("--directory: it is not empty and not a demo's; choose another directory")
                self.note(None)
        except OSError as error:
            raise ConfigurationError(
                f"--directory: {error.strerror or 'cannot be used'}; choose another directory"
            ) from None

    @property
    def filled_at(self) -> datetime | None:
        """When its stores were filled; None if they are not, or not known to be."""
        try:
            return datetime.fromisoformat(json.loads(self._marker.read_text(encoding="utf-8"))["filledAt"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def note(self, filled_at: datetime | None) -> None:
        """Notes when the stores were filled; None before they are changed."""
        moment = filled_at.astimezone(UTC).isoformat() if filled_at else None
        self._marker.write_text(json.dumps({"filledAt": moment}) + "\n", encoding="utf-8")

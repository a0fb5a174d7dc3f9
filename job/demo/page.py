"""The report that the demo leaves behind: what ``session-policy report --html`` makes of its runs."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from job.reports.html_page import to_page
from job.reports.trends import read_trends
from policy.manifest import SessionPolicy
from stores.model.errors import ConfigurationError

_NAME = "session-report"
_DAYS = 1


def write_page(url: str, policy: SessionPolicy, directory: Path | None) -> Path:
    """Writes the report. Returns where.

    Args:
        url: of the statistics database.
        policy: whose report.
        directory: where to, over that of the demo before; None for a temporary file of its own, which is kept. It is
            not the current directory: nobody expects a demo to leave something there.

    Raises:
        ConfigurationError: it cannot be written there.
    """
    name = f"{policy.metadata.namespace}/{policy.metadata.name}"
    page = to_page(read_trends(url, name, _DAYS, datetime.now(UTC)))
    try:
        if directory is None:
            with tempfile.NamedTemporaryFile(
                "w", prefix=f"{_NAME}-", suffix=".html", encoding="utf-8", delete=False
            ) as file:
                file.write(page)
                return Path(file.name)
        path = directory / f"{_NAME}.html"
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the report cannot be written: {error.strerror}") from None
    return path

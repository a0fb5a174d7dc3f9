"""Exit codes of the cleanup container and of the operator; the CronJob's podFailurePolicy relies on them."""

from __future__ import annotations

from typing import Final

EXIT_DONE: Final = 0
"""Done; also when degraded, or skipped because another run holds the lock."""
EXIT_FAILED: Final = 1
"""Failed; a retry may help."""
EXIT_BAD_CONFIGURATION: Final = 2
"""Bad configuration, or a safety limit: a retry cannot help."""

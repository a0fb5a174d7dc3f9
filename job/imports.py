"""What is imported only because it is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(package: str) -> Iterator[None]:
    """Within the block the package counts as not installed, unless it is imported already.

    For libraries that import another one for a feature which nobody has switched on.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # documented: then its import fails
    try:
        yield
    finally:
        del sys.modules[package]

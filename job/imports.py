"""What imports cost: of what is imported only because it is there, and in looking for garbage where there is none."""

from __future__ import annotations

import gc
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


@contextmanager
def lasting() -> Iterator[None]:
    """What the block imports stays as long as the process, and is not searched for garbage: not now, nor later.

    Modules are most of a small run's objects. Python would look through them again and again while they are made, once
    or twice while the run works, and twice more when the process ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

"""The size of transactions, and the pauses between them. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

TARGET_SECONDS = 0.04
"""What a transaction should take: an application that needs one of its rows waits no longer than that."""

TARGET_BESIDE_OTHERS_SECONDS = 0.01
"""What it should take while others write to the server: they compete with it for the CPU and the log."""

_MANY_PER_SECOND = 10
# Fewer transactions than these may be anybody's: vacuum, a monitor, the run's own before it began to count.
_MANY_AT_ONCE = 5
_GROWS_AT_MOST = 4.0
_SHRINKS_AT_MOST = 0.25
# Less than this share of the target is so short that the clock and the round trip are most of it.
_MEASURABLE_SECONDS = TARGET_SECONDS / 100


@dataclass(frozen=True, slots=True)
class Pace:
    """How much the next transaction does.

    Attributes:
        size: how much, in whatever the work is counted in.
        least: never less.
        most: never more: whatever a transaction deletes is held in memory.
        adapts: whether the size follows the time that transactions take.
    """

    size: int
    least: int
    most: int
    adapts: bool = True

    def after(self, done: int, seconds: float, target_seconds: float = TARGET_SECONDS) -> Pace:
        """The pace after a transaction.

        Args:
            done: how much it did; less than the size where there was no more to do.
            seconds: how long it took.
            target_seconds: how long one should take.
        """
        if not self.adapts or done <= 0:
            return self
        factor = target_seconds / max(seconds, _MEASURABLE_SECONDS)
        # A small remainder says little of what a full size takes: the fixed cost of a transaction is most of it.
        if done < self.size and factor > 1:
            return self
        wanted = round(min(done, self.size) * min(max(factor, _SHRINKS_AT_MOST), _GROWS_AT_MOST))
        return replace(self, size=min(max(wanted, self.least), self.most))


def target_seconds(written: int, seconds: float) -> float:
    """How long a transaction should take, by how much others have written in some time.

    Args:
        written: in transactions or statements.
        seconds: the time.
    """
    many = written >= max(_MANY_AT_ONCE, _MANY_PER_SECOND * seconds)
    return TARGET_BESIDE_OTHERS_SECONDS if many else TARGET_SECONDS


def rest_seconds(busy_seconds: float, throttle_percent: int) -> float:
    """How long to rest after so much work, so that work takes no more than its share of the time.

    Args:
        busy_seconds: how long the work took.
        throttle_percent: the share, 1 to 100.
    """
    return busy_seconds * (100 - throttle_percent) / throttle_percent

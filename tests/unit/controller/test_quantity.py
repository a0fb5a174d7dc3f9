"""Quantities are equal when their values are."""

from __future__ import annotations

from decimal import Decimal

import pytest

from controller.settings.quantity import quantity_value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.15", "150m"),
        (1, "1000m"),
        ("1Gi", "1024Mi"),
        ("1k", "1e3"),
        ("128Mi", 128 * 1024**2),
        ("1E", "1000P"),
        ("5.", 5),
    ],
)
def test_the_same_value_written_differently_is_equal(one: str | int, other: str | int) -> None:
    assert quantity_value(one) == quantity_value(other)


def test_milli_is_not_mega() -> None:
    assert quantity_value("1m") == Decimal("0.001")
    assert quantity_value("1M") == 1_000_000


@pytest.mark.parametrize("wrong", ["", "abc", "1.2.3", "1Xi", "1e1.5", "1 Gi", "1e99999999999999999999"])
def test_what_is_no_quantity_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity_value(wrong)

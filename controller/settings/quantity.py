"""Kubernetes resource quantities, compared by value: ``0.15`` is ``150m``."""

from __future__ import annotations

import re
from decimal import Decimal

Quantity = int | str

_SUFFIXES = {
    suffix: Decimal(1000) ** power for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
}
_SUFFIXES |= {suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_FORM = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+|[A-Za-z]{0,2})")


def quantity_value(quantity: Quantity) -> Decimal:
    """The value of a quantity that the policy's schema has let through.

    Raises:
        ValueError: it is not a quantity.
    """
    form = _FORM.fullmatch(str(quantity))
    if form is None:
        raise ValueError(f"not a quantity: {quantity!r}")
    number, suffix = form.groups()
    try:
        if suffix in _SUFFIXES:
            return Decimal(number) * _SUFFIXES[suffix]
        return Decimal(number + suffix)
    except ArithmeticError as error:  # Decimal's own errors, for "1.2.3" as for numbers out of all bounds
        raise ValueError(f"not a quantity: {quantity!r}") from error

"""A package that is there may count as missing while another is imported, and no longer."""

from __future__ import annotations

import sys

import pytest

from job.imports import without


def test_a_package_counts_as_missing_only_within_the_block() -> None:
    sys.modules.pop("this", None)
    with without("this"), pytest.raises(ImportError):
        __import__("this")
    assert "this" not in sys.modules


def test_a_package_that_is_imported_already_stays() -> None:
    import json

    with without("json"):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json

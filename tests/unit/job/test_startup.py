"""A package that is installed can count as missing during an import; what is imported is not searched for garbage."""

from __future__ import annotations

import gc
import sys

import pytest

from job.startup import garbage_collection_paused, without


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


def test_what_was_imported_is_not_searched_for_garbage() -> None:
    try:
        with garbage_collection_paused():
            assert not gc.isenabled()
            made: list[list[int]] = [[] for _ in range(3)]
        assert gc.isenabled()
        searched = {id(each) for each in gc.get_objects()}
        assert not searched & {id(each) for each in made}
        later: list[list[int]] = [[]]
        assert id(later) in {id(each) for each in gc.get_objects()}
    finally:
        gc.unfreeze()


def test_garbage_is_searched_for_again_when_an_import_has_failed() -> None:
    try:
        with pytest.raises(ImportError), garbage_collection_paused():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()

"""The page of requirements names what there is, and each row has a mutation that fits the code."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from tools.mutations import ROOT, Mutation, StaleEntryError, load

MUTATIONS = load()
ROWS = {
    cells[0]: cells[2:]
    for line in (ROOT / "docs" / "reference" / "requirements.md").read_text().splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0].startswith("R") and line.startswith("|")
}


def named(cell: str) -> list[str]:
    """The paths in a cell; a name without a folder is in the folder of the one before."""
    paths: list[str] = []
    for name in re.findall(r"`([^`]+)`", cell):
        paths.append(name if "/" in name else str(PurePosixPath(paths[-1]).parent / name))
    return paths


@pytest.mark.parametrize("row", ROWS)
def test_every_file_that_a_requirement_names_is_there(row: str) -> None:
    assert [path for cell in ROWS[row] for path in named(cell) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("row", ROWS)
def test_every_requirement_has_a_mutation_and_names_the_tests_that_notice(row: str) -> None:
    modules, tests = map(named, ROWS[row])
    assert modules
    of_row = [mutation for mutation in MUTATIONS if mutation.id == row]
    assert of_row
    for mutation in of_row:
        assert all(test.startswith(tuple(tests)) for test in mutation.tests)
        assert mutation.file.startswith(tuple(modules)) or mutation.file.startswith("policy/")


def test_there_is_no_mutation_without_a_requirement() -> None:
    assert {mutation.id for mutation in MUTATIONS} == ROWS.keys()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.id}: {m.breaks}")
def test_a_mutation_fits_the_code(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    assert mutation.apply(text) != text
    names = re.findall(r"\w+", mutation.keyword)
    assert any(re.search(rf"def test_{names[0]}", (ROOT / test).read_text()) for test in mutation.tests), "no test"


def test_a_mutation_that_fits_nowhere_or_twice_is_refused() -> None:
    mutation = Mutation("R0", "", "x.py", "a", "b", ["t.py"], "t")
    for text in ("", "aa"):
        with pytest.raises(StaleEntryError, match=r"R0: x\.py"):
            mutation.apply(text)

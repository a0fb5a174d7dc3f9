"""Breaks the code of each requirement on purpose, and says whether the tests that are named for it notice.

``python -m tools.mutations [ID ...]`` takes the entries of ``mutations.toml``, all or those of some requirements. For
each it changes one place in a copy of the working tree and runs the entry's tests there. They have to fail, and the
test that failed has to pass once the place is put back. Exit code 1 if a mutation went unnoticed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# As `make test` does: what only `make test-all` would notice is noticed late.
_QUICK = ["-m", "not exhaustive", "--hypothesis-profile=few"]
_IGNORED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__")
_PASSED, _FAILED = 0, 1
_FAILURE = re.compile(r"^(?:FAILED|ERROR) (tests/\S+?\.py::.+?)(?: - .*)?$", re.MULTILINE)


class StaleEntryError(Exception):
    """An entry does not fit the code or the tests any more."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A change that breaks a requirement, and the tests that have to notice.

    Attributes:
        id: of the requirement, as in docs/reference/requirements.md.
        breaks: what is wrong with the code after the change.
        file: where the change is made.
        old, new: the text to replace, which occurs once in the file, and what replaces it.
        tests, keyword: the files with the tests, and what selects them there, as ``pytest -k`` does.
    """

    id: str
    breaks: str
    file: str
    old: str
    new: str
    tests: Sequence[str]
    keyword: str

    def apply(self, text: str) -> str:
        """The text of the file with the change. Raises StaleEntryError if there is no place for it, or several."""
        if (found := text.count(self.old)) != 1:
            raise StaleEntryError(f"{self.id}: {self.file} has {found} times, not once: {self.old}")
        return text.replace(self.old, self.new)


def load() -> list[Mutation]:
    """The entries of the table, in their order."""
    return [Mutation(**entry) for entry in tomllib.loads((ROOT / "tools/mutations.toml").read_text())["mutation"]]


def check(mutation: Mutation, tree: Path) -> str:
    """Makes the change in a copy of the tree, runs the tests, and puts the place back.

    Returns the first test that noticed; empty if none did. Raises StaleEntryError if the entry does not fit the code,
    or its tests cannot tell: none are selected, they cannot be collected, or they fail without the change, too.
    """
    file = tree / mutation.file
    original = file.read_text()
    file.write_text(mutation.apply(original))
    try:
        code, output = _pytest(tree, *_QUICK, *mutation.tests, "-k", mutation.keyword)
    finally:
        file.write_text(original)
    if code == _PASSED:
        return ""
    failure = _FAILURE.search(output)
    if code != _FAILED or failure is None:
        raise StaleEntryError(f"pytest ended with {code}: {output[-500:]}")
    code, output = _pytest(tree, failure[1])
    if code != _PASSED:
        raise StaleEntryError(f"{failure[1]} fails without the change, too: {output[-500:]}")
    return failure[1]


def _pytest(tree: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    env = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "1000"}  # so that no line of the summary is cut
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False, timeout=600)
    return done.returncode, done.stdout + done.stderr


def main(ids: Sequence[str]) -> int:
    """Checks the mutations of these requirements, or all. Returns the exit code."""
    chosen = [mutation for mutation in load() if not ids or mutation.id in ids]
    noticed = 0
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory, "tree")
        shutil.copytree(ROOT, tree, ignore=_IGNORED)
        for mutation in chosen:
            begun = time.monotonic()
            try:
                test = check(mutation, tree)
                verdict = f"noticed by {test}" if test else "NOT NOTICED"
                noticed += bool(test)
            except (StaleEntryError, subprocess.TimeoutExpired) as error:
                verdict = f"ERROR: {error}"
            print(f"{mutation.id}: {mutation.breaks}: {verdict} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{noticed} of {len(chosen)} mutations were noticed")
    return 0 if chosen and noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

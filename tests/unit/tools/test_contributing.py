"""The checklists of CONTRIBUTING are true: followed in a copy of the project, by the files they list and no other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

Edit = Callable[[str], str]


def after(anchor: str, addition: str) -> Edit:
    """Inserts a text behind the last line that begins with the anchor."""

    def edit(text: str) -> str:
        lines = text.splitlines(keepends=True)
        last = max(n for n, line in enumerate(lines) if line.startswith(anchor))
        return "".join([*lines[: last + 1], addition, *lines[last + 1 :]])

    return edit


def before(anchor: str, addition: str) -> Edit:
    """Inserts a text before an anchor that occurs once."""

    def edit(text: str) -> str:
        assert text.count(anchor) == 1
        return text.replace(anchor, addition + anchor)

    return edit


def at_end(addition: str) -> Edit:
    """Appends a text."""
    return lambda text: text.rstrip("\n") + "\n" + addition


RULE: dict[str, Edit] = {
    "policy/rules.py": before(
        "\n    meaning: str\n", '    NIGHTLY = "Nightly", "has count as its whole id", {"count": 7}\n'
    ),
    "stores/rules/nightly.py": at_end(
        '"""Nightly: a session whose id is a number."""\n\n'
        "from __future__ import annotations\n\n"
        "from datetime import datetime\n\n"
        "import sqlalchemy as sa\n\n"
        "from stores.rules.details import SessionDetails\n"
        "from stores.rules.detector import Detector, SessionColumns\n\n\n"
        "class Nightly(Detector):\n"
        '    """Finds sessions whose id is ``count``."""\n\n'
        "    def sql_condition(self, columns: SessionColumns, now: datetime) -> sa.ColumnElement[bool]:\n"
        '        """Whether the row may be one."""\n'
        "        return columns.id_length == 1\n\n"
        "    def matches(self, details: SessionDetails, now: datetime) -> bool:\n"
        '        """Whether its id is the number."""\n'
        '        return details.session.key == str(self.numbers["count"])\n'
    ),
    "docs/how-to/rules.md": after("| `", "| `Nightly` | has `count` as its whole id | |\n"),
    "docs/runbooks/Nightly.md": lambda _: (
        (ROOT / "docs/runbooks/LongRunning.md")
        .read_text()
        .replace("LongRunning", "Nightly")
        .replace("Sessions go on abnormally long.", "Sessions have a number for an id.")
    ),
    "docs/runbooks/README.md": after(
        "| [Ownerless]", "| [Nightly](Nightly.md) | Sessions have a number for an id. |\n"
    ),
    "tests/unit/stores/test_rules_judges.py": at_end(
        "\n\ndef test_nightly() -> None:\n"
        '    assert applies("Nightly", SessionDetails(Session(id="3")), count=3)\n'
        '    assert not applies("Nightly", SessionDetails(Session(id="4")), count=3)\n'
    ),
}

PRESET: dict[str, Edit] = {
    "policy/presets/database.py": before(
        "\n    table: SessionTable\n",
        "    SHOP = (\n"
        '        "Shop",\n'
        "        SessionTable(\n"
        "            schema=None,\n"
        '            name="shop_session",\n'
        '            columns=Columns(id=Column(name="sid"), expires_at=TimeColumn(name="ends_at")),\n'
        "        ),\n"
        "    )\n",
    ),
    "docs/how-to/known-applications.md": after("| `Supabase`", "| `Shop` | `shop_session` | at `ends_at` | |\n"),
    "tests/stores/test_presets.py": at_end(
        "\n\ndef test_shop() -> None:\n    from policy.presets import DatabasePreset\n\n"
        '    assert DatabasePreset("Shop").table.name == "shop_session"\n'
    ),
}

METRIC: dict[str, Edit] = {
    "controller/metrics/policy_metric_families.py": before(
        '    MetricFamily("dry_run",',
        '    MetricFamily("batch_size", "Sessions per transaction.", '
        "_spec(lambda spec: float(spec.cleanup_batch_size))),\n",
    ),
    "docs/reference/metrics.md": before(
        "| `session_policy_dry_run` |", "| `session_policy_batch_size` | gauge |  | Sessions per transaction. |\n"
    ),
    "tests/unit/controller/test_policy_metrics.py": before('        "dry_run": 0,\n', '        "batch_size": 1000,\n'),
}

# What notices that something is missing, and the tests that the checklists ask for.
RULE_TESTS = (
    "tests/unit/policy",
    "tests/unit/stores/test_rules_one_module.py",
    "tests/unit/stores/test_rules_judges.py",
    "tests/unit/chart/test_resource_definitions.py",
)
PRESET_TESTS = ("tests/unit/policy", "tests/stores/test_presets.py::test_shop")
METRIC_TESTS = ("tests/unit/controller/test_policy_metrics.py",)


def listed(heading: str) -> list[str]:
    """The files that a checklist names, in its order."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split(f"### … {heading}\n")[1].split("\n### ")[0]
    items = [line.split(":")[0] for line in section.splitlines() if line.startswith("- ")]
    return [path for item in items for path in re.findall(r"`([^`]+)`", item)]


def copy_of_the_project(directory: Path) -> Path:
    """The tracked files, with the environment of this checkout beside them."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (source := ROOT / name).is_file():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (directory / ".venv").symlink_to(Path(sys.executable).parents[1])
    return directory


def run_in(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # The console scripts of the environment would find the packages of this checkout.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.exhaustive
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: which files belong to it is not known")
@pytest.mark.parametrize(
    ("heading", "edits", "tests"),
    [
        ("a rule", RULE, RULE_TESTS),
        ("a database preset", PRESET, PRESET_TESTS),
        ("a metric of policies", METRIC, METRIC_TESTS),
    ],
    ids=["rule", "preset", "metric"],
)
def test_a_checklist_names_all_that_has_to_change(
    heading: str, edits: dict[str, Edit], tests: tuple[str, ...], tmp_path: Path
) -> None:
    wanted = [path.replace("<rule>", "nightly").replace("<Rule>", "Nightly") for path in listed(heading)]
    assert wanted == list(edits)
    project = copy_of_the_project(tmp_path / "project")
    for path, edit in edits.items():
        file = project / path
        file.write_text(edit(file.read_text() if file.exists() else ""))
    made = run_in(project, "make", "-o", ".venv/.installed", "crds")
    assert made.returncode == 0, made.stdout + made.stderr
    ran = run_in(project, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "path", sorted({p for h in ("a Redis preset", "an alert of a run", "a database") for p in listed(h)})
)
def test_the_files_of_the_other_checklists_exist(path: str) -> None:
    if "<" not in path:
        assert (ROOT / path.removesuffix("/")).exists()

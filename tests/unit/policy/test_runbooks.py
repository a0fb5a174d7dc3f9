"""Every alert has its page, every page its alert, and what pages say can be followed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from policy.alerts import RUNBOOKS, runbook_link
from policy.reasons import ALERTS
from tests.unit.chart.test_monitoring import alerts

ROOT = Path(__file__).parents[3]
FOLDER = (ROOT / RUNBOOKS).parent
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "README.md")
RULES = {rule["alert"] for rule in alerts()}


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert len(RULES) > 15
    assert not RULES & ALERTS
    assert {page.stem for page in PAGES} == RULES | ALERTS
    assert all((ROOT / runbook_link(alert)).is_file() for alert in RULES | ALERTS)


def test_the_index_leads_to_every_page() -> None:
    rules, _, runs = (FOLDER / "README.md").read_text().partition("## Alerts of a run")
    linked = re.compile(r"^\| \[(\w+)\]\(\1\.md\) \| .+ \|$", re.MULTILINE)
    assert set(linked.findall(rules)) == RULES
    assert set(linked.findall(runs)) == ALERTS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_it_means_how_to_look_and_what_to_do(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == ["What it means", "How to look", "What to do"]
    assert sections["What it means"].strip()
    assert re.search(r"^- ", sections["What to do"], re.MULTILINE)
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", sections["How to look"], re.MULTILINE | re.DOTALL)
    checked = subprocess.run(["sh", "-n", "-c", commands], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    # Each variable that a command asks for is said beforehand, but for those that hold credentials.
    assert set(re.findall(r"\$([A-Z]\w*)", commands)) - {"REDIS_URL"} == set(re.findall(r"\b([A-Z]+)=", commands))


@pytest.mark.parametrize("page", [FOLDER / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target

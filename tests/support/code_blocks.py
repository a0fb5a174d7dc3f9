"""The examples in a page of the documentation, so that tests can try them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


def yaml_examples(page: Path) -> list[Any]:
    """The YAML documents of a Markdown page, in order."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(block) for block in blocks]

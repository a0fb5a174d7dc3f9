"""The picture of the plan is what the import contracts say."""

from __future__ import annotations

from tools.pictures.plan import PICTURE, draw, layers


def test_the_picture_of_the_plan_is_drawn_from_the_import_contracts() -> None:
    assert PICTURE.read_text() == draw(), "run: python -m tools.pictures.plan"
    assert layers("stores") and layers("job") and layers("controller")

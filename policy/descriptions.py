"""Field descriptions of the models, read on demand from the docstrings below the fields.

Pydantic can do that as well, but does it whenever a model is imported: a quarter of what it takes to import the spec.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise

from policy.model import Model


@cache
def descriptions(model: type[Model]) -> dict[str, str]:
    """The meaning of each field that has one, by the field's name in Python."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, Model):
            found |= _of_one(each)
    return {name: text for name, text in found.items() if name in model.model_fields}


def _of_one(model: type[Model]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text)
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        for text in _texts(below)
    }


def _texts(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return [text]
    return []

"""A database is one package of stores.sql.dialects and one line in its table: no other module knows one by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stores.sql.connection.connect import create_engine, parse_url
from stores.sql.dialects import Dialect, dialects

ROOT = Path(__file__).parents[3]
DIALECTS = ROOT / "stores/sql/dialects"
# Folders or files, and why a name may stand there.
EXEMPT = {
    **{f"stores/sql/dialects/{folder.parent.name}/": "the package" for folder in DIALECTS.glob("*/__init__.py")},
    "stores/sql/dialects/__init__.py": "the table of the packages",
    "stores/sql/schema/": "the product's own tables: their types differ by database",
    "stores/sql/connection/connect.py": "an example of a URL, in a message",
    "job/cli/": "an example of a URL, and what the demo starts, in help texts",
    "job/demo/": "starts a server of its own, and fills it",
    "job/workers/leader.py": "a message that says which databases can be shared",
}
NAME = re.compile(r"postgres|psycopg|mysql|mariadb|innodb|sqlite", re.IGNORECASE)


def product_files() -> Iterator[Path]:
    for package in ("stores", "job"):
        yield from (ROOT / package).rglob("*.py")


def words_of(path: Path) -> Iterator[str]:
    """The names and texts of a module's code, without docstrings and comments."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield text
            case ast.Name(id=name) | ast.alias(name=name) | ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.ImportFrom(module=str(module)):
                yield module


def test_no_module_but_the_package_of_a_database_names_it() -> None:
    found = {
        f"{where}: {word!r}"
        for path in product_files()
        if not (where := path.relative_to(ROOT).as_posix()).startswith(tuple(EXEMPT))
        for word in words_of(path)
        if NAME.search(word)
    }
    assert sorted(found) == []


def test_whatever_is_exempt_has_such_a_name() -> None:
    """An exemption that nothing needs any more would hide the next leak."""
    named = {p.relative_to(ROOT).as_posix() for p in product_files() if any(map(NAME.search, words_of(p)))}
    assert [where for where in EXEMPT if not any(path.startswith(where) for path in named)] == []


def test_every_package_is_in_the_table() -> None:
    packages = {folder.parent.name for folder in DIALECTS.glob("*/__init__.py")}
    assert {type(dialect).__module__.split(".")[-2] for dialect in dialects()} == packages
    assert all(isinstance(dialect, Dialect) for dialect in dialects())


@pytest.mark.parametrize("dialect", dialects(), ids=lambda dialect: dialect.name)
def test_every_url_of_a_database_leads_to_its_dialect_and_to_no_other(dialect: Dialect) -> None:
    for name in dialect.drivers:
        url = parse_url(f"{name}://user:password@host/database" if name.partition("+")[0] != "sqlite" else f"{name}://")
        assert url.drivername == dialect.drivers[name]
        engine = create_engine(url)
        assert engine.dialect.name in dialect.names
        assert [other for other in dialects() if engine.dialect.name in other.names] == [dialect]
        engine.dispose()

"""Clients are sorted into few kinds, alike in Python and in SQL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.rules.clients import FAMILIES, OTHER, UNKNOWN, family, signature

KINDS = {kind for kind, _ in FAMILIES} | {OTHER, UNKNOWN}


@pytest.mark.parametrize(
    ("client", "kind"),
    [
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120 Safari/537.36", "Chrome"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120 Safari/537.36 Edg/120.0", "Edge"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit Version/17.0 Safari/604.1", "Safari"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0", "Firefox"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1)", "Bot"),
        ("okhttp/4.12", "Mobile app"),
        ("curl/8.5", "Program"),
        ("till 7", OTHER),
        ("", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_r2_3_kinds_of_clients(client: str | None, kind: str) -> None:
    assert family(client) == kind


@given(st.text())
def test_r2_3_there_are_few_kinds(client: str) -> None:
    assert family(client) in KINDS
    assert all(len(kind) <= 32 for kind in KINDS)


@given(st.text())
def test_a_client_is_itself(client: str) -> None:
    assert signature(client) == signature(client)

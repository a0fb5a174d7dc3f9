"""R3.4: ids as columns keep them and Redis spells them; zones as policies and databases name them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql

from stores.model.time_encoding import zone_of
from stores.sql.mapping.ids import TextInBytes, UuidInBytes, id_type

DIALECT = mysql.dialect()


@given(st.binary(max_size=40))
@example(b"\\xff")
@example(b"\xff")
def test_bytes_are_spelt_so_that_no_two_are_alike_and_none_is_lost(stored: bytes) -> None:
    column = TextInBytes()
    spelt = column.process_result_value(stored, DIALECT)
    assert spelt is not None
    spelt.encode()  # Redis and logs take it
    assert column.process_bind_param(spelt, DIALECT) == stored


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_text_in_bytes_is_spelt_as_it_is_unless_it_looks_like_bytes(text: str) -> None:
    if not text.startswith("\\x"):
        assert TextInBytes().process_result_value(text.encode(), DIALECT) == text


@given(st.uuids())
def test_a_uuid_is_the_same_however_redis_spells_it(value: uuid.UUID) -> None:
    for kind in (sa.Uuid(), sa.BINARY(16)):
        parse = id_type(kind).parse
        assert parse(str(value)) == parse(str(value).upper()) == parse(value.hex) == value
        assert parse("no uuid") is None
    column = UuidInBytes()
    assert column.process_result_value(column.process_bind_param(value, DIALECT), DIALECT) == value


@pytest.mark.parametrize("key", ["", "x", "1.5", str(2**64), "-", "1e3"])
def test_what_a_column_of_numbers_cannot_hold_has_no_row(key: str) -> None:
    assert id_type(sa.BigInteger()).parse(key) is None


@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
def test_what_no_text_column_can_hold_has_no_row(key: str) -> None:
    assert id_type(sa.String()).parse(key) is None


def test_zones_by_name_and_by_offset() -> None:
    assert zone_of("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    assert zone_of("-09:30") == timezone(-timedelta(hours=9, minutes=30))
    assert datetime(2026, 1, 1, tzinfo=zone_of("+05:45")).astimezone(UTC).hour == 18


@pytest.mark.parametrize("name", ["", "Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "+5", "CEST", "Europe"])
def test_names_that_are_no_zone_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        zone_of(name)

"""The database user that docs/explanation/security.md recommends: enough for a run, and for no other table."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from tests.support.runs import policy, run
from tests.support.session_stores import HOUR, SessionStores

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"


def test_the_documented_grants_suffice_for_a_run_and_open_no_other_table(own_postgres_url: str) -> None:
    (statements,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    stores = SessionStores(own_postgres_url)
    stores.add("expired", used=HOUR)
    stores.add("live", used=0)
    stores.sql(
        "CREATE TABLE orders (session_id text PRIMARY KEY, last_accessed_at timestamptz)",
        "INSERT INTO orders VALUES ('old', '2020-01-01')",
    )
    stores.sql("DROP ROLE IF EXISTS session_cleanup")
    stores.sql(*(part for part in re.sub(r"--.*", "", statements).split(";") if part.strip()))
    url = sa.make_url(own_postgres_url).set(username="session_cleanup").render_as_string(hide_password=False)

    cleaned = run(policy(), url)
    assert (cleaned.exit_code, cleaned.deleted) == (0, 1), cleaned
    assert stores.ids() == {"live"}
    assert len(stores.statistics()) == 1
    assert not cleaned.log.named("statistics disabled")

    columns = {"id": {"name": "session_id"}, "lastAccessedAt": {"name": "last_accessed_at"}}
    other = run(policy(table={"name": "orders", "columns": columns}), url)
    assert other.exit_code == 2
    assert "privilege" in other.report.message
    stores.sql("DROP OWNED BY session_cleanup", "DROP ROLE session_cleanup")
    stores.close()

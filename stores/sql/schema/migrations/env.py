"""Runs the revisions on the connection that :mod:`stores.sql.schema.upgrade` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from stores.sql.schema.version import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()

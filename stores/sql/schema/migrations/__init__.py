"""Alembic's migrations of the product's own tables; :mod:`stores.sql.schema.upgrade` runs them.

A change of ``tables.py`` comes with a revision in ``versions`` that makes the same change to tables with data in them.
Its number becomes ``CURRENT_VERSION``. A revision alters tables only, and skips those that do not exist: ``init``
creates them after the last revision, as ``tables.py`` defines them. MySQL commits each DDL statement by itself, so a
revision must be able to run again after it was interrupted.
"""

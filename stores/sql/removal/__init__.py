"""Deleting sessions from a SQL table in short transactions."""

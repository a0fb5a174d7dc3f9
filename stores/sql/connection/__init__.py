"""Connections to the database, and the errors of its driver."""

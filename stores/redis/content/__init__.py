"""Reads session content and access logs from Redis."""

"""Connections to Redis: URL parsing, TLS, Sentinel, Cluster, Lua scripts, retries and error translation."""

"""Real PostgreSQL and Valkey servers on this machine, without root, Docker or configuration.

For the demo and for tests only: the servers listen on the loopback address, ask for no password and end with the
process that started them. Never import this from code that cleans up somebody's stores.
"""

from job.demo.servers.errors import EmbeddedServerError, EmbeddedServerUnavailable
from job.demo.servers.postgres import EmbeddedPostgres
from job.demo.servers.redis import EmbeddedRedis

__all__ = [
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "EmbeddedServerError",
    "EmbeddedServerUnavailable",
]

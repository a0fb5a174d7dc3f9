"""Real PostgreSQL, MariaDB and Redis servers on this machine, without root, Docker or configuration.

For the demo and for tests only: the servers listen on the loopback address, ask for no password and die with
the process that started them. Never import this from code that cleans somebody's stores.
"""

from job.embedded.errors import EmbeddedServerError, EmbeddedServerUnavailable
from job.embedded.mariadb import EmbeddedMariaDB
from job.embedded.postgres import EmbeddedPostgres
from job.embedded.redis import EmbeddedRedis

__all__ = [
    "EmbeddedMariaDB",
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "EmbeddedServerError",
    "EmbeddedServerUnavailable",
]

"""Sessions of policies without a database: Redis is the only store."""

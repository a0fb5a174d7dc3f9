"""R2.8: making Redis and the database agree."""

"""Sessions in SQL databases and Redis: found, read, judged and deleted safely."""

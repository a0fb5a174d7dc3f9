"""The demo: a shop's 20,000 sessions in an embedded PostgreSQL and Redis, and what a policy makes of them."""

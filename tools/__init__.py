"""Build tools that the Makefile calls."""

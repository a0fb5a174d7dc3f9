"""The cleanup container and the ``session-policy`` command line: one run of one policy."""

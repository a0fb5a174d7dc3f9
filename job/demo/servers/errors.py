"""What can go wrong with an embedded server."""


class EmbeddedServerError(Exception):
    """An embedded server did not start, or did not do what it was told; the message holds its last words."""


class EmbeddedServerUnavailable(EmbeddedServerError):
    """No program for this server was found, or it may not run here; the message says what to do."""

"""What can go wrong with an embedded server."""


class EmbeddedServerError(Exception):
    """An embedded server did not start, or ended; the message has the last lines that it logged."""


class EmbeddedServerUnavailable(EmbeddedServerError):
    """No program for this server was found, or it may not run here; the message says what to do."""

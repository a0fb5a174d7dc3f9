"""From a database URL to the connection that a run works on."""

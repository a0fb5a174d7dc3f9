"""The status and the Events of a policy."""

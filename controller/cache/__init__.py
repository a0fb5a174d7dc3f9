"""The last seen state of every watched object."""

"""The controller's configuration, read from environment variables."""

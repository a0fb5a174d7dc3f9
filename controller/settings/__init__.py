"""The controller's configuration, and what it lets policies ask for."""

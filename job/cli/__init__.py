"""The command line ``session-policy``: one module per command. Commands import what only they need when they run."""

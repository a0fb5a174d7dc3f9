"""Several processes that share the deletion of expired sessions: the leader runs everything else and reports."""

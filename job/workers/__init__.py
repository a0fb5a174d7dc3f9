"""Several processes that share the deletion of expired sessions: one leads and reports, the others help."""

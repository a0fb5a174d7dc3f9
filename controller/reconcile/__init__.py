"""The reconciliation of a SessionPolicy."""

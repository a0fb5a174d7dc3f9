"""The reconciliation of a SessionRevocation: its Job and its status."""

"""SessionRevocations: their Job and their status."""

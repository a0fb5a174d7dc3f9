"""The trace and the metrics of a run."""

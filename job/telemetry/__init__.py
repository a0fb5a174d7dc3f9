"""OpenTelemetry trace and metrics of a run."""

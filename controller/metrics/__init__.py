"""Prometheus metrics of the controller and of policies."""

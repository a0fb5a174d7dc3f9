"""Traces of the controller."""

"""Runs observed: from Jobs and Pods to outcomes."""

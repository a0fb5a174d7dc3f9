"""The Kubernetes API as far as the controller uses it."""

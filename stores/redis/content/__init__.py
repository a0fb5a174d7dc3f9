"""What the content of session keys and access logs says."""

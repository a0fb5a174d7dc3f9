"""The product's own tables."""

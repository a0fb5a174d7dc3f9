"""Pure builders of the manifests that the controller applies."""

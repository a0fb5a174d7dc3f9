"""The manifests that the controller applies: pure builders."""

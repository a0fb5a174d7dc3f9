"""The product's own tables: their definitions, their version, and the migrations from one version to the next."""

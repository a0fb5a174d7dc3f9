"""``make bench``: what the project costs, measured. Figures are only worth comparing within one run."""

"""Reports of runs and trends: at a terminal and as HTML."""

"""Reports for people: the table of a run, and statistics and trends of past runs as text or HTML."""

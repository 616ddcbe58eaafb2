"""Reports of runs, and the pages of results."""

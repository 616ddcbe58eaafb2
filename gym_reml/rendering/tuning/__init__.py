"""Images and texts of runs of training whose dials an agent sets."""

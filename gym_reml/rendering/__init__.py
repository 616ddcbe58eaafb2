"""Images and texts of episodes and trials, from plain arrays."""

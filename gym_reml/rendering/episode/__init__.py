"""Images and texts of an episode of building and training a network."""

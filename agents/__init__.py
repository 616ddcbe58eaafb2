"""Meta-learners: recipes run from a checkout, one a file."""

"""One small program for each reinforcement-learning library: `python -m agents.libraries` runs them all."""

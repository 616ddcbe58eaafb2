"""Families of reinforcement-learning tasks, whose networks are policies."""

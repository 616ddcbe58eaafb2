"""Policies for bandits and tabular tasks that need no training."""

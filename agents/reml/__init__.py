"""Reinforcement Meta-Learning: an agent, and the pool that it learns on."""

"""Environments whose agent sets the dials of networks under training."""

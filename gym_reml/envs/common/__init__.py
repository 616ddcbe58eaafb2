"""Shared by all environments: Gymnasium's interfaces over a process of n rows."""

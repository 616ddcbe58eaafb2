"""Pools made before any agent starts."""

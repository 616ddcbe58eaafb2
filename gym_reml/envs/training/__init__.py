"""Shared by `NetBuild` and other environments that build and train networks."""

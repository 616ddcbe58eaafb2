"""Families of images in classes."""

"""Families of functions of one variable: a base, and one family a file."""

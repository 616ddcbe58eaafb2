"""A trial of several inner episodes on one task, drawn and written."""

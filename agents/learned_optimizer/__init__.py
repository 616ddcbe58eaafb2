"""Learned optimizers: update rules that are networks, meta-trained by truncated backpropagation."""

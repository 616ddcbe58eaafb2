"""Data sets on which children are trained by minibatches, and distributions of them."""

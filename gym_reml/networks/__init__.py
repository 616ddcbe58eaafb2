"""Computation of n networks at once: weights, dense layers with hand-written gradients, buffers."""

"""How n networks compute, side by side: weights, dense layers with gradients by hand, buffers."""

"""What networks are made from: the pool of layers, where it comes from, the networks that grow from it."""

from gym_reml.pool.layer_pool import LayerPool

__all__ = ["LayerPool"]

"""The pool of layers, its sources, and the sub-networks built from it."""

from gym_reml.pool.layer_pool import LayerPool

__all__ = ["LayerPool"]

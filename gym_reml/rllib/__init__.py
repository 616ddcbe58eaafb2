"""RLlib: one pool for all env runners of an algorithm, which learns from the episodes of all of them.

Needs RLlib: `pip install "ray[rllib]"`.
"""

try:
    import ray.rllib  # noqa: F401
except ImportError as error:
    raise ImportError('gym_reml.rllib needs RLlib: pip install "ray[rllib]"') from error

from gym_reml.rllib.algorithm import share_pool
from gym_reml.rllib.callbacks import SharedPoolCallback
from gym_reml.rllib.handle import SharedPool

__all__ = ["SharedPool", "SharedPoolCallback", "share_pool"]

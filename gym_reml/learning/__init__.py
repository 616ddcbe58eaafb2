"""Updates of the pool from finished episodes."""

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.options import RULES, LearningOptions
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.learning.replay import replay
from gym_reml.learning.server import DeliveringLearner, Delivery, PoolServer

__all__ = [
    "RULES",
    "DeliveringLearner",
    "Delivery",
    "Episodes",
    "LearningOptions",
    "PoolLearner",
    "PoolServer",
    "replay",
]

"""Updates of the pool from finished episodes."""

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.options import RULES, LearningOptions
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.learning.replay import replay

__all__ = ["RULES", "Episodes", "LearningOptions", "PoolLearner", "replay"]

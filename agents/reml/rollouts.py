"""What lies under the wrappers of an agent's environment."""

from __future__ import annotations

from stable_baselines3.common.vec_env import VecNormalize

from gym_reml.envs.training.envs import TrainingVectorEnv
from gym_reml.learning import PoolLearner


def native(env: VecNormalize) -> TrainingVectorEnv:
    """The native vector environment under SB3's wrappers."""
    inner = env.unwrapped.env  # type: ignore[attr-defined]
    assert isinstance(inner, TrainingVectorEnv)
    return inner


def pool_learner(env: VecNormalize) -> PoolLearner:
    """What changes the pool inside that environment."""
    learner = native(env).mdp.learner
    assert learner is not None
    return learner

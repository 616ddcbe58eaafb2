"""A config whose env runners share one pool."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils import force_list
from ray.tune.registry import get_trainable_cls

from gym_reml.learning import PoolLearner
from gym_reml.rllib.callbacks import SharedPoolCallback, connect
from gym_reml.rllib.handle import SharedPool

COMPONENT = "shared_pool"


class SharingAlgorithm(Algorithm):
    """Base, beside RLlib's own class, of algorithms whose env runners share one pool: checkpoints hold it.

    Attributes:
        shared_pool: the pool.
    """

    shared_pool: SharedPool

    def start_shared_pool(self, learner: PoolLearner) -> None:
        """Starts the server of the pool, whose folder is in the log directory."""
        self.shared_pool = SharedPool(learner, self.logdir)

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """RLlib's own, and the pool."""
        return [*super().get_checkpointable_components(), (COMPONENT, self.shared_pool)]

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """RLlib's own, and the pool's."""
        state: dict[str, Any] = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(COMPONENT, components, not_components):
            state[COMPONENT] = self.shared_pool.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """RLlib's own, and the pool's."""
        super().set_state(state)
        if COMPONENT in state:
            self.shared_pool.set_state(state[COMPONENT])
            connect(self.env_runner_group, self.shared_pool)

    def restore_from_path(self, path: Any, *arguments: Any, **named: Any) -> None:
        """RLlib's own, and all env runners take the weights of the pool."""
        super().restore_from_path(path, *arguments, **named)
        connect(self.env_runner_group, self.shared_pool)

    def cleanup(self) -> None:
        """Ends the env runners, then the pool's server."""
        super().cleanup()
        if hasattr(self, COMPONENT):
            self.shared_pool.stop()


def share_pool(config: AlgorithmConfig) -> AlgorithmConfig:
    """Changes a config so that all env runners build networks from one pool, which learns from the episodes of all.

    Args:
        config: of any algorithm, on RLlib's new API stack; its environment is an id of one that builds networks, such
            as "NetBuild-v0", with `learn` (and `learn_kwargs`) in its `env_config`.

    Returns:
        The same config, with native vector environments, `SharedPoolCallback` before other callbacks, and an algorithm
        class whose checkpoints hold the pool (with Ray Tune, give `config.algo_class` to the tuner).

    Raises:
        ValueError: an environment without `learn`, or RLlib's old API stack.
    """
    if config.env_config.get("learn") is None:
        raise ValueError(f"config: env_config={config.env_config!r} has no learn=, so there is no pool to share")
    if not config.enable_env_runner_and_connector_v2:
        raise ValueError("config: the shared pool needs RLlib's new API stack")
    base = config.algo_class
    base = get_trainable_cls(base) if isinstance(base, str) else base
    config.algo_class = type(f"SharedPool{base.__name__}", (SharingAlgorithm, base), {})
    config.env_runners(gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT)
    return config.callbacks([SharedPoolCallback, *force_list(config.callbacks_class)])

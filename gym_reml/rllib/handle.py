"""The shared pool as its algorithm sees it: an actor, and a component of checkpoints."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ray
import torch
from ray.rllib.utils.checkpoints import Checkpointable
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gym_reml.learning import PoolLearner, PoolServer
from gym_reml.pool.layer_pool import LayerPool

NAME = "gym_reml.shared_pool"


class PoolActor(PoolServer):
    """A `PoolServer` in a process of its own, on one core."""

    def __init__(self, *arguments: Any) -> None:
        """As `PoolServer`."""
        torch.set_num_threads(1)
        super().__init__(*arguments)


class SharedPool(Checkpointable):
    """A `PoolServer` in a named actor of the cluster, on the machine of the algorithm.

    The actor is restarted if its process dies, and continues from its folder; calls that were lost are repeated.

    Attributes:
        name: of the actor.
        server: the actor, with the methods of `PoolServer`.
        folder: where it keeps its state, on the machine of the algorithm.
        counts: "updates", "used", "dropped" and "stale" of its learner, by the last round.
    """

    def __init__(self, learner: PoolLearner, logdir: str | Path) -> None:
        """Starts an actor with a copy of this learner's pool, its rule and its options.

        Args:
            learner: of any env runner, on the CPU, where the actor computes.
            logdir: folder of the algorithm, in which the actor makes its own.
        """
        self.name = f"{NAME}-{uuid.uuid4().hex}"
        self.folder, self.counts = Path(logdir) / self.name, dict[str, int]()
        # Kept: the actor is made from them again when its process dies.
        self._arguments = [ray.put(part) for part in (learner.pool, learner.family, learner.rule, learner.options)]
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.server: Any = (
            ray.remote(PoolActor)
            .options(name=self.name, num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            .remote(*self._arguments, self.folder)
        )

    def learn(self) -> None:
        """See `PoolServer.learn`."""
        self.counts = ray.get(self.server.learn.remote())["counts"]

    def pool(self) -> LayerPool:
        """A copy of the pool, for pools without modules of the user's own."""
        return LayerPool.from_state(ray.get(self.server.weights.remote())["pool"])

    def stop(self) -> None:
        """Ends the actor and removes its folder."""
        ray.kill(self.server)
        shutil.rmtree(self.folder, ignore_errors=True)

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """See `PoolServer.state`."""
        state: dict[str, Any] = ray.get(self.server.state.remote())
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """See `PoolServer.load_state`."""
        self.counts = ray.get(self.server.load_state.remote(state))["counts"]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Nothing: it is made by its algorithm."""
        return (), {}

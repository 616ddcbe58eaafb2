"""What env runners and their algorithm do for a shared pool."""

from __future__ import annotations

from functools import partial
from typing import Any

import ray
from ray.rllib.callbacks.callbacks import RLlibCallback

from gym_reml.envs.training.envs import TrainingVectorEnv
from gym_reml.learning import DeliveringLearner, Delivery, PoolLearner
from gym_reml.mdp.training import TrainingMDP
from gym_reml.rllib.handle import SharedPool

REMEDY = (
    "make the config by gym_reml.rllib.share_pool, for an environment id that builds networks (NetBuild-v0 and its "
    "encodings), with learn= in its env_config"
)


class SharedPoolCallback(RLlibCallback):
    """Lets all env runners of an algorithm build networks from one pool, which learns from the episodes of all.

    `share_pool` adds it to a config. Env runners deliver finished episodes at the end of each sample. After each
    training iteration, the pool's server learns from them, and all env runners take the new weights. Evaluation env
    runners take them before each evaluation, and deliver nothing. The result of a training iteration has the counts of
    the learner as "shared_pool".
    """

    def on_environment_created(self, *, env_runner: Any, env: Any, **kwargs: Any) -> None:
        """In env runners: puts what delivers episodes in place of the environment's own pool learner."""
        mdp = process_of(env)
        if mdp is None or mdp.learner is None:
            raise ValueError(f"env={env!r}: has no pool that learns; {REMEDY}")
        mdp.learn_by(DeliveringLearner(mdp.learner, env_runner.worker_index or 0))
        mdp.learning = not env_runner.config.in_evaluation

    def on_sample_end(self, *, env_runner: Any, **kwargs: Any) -> None:
        """In env runners: delivers finished episodes."""
        learner_of(env_runner).deliver()

    def on_algorithm_init(self, *, algorithm: Any, **kwargs: Any) -> None:
        """In the algorithm: starts the server, and connects all env runners to it."""
        if not hasattr(algorithm, "start_shared_pool"):
            raise ValueError(f"{type(algorithm).__name__}: its checkpoints do not hold the pool; {REMEDY}")
        algorithm.start_shared_pool(next(filter(None, _each(algorithm.env_runner_group, _parts))))
        connect(algorithm.env_runner_group, algorithm.shared_pool)

    def on_env_runners_recreated(
        self, *, algorithm: Any, env_runner_group: Any, env_runner_indices: list[int], **kwargs: Any
    ) -> None:
        """In the algorithm: connects env runners that were restarted."""
        connect(env_runner_group, algorithm.shared_pool, remote_worker_ids=env_runner_indices, local_env_runner=False)

    def on_train_result(self, *, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        """In the algorithm: lets the server learn, and hands its weights to all env runners."""
        shared = algorithm.shared_pool
        shared.learn()
        result["shared_pool"] = dict(shared.counts)
        connect(algorithm.env_runner_group, shared)

    def on_evaluate_start(self, *, algorithm: Any, **kwargs: Any) -> None:
        """In the algorithm: lets the server learn, and hands its weights to the evaluation env runners."""
        algorithm.shared_pool.learn()
        if algorithm.eval_env_runner_group is not None:
            connect(algorithm.eval_env_runner_group, algorithm.shared_pool)
        else:
            _each(algorithm.env_runner_group, partial(_set_learning, value=False))

    def on_evaluate_end(self, *, algorithm: Any, **kwargs: Any) -> None:
        """In the algorithm: training env runners that evaluated deliver episodes again."""
        if algorithm.eval_env_runner_group is None:
            _each(algorithm.env_runner_group, partial(_set_learning, value=True))


def connect(group: Any, shared: SharedPool, **which: Any) -> None:
    """Hands the server of a shared pool, and its weights, to env runners of the group, all or `which`."""
    weights = ray.put(ray.get(shared.server.weights.remote()))
    _each(group, partial(_take, weights=weights, server=shared.server), **which)


def process_of(env: Any) -> TrainingMDP | None:
    """The process of a native vector environment that builds networks; None for any other environment."""
    unwrapped = env.unwrapped
    return unwrapped.mdp if isinstance(unwrapped, TrainingVectorEnv) else None


def learner_of(env_runner: Any) -> DeliveringLearner:
    """What delivers the episodes of an env runner that has an environment."""
    mdp = process_of(env_runner.env)
    assert mdp is not None
    assert isinstance(mdp.learner, DeliveringLearner)
    return mdp.learner


def _each(group: Any, function: Any, **which: Any) -> list[Any]:
    """The function of each env runner that has an environment; None for others."""
    return group.foreach_env_runner(partial(_if_used, function=function), **which)


def _if_used(env_runner: Any, function: Any) -> Any:
    return None if env_runner.env is None else function(env_runner)


def _parts(env_runner: Any) -> PoolLearner:
    """A learner like the environment's own, which can be sent."""
    learner = learner_of(env_runner)
    return PoolLearner(learner.pool.clone().to("cpu"), learner.family, learner.rule, learner.options)


def _take(env_runner: Any, weights: Any, server: Any) -> None:
    learner = learner_of(env_runner)
    learner.send = partial(_send, server)
    learner.take(ray.get(weights))


def _set_learning(env_runner: Any, value: bool) -> None:
    env_runner.env.unwrapped.learning = value


def _send(server: Any, delivery: Delivery) -> None:
    """Delivers, and waits until the server has stored it."""
    ray.get(server.deliver.remote(delivery))

"""Construction of a `TrainingMDP` from keyword arguments: checks and defaults."""

from __future__ import annotations

import multiprocessing
import numbers
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from gym_reml.checks import check_integer, is_number
from gym_reml.envs.common.arguments import argument_names
from gym_reml.envs.common.devices import find_device
from gym_reml.envs.common.observations import make_observation_space
from gym_reml.learning.options import RULES, LearningOptions
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.mdp.objective import Objective
from gym_reml.mdp.observation import OBSERVATION_LIMIT
from gym_reml.mdp.training import TrainingMDP
from gym_reml.networks.weights import CLIP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.pool.sources import pool_for
from gym_reml.spaces import ActionEncoding, make_encoding
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

LARGEST_STEP = float(np.finfo(np.float32).max)


@dataclass
class Setup:
    """The parts of a single or vector environment.

    Attributes:
        mdp: the process.
        encoding: of the actions.
        space: observation space of one row.
        pool_source: source of the pool: "packaged", "random", "given" or a path.
        arguments: the arguments that a `MetaLearner` holds, with defaults resolved: all but those of tasks, pool,
            learning, device and core.
    """

    mdp: TrainingMDP
    encoding: ActionEncoding
    space: spaces.Space[Any]
    pool_source: str
    arguments: dict[str, Any]


def make_setup(
    count: int,
    *,
    family: str | TaskFamily = "sinusoid",
    family_kwargs: Mapping[str, Any] | None = None,
    shots: int | tuple[int, int] | None = None,
    queries: int | None = None,
    depth: int = 2,
    width: int | None = None,
    layers: int | None = None,
    layer_kind: str | None = None,
    initial_layers: Sequence[int] = (),
    horizon: int = 5,
    burn_in: int = 0,
    reward: str = "performance",
    feedback: str = "query",
    pool: LayerPool | str | os.PathLike[str] | None = None,
    learn: str | None = None,
    learn_kwargs: Mapping[str, Any] | None = None,
    action: str = "box",
    step_bins: int = 13,
    min_step: float | None = None,
    max_step: float | None = None,
    clip: float | None = CLIP,
    optimizer: str = "sgd",
    batch_size: int | None = None,
    step_sizes: str = "single",
    observation: str = "flat",
    device: str | torch.device = "cpu",
    core: str = "torch",
) -> Setup:
    """Makes a process of `count` rows.

    Args:
        count: number of rows, n; the other arguments are those of `NetBuildEnv`.

    Raises:
        ValueError: an invalid value; the message names the argument and the choices.
        ImportError: see `gym_reml.networks.compiled.find_core`.
    """
    for argument, value in (("num_envs", count), ("depth", depth), ("step_bins", step_bins)):
        check_integer(argument, value)
    objective = Objective(horizon, burn_in, reward, feedback)
    task_family = _make_family(family, family_kwargs, shots, queries)
    torch_device = find_device(device)
    layer_pool, source = pool_for(task_family, pool, width=width, layers=layers, layer_kind=layer_kind)
    if layer_pool.device != torch_device:
        if learn is not None and source == "given":
            raise ValueError(f"pool: is on {layer_pool.device}; to learn on device={str(device)!r} it must be there")
        layer_pool = layer_pool.to(torch_device)
    mdp = TrainingMDP(
        count,
        task_family,
        layer_pool,
        objective,
        slots=depth,
        initial_layers=_initial_layers(initial_layers, depth, layer_pool),
        step_range=_step_range(layer_pool, min_step, max_step),
        clip=_clip(clip),
        optimizer=optimizer,
        batch_size=batch_size,
        step_sizes=step_sizes,
        learner=_make_learner(layer_pool, task_family, learn, learn_kwargs, count),
        core=core,
    )
    space = make_observation_space(observation, mdp.parts, OBSERVATION_LIMIT)
    arguments = {
        "depth": depth,
        "initial_layers": list(mdp.initial_layers),
        "horizon": horizon,
        "burn_in": burn_in,
        "reward": reward,
        "feedback": feedback,
        "action": action,
        "step_bins": step_bins,
        "min_step": mdp.step_range[0],
        "max_step": mdp.step_range[1],
        "clip": mdp.clip,
        "optimizer": optimizer,
        "batch_size": batch_size,
        "step_sizes": step_sizes,
        "observation": observation,
    }
    return Setup(mdp, make_encoding(action, mdp.decision, step_bins=step_bins), space, source, arguments)


def known_arguments() -> tuple[str, ...]:
    """The names of `make_setup`'s arguments after the first, which are those of every environment of this kind."""
    return argument_names(make_setup)


def select_arguments(names: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `make_setup` among a function's local variables."""
    return {name: names[name] for name in known_arguments()}


def _read_mapping(argument: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{argument}={value!r}: must be a dict, or None")
    return dict(value or {})


def _initial_layers(layers: Any, depth: int, pool: LayerPool) -> tuple[int, ...]:
    fits = isinstance(layers, Sequence | np.ndarray) and len(layers) <= depth
    if not fits or any(not isinstance(layer, int | np.integer) or not 1 <= layer <= pool.layers for layer in layers):
        raise ValueError(
            f"initial_layers={layers!r}: must be at most depth={depth} pool layers, numbers from 1 to {pool.layers}"
        )
    return tuple(int(layer) for layer in layers)


def _make_family(
    family: str | TaskFamily,
    family_kwargs: Mapping[str, Any] | None,
    shots: int | tuple[int, int] | None,
    queries: int | None,
) -> TaskFamily:
    arguments = _read_mapping("family_kwargs", family_kwargs)
    for argument, value in (("shots", shots), ("queries", queries)):
        if argument in arguments:
            raise ValueError(f"family_kwargs: {argument!r} is an argument of the environment itself")
        if value is not None:
            arguments[argument] = value
    return make_family(family, **arguments)


def _step_range(pool: LayerPool, min_step: float | None, max_step: float | None) -> tuple[float, float]:
    low, high = pool.step_range
    low, high = low if min_step is None else min_step, high if max_step is None else max_step
    for argument, value in (("min_step", low), ("max_step", high)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value <= LARGEST_STEP:
            raise ValueError(f"{argument}={value!r}: must be a positive number, at most {LARGEST_STEP:g}")
    if low > high:
        raise ValueError(f"min_step={low!r}: must not be above max_step={high!r}")
    return float(low), float(high)


def _clip(clip: float | None) -> float | None:
    if clip is not None and not (is_number(clip) and 0 < clip <= LARGEST_STEP):
        raise ValueError(f"clip={clip!r}: must be None or a positive number, at most {LARGEST_STEP:g}")
    return None if clip is None else float(clip)


def _make_learner(
    pool: LayerPool, family: TaskFamily, learn: str | None, learn_kwargs: Mapping[str, Any] | None, count: int
) -> PoolLearner | None:
    arguments = _read_mapping("learn_kwargs", learn_kwargs)
    if learn is None:
        if arguments:
            raise ValueError(
                f"learn_kwargs={learn_kwargs!r}: given without learn, one of {', '.join(map(repr, RULES))}"
            )
        return None
    # Only single environments: several rows share a pool, in any process.
    if count == 1 and _in_worker():
        warnings.warn(
            "learn: this environment is in a worker process, so every worker would train a separate pool. "
            "Use gym.make_vec(..., vectorization_mode=None), gym_reml.sb3.make_vec_env or gym_reml.rllib.share_pool, "
            "which share one pool.",
            stacklevel=2,
        )
    return PoolLearner(pool, family, learn, LearningOptions.parse(arguments))


def _in_worker() -> bool:
    """Whether this is a worker process of multiprocessing or Ray."""
    # Ray starts workers by this script; calling Ray to find out could start Ray.
    in_ray = Path(getattr(sys.modules["__main__"], "__file__", None) or "").name == "default_worker.py"
    return in_ray or multiprocessing.parent_process() is not None

"""The state of an agent and of its environment's normaliser, as tensors and numbers, to continue training.

An agent goes on by being made anew, as its recipe says, and given these. Nothing here is a pickle: a folder of somebody
else's run can be gone on with without running what it holds.

Where a run keeps a checkpoint, it begins new episodes itself, on tasks that follow from its seed and its steps. So
episodes under way are no part of a checkpoint, and a run that is gone on with takes the same steps as one that was
never interrupted.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from gym_reml.evaluation.saved_policy import algorithm_of
from gym_reml.files import load_safely, save_atomically

FORMAT = "gym_reml.Agent/2"
FILE = "agent.pt"

COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "_current_progress_remaining",
    "exploration_rate",
)
"""Counters of SB3's algorithms, where they have them."""


def begin_episodes(agent: Any, env: VecEnv, seed: int) -> None:
    """Begins new episodes in all rows after a checkpoint, or prepares them before the first step.

    Args:
        agent: before `learn`, or between two rollouts.
        env: its environment.
        seed: of the run's first tasks; those that follow a checkpoint are numbered by the steps before it.
    """
    env.seed(seed + agent.num_timesteps)
    if agent._last_obs is not None:  # else `learn` resets
        agent._last_obs = env.reset()
        agent._last_episode_starts = np.ones(env.num_envs, dtype=np.bool_)
        if agent._vec_normalize_env is not None:
            agent._last_original_obs = agent._vec_normalize_env.get_original_obs()


def save_agent(agent: Any, env: VecEnv, folder: Path) -> None:
    """Writes what `restore_agent` reads to a file in the folder."""
    _, tensors = agent._get_torch_save_params()
    if algorithm_of(agent) == "ARS":
        tensors = ["weights"]  # what it learns; the policy is a copy
    state = {
        "format": FORMAT,
        "algorithm": algorithm_of(agent),
        "modules": agent.get_parameters(),
        "tensors": {name: getattr(agent, name).detach() for name in tensors},
        "counters": {name: getattr(agent, name) for name in COUNTERS if hasattr(agent, name)},
        "episodes": [[float(episode["r"]), float(episode["l"])] for episode in agent.ep_info_buffer or ()],
        "statistics": {name: _numbers(part) for name, part in _statistics(env).items()},
        "normalises_on": isinstance(env, VecNormalize) and env.training,
        "replay": _replay_state(agent),
        "random": _random_state(agent),
    }
    save_atomically(state, folder / FILE)


def restore_agent(agent: Any, env: VecEnv, folder: Path) -> None:
    """Restores a saved state in a newly made agent and its environment's normaliser.

    Raises:
        ValueError: no such file, a damaged one, or one of another agent.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{folder}: a checkpoint of an earlier version, a pickle, which this one does not read")
    state = load_safely(path)
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != FORMAT:
        raise ValueError(f"{path}: not a checkpoint this version reads (found {found!r}, expected {FORMAT!r})")
    names, tensors = agent._get_torch_save_params()
    if algorithm_of(agent) == "ARS":
        tensors = ["weights"]
    try:
        if state["algorithm"] != algorithm_of(agent) or set(state["modules"]) != set(names):
            raise ValueError(f"of {state['algorithm']!r}, not of {algorithm_of(agent)!r}")
        agent.set_parameters(state["modules"], exact_match=True, device="cpu")
        with torch.no_grad():
            for name in tensors:
                getattr(agent, name).copy_(state["tensors"][name])
        for name in COUNTERS:
            if hasattr(agent, name):
                setattr(agent, name, type(getattr(agent, name))(state["counters"][name]))
        episodes = [{"r": float(total), "l": float(length), "t": 0.0} for total, length in state["episodes"]]
        agent.ep_info_buffer = deque(episodes, maxlen=agent._stats_window_size)
        agent.ep_success_buffer = deque(maxlen=agent._stats_window_size)
        for name, part in _statistics(env).items():
            mean, variance, count = state["statistics"][name]
            if mean.shape != part.mean.shape or variance.shape != part.var.shape:
                raise ValueError(f"statistics of {name} of another shape")
            part.mean, part.var, part.count = mean.numpy().copy(), variance.numpy().copy(), float(count)
        if isinstance(env, VecNormalize):
            env.training = bool(state["normalises_on"])
        _restore_replay(agent, state["replay"])
        # Last, as all of the above may draw.
        _restore_random(agent, state["random"])
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: damaged checkpoint, or one of another agent ({error})") from error


def _replay_state(agent: Any) -> dict[str, Any] | None:
    """What an off-policy algorithm has seen; None for others."""
    buffer = getattr(agent, "replay_buffer", None)
    if buffer is None:
        return None
    seen = buffer.size()
    arrays = {name: torch.from_numpy(array[:seen]) for name, array in _replay_arrays(buffer).items()}
    return {"arrays": arrays, "pos": int(buffer.pos), "full": bool(buffer.full)}


def _restore_replay(agent: Any, state: Any) -> None:
    buffer = getattr(agent, "replay_buffer", None)
    if buffer is None:
        return
    for name, array in _replay_arrays(buffer).items():
        seen = state["arrays"][name].numpy()
        if seen.shape[1:] != array.shape[1:] or len(seen) != (len(array) if state["full"] else state["pos"]):
            raise ValueError(f"replay buffer: {name} of another shape")
        array[: len(seen)] = seen
    buffer.pos, buffer.full = int(state["pos"]), bool(state["full"])


def _replay_arrays(buffer: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a replay buffer by name, those of dict observations among them."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in vars(buffer).items():
        parts = {f"{name}.{part}": array for part, array in value.items()} if isinstance(value, dict) else {name: value}
        found |= {part: array for part, array in parts.items() if isinstance(array, np.ndarray)}
    return found


def _random_state(agent: Any) -> dict[str, Any]:
    """The generators that Stable-Baselines3 draws from: torch's and numpy's own, and that of the action space."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002  (what Stable-Baselines3 draws from)
    return {
        "torch": torch.get_rng_state(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "actions": agent.action_space.np_random.bit_generator.state,
    }


def _restore_random(agent: Any, state: Any) -> None:
    numpy = state["numpy"]
    key = np.array(numpy["state"]["key"], dtype=np.uint32)
    torch.set_rng_state(state["torch"])
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})  # noqa: NPY002
    agent.action_space.np_random.bit_generator.state = state["actions"]


def _statistics(env: VecEnv) -> dict[str, Any]:
    """The running means of the normaliser, by name; none where there is no normaliser."""
    if not isinstance(env, VecNormalize):
        return {}
    found = {"returns": env.ret_rms}
    if env.norm_obs:
        observations = env.obs_rms if isinstance(env.obs_rms, dict) else {"all": env.obs_rms}
        found |= {f"observations.{part}": rms for part, rms in observations.items()}
    return found


def _numbers(rms: Any) -> list[Any]:
    return [torch.from_numpy(np.array(rms.mean)), torch.from_numpy(np.array(rms.var)), float(rms.count)]

"""Random actions in an environment, twice: everything finite, in its spaces, and the same both times."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from .drawing import Configuration, Draw, configuration
from .journal import Row

EXTREMES = (-1.0, 1.0, 0.0, 0.3, -1e30, 1e30, float("inf"), float("-inf"))
"""Numbers of actions: those of agents that have diverged too."""

STEPS = 8
"""Of a run: two to eight episodes."""

FEW = 44
"""Two of each id."""


class Unsound(Exception):
    """A number that is not finite, an observation outside its space, or a second run that differs from the first."""


def attempt(number: int) -> Row:
    """Plays the configuration of that number twice.

    Raises:
        Unsound: see there.
        Exception: whatever the environment raises, or warns of.
    """
    drawn = configuration(number)
    about = {"id": drawn.env_id, "rows": drawn.rows}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of extreme actions, or of episodes that are cut short, nothing may be left to learn from.
        warnings.filterwarnings("ignore", "learn")
        try:
            env = drawn.make()
        except ValueError as error:
            return about | {"refused": str(error)}
        first, second = (list(outcomes(made, drawn)) for made in (env, drawn.make()))
    if first != second:
        place = next(place for place, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])
        raise Unsound(f"differs at outcome {place} when it is played again")
    return about | {"steps": STEPS * (drawn.rows or 1)}


def summary(rows: list[Row]) -> str:
    """What the trials that did not fail found."""
    played = [row for row in rows if "steps" in row]
    steps = sum(row["steps"] for row in played)
    return (
        f"{len(played):,} configurations of {len({row['id'] for row in played})} environments were played, "
        f"{steps:,} steps twice; {len(rows) - len(played):,} were refused by a ValueError when they were made"
    )


def outcomes(env: Any, drawn: Configuration) -> Iterator[bytes]:
    """A digest of what each call returned: the reset, STEPS steps, and the pool at the end.

    Raises:
        Unsound: a number that is not finite, or an observation outside its space.
    """
    generator = np.random.default_rng([drawn.number, 1])
    draw, single = Draw(generator), drawn.rows is None
    seed = int(generator.integers(2**32))
    observation, info = env.reset(seed=seed)
    yield _judged(env, observation, info)
    for _ in range(STEPS):
        action = random_action(draw, env.action_space)
        observation, reward, terminated, truncated, info = env.step(action)
        yield _judged(env, observation, (reward, terminated, truncated, info))
        ended = terminated | truncated
        if single and ended and draw.one(True, False):
            observation, info = env.reset()
            yield _judged(env, observation, info)
        elif not single and drawn.arguments["autoreset_mode"] == "Disabled" and ended.any():
            observation, info = env.reset(options={"reset_mask": ended})
            yield _judged(env, observation, info)
    pool = getattr(env.unwrapped, "pool", None)
    env.close()
    yield _digest("pool", {} if pool is None else pool.trainable())


def random_action(draw: Draw, space: gym.Space[Any]) -> Any:
    """Corners, ties, and values far out of bounds or random ones."""
    if isinstance(space, gym.spaces.Dict):
        return {name: random_action(draw, part) for name, part in space.items()}
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating) and draw.one(True, False):
        return draw.generator.choice(EXTREMES, size=space.shape).astype(space.dtype)
    space.seed(draw.up_to(2**31 - 1))
    return space.sample()


def _judged(env: Any, observation: Any, others: Any) -> bytes:
    """The digest of an observation in its space, and of other finite numbers."""
    if not env.observation_space.contains(observation):
        raise Unsound("an observation outside its space")
    return _digest("observation", observation) + _digest("info", others)


def _digest(path: str, value: Any) -> bytes:
    """A digest of nested numbers, all of which must be finite; masks of infos are numbers too."""
    state = hashlib.blake2b(digest_size=16)
    _feed(state, path, value)
    return state.digest()


def _feed(state: Any, path: str, value: Any) -> None:
    state.update(f"{path} {type(value).__name__} ".encode())
    if isinstance(value, dict):
        for name in sorted(value):
            _feed(state, f"{path}.{name}", value[name])
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        for part in value:
            _feed(state, path, part)
    elif isinstance(value, str) or value is None:
        state.update(repr(value).encode())
    else:
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if not np.isfinite(array).all():
            raise Unsound(f"{path} is not finite")
        state.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())

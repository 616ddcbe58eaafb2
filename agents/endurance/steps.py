"""Many steps of environments that are never made anew, with the memory and the file handles of the process."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from .journal import Row

FEW = 7
"""One of each environment."""


class Course(NamedTuple):
    """An environment, and how long it goes on in one trial.

    Attributes:
        env_id: of the environment.
        rows: of it.
        calls: of `step` in one trial; each is `rows` environment steps.
        arguments: of it.
    """

    env_id: str
    rows: int
    calls: int
    arguments: dict[str, Any]


SMALL_RUNS = {"horizon": 4, "updates": 3}
COURSES = (
    Course("NetBuild-v0", 256, 200, {}),
    Course("NetBuildMultiDiscrete-v0", 256, 10, {"pool": "random", "learn": "maml"}),
    Course("NetBuild-v0", 64, 20, {"family": "navigation", "family_kwargs": {"steps": 10}, "shots": 2}),
    Course("NetTune-v0", 64, 20, SMALL_RUNS),
    Course("NetAugmentMultiDiscrete-v0", 16, 8, SMALL_RUNS),
    Course("BanditTrial-v0", 256, 600, {}),
    Course("TabularTrial-v0", 256, 600, {}),
)


@cache
def _made(place: int) -> Any:
    """The environment of a course, which goes on from trial to trial."""
    course = COURSES[place]
    env = gym.make_vec(
        course.env_id,
        course.rows,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SameStep",
        **course.arguments,
    )
    env.reset(seed=place)
    env.action_space.seed(place)
    return env


def attempt(number: int) -> Row:
    """Goes on with one of the courses, which take turns.

    Raises:
        ValueError: a reward or a mean of the observations that is not finite.
    """
    place = number % len(COURSES)
    course, env = COURSES[place], _made(place)
    for _ in range(course.calls):
        observation, reward, *_ = env.step(env.action_space.sample())
        if not np.isfinite(reward).all() or not np.isfinite(observation).all():
            raise ValueError(f"{course.env_id}: a number that is not finite")
    return {"id": course.env_id, "course": place, "steps": course.calls * course.rows}


def summary(rows: list[Row]) -> str:
    """What the trials that did not fail found."""
    steps = sum(row["steps"] for row in rows)
    # Each environment has allocated what it needs after a few rounds.
    settled = [row for row in rows if "memory" in row][5 * len(COURSES) :]
    if not settled:
        return f"{steps:,} environment steps; too few trials to judge memory by"
    parts = [settled[place * len(settled) // 10 : (place + 1) * len(settled) // 10 or None] for place in (0, 9)]
    memory = ["{:,.0f}".format(np.mean([row["memory"] for row in part])) for part in parts if part]
    handles = sorted({row["handles"] for row in settled})
    return (
        f"{steps:,} environment steps; memory from {memory[0]} MB in the first tenth to {memory[-1]} MB in the last, "
        f"after {5 * len(COURSES)} trials; open handles: {handles[0]} to {handles[-1]}"
    )

"""The few-shot protocol: a learner, a family, shots and steps in; losses of the same held-out tasks out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.base import observe
from gym_reml.envs.setup import make_setup
from gym_reml.learner import Learner
from gym_reml.mdp import TrainingMDP
from gym_reml.results import Result
from gym_reml.streams import row_streams
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

CHUNK = 250

Intervention = Callable[
    [NDArray[np.int64], NDArray[np.float32], Sequence[np.random.Generator]],
    tuple[NDArray[np.int64], NDArray[np.float32]],
]
"""What a control does to the learner's choices: (layers, steps, generators) to (layers, steps)."""

Blindfold = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""What a control does to the observations (n, size) before the learner sees them."""


def evaluate(
    learner: Learner,
    family: str | TaskFamily,
    shots: int | None = None,
    steps: Sequence[int] = (0, 1, 5, 10),
    tasks: int = 600,
    seed: int = 0,
    split: str = "test",
    *,
    intervene: Intervention | None = None,
    blindfold: Blindfold | None = None,
) -> Result:
    """Lets the learner build and train a network for each of `tasks` tasks.

    Task i is drawn from seed + i of the split, whoever is evaluated: results compare pairwise. Policies act
    deterministically. Steps beyond the horizon are allowed: the policy keeps acting.

    Args:
        learner: who.
        family: on what: a name, or a `TaskFamily`.
        shots: support points, None for the family's own number.
        steps: after how many steps the networks are judged.
        tasks: how many.
        seed: of the first task.
        split: "train", "validation" or "test".
        intervene: changes the learner's choices (controls).
        blindfold: changes what the learner sees (controls).

    Raises:
        ValueError: steps or tasks that make no sense, or a family that the learner's pool does not fit.
    """
    steps = tuple(sorted(set(steps)))
    if not steps or steps[0] < 0:
        raise ValueError(f"steps={steps!r}: must be one or more numbers from 0")
    if tasks < 1:
        raise ValueError(f"tasks={tasks!r}: must be a positive integer")
    changes: dict[str, Any] = {"split": split} | ({} if shots is None else {"shots": shots})
    the_family = make_family(family).replace(**changes)
    parts = []
    for rows in np.array_split(np.arange(tasks), -(-tasks // CHUNK)):
        moments = rollout(learner, the_family, [seed + int(row) for row in rows], steps[-1], intervene, blindfold)
        parts.append({moment.step: moment for moment in moments if moment.step in steps})
    names = [name for name in parts[0][steps[0]].info if name.startswith("query_")]
    metrics = {
        name.removeprefix("query_"): np.stack(
            [np.concatenate([part[step].info[name] for part in parts]) for step in steps]
        )
        for name in names
    }
    diverged = np.stack([np.concatenate([part[step].diverged for part in parts]) for step in steps])
    arguments = _plain_arguments(the_family)
    return Result(learner.name, the_family.name, the_family.shots, seed, steps, metrics, diverged, arguments)


def _plain_arguments(family: TaskFamily) -> dict[str, Any]:
    """The family's arguments that JSON can hold, but for shots and for where data lies."""
    members = {
        field.name: getattr(family, field.name) for field in fields(family) if field.name not in ("shots", "root")
    }
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in members.items()}
    if "members" in plain:
        plain["members"] = [{"name": member.name} | _plain_arguments(member) for member in plain["members"]]
    return {name: value for name, value in plain.items() if isinstance(value, bool | int | float | str | list | None)}


@dataclass(frozen=True)
class Moment:
    """Where the networks of some tasks stand after a step.

    Attributes:
        step: how many steps were taken.
        mdp: the process; it goes on, so look now.
        info: what it says of this step.
        diverged: (tasks,) bool, whether any step up to now was refused.
    """

    step: int
    mdp: TrainingMDP
    info: dict[str, Any]
    diverged: NDArray[np.bool_]


def rollout(
    learner: Learner,
    family: TaskFamily,
    seeds: Sequence[int],
    steps: int,
    intervene: Intervention | None = None,
    blindfold: Blindfold | None = None,
) -> Iterator[Moment]:
    """Lets the learner act on one task for each seed, and shows every moment from step 0 on."""
    count = len(seeds)
    setup = make_setup(count, family=family, pool=learner.pool, **learner.arguments)
    mdp, encoding = setup.mdp, setup.encoding
    mdp.seed(range(count), [row_streams(seed, family.split) for seed in seeds])
    generators = [stream.ties for stream in mdp.streams]
    diverged = np.zeros(count, dtype=np.bool_)
    yield Moment(0, mdp, mdp.reset(), diverged)
    state: Any = None
    for step in range(1, steps + 1):
        flat = mdp.observe() if blindfold is None else blindfold(mdp.observe())
        observation = observe(flat, mdp.parts, setup.space, None)
        start = np.full(count, step == 1)
        actions, state = learner.act(observation, state, start, lambda: encoding.mask(mdp.allowed()))
        layers, sizes = encoding.decode(actions, mdp.allowed(), generators)
        if intervene is not None:
            layers, sizes = intervene(layers, sizes, generators)
        outcome = mdp.step(layers, sizes)
        diverged = diverged | outcome.info["diverged"]
        yield Moment(step, mdp, outcome.info, diverged)

"""The few-shot protocol: a learner, a family, shots and steps in; losses of the same held-out tasks out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.envs.base import observe
from gym_reml.envs.setup import make_setup
from gym_reml.learner import Learner
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
    chunks = [
        _evaluate_chunk(learner, the_family, steps, range(first, min(first + CHUNK, tasks)), seed, intervene, blindfold)
        for first in range(0, tasks, CHUNK)
    ]
    metrics = {name: np.concatenate([chunk[0][name] for chunk in chunks], axis=1) for name in chunks[0][0]}
    diverged = np.concatenate([chunk[1] for chunk in chunks], axis=1)
    return Result(learner.name, the_family.name, the_family.shots, seed, steps, metrics, diverged)


def _evaluate_chunk(
    learner: Learner,
    family: TaskFamily,
    steps: Sequence[int],
    rows: range,
    seed: int,
    intervene: Intervention | None,
    blindfold: Blindfold | None,
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Metrics (S, rows) by name and divergence (S, rows) of some of the tasks."""
    count = len(rows)
    setup = make_setup(count, family=family, pool=learner.pool, **learner.arguments)
    mdp, encoding = setup.mdp, setup.encoding
    mdp.seed(range(count), [row_streams(seed + row, family.split) for row in rows])
    generators = [stream.ties for stream in mdp.streams]
    info = mdp.reset()
    diverged = np.zeros(count, dtype=np.bool_)
    seen: dict[int, tuple[dict[str, Any], NDArray[np.bool_]]] = {0: (info, diverged)}
    state: Any = None
    for step in range(1, steps[-1] + 1):
        flat = mdp.observe() if blindfold is None else blindfold(mdp.observe())
        observation = observe(flat, mdp.parts, setup.space, None)
        start = np.full(count, step == 1)
        actions, state = learner.act(observation, state, start, lambda: encoding.mask(mdp.allowed()))
        layers, sizes = encoding.decode(actions, mdp.allowed(), generators)
        if intervene is not None:
            layers, sizes = intervene(layers, sizes, generators)
        outcome = mdp.step(layers, sizes)
        diverged = diverged | outcome.info["diverged"]
        if step in steps:
            seen[step] = (outcome.info, diverged)
    names = ["query_loss", *(name for name in info if name.startswith("query_") and name != "query_loss")]
    metrics = {
        "loss" if name == "query_loss" else name.removeprefix("query_"): np.stack([seen[s][0][name] for s in steps])
        for name in names
    }
    return metrics, np.stack([seen[step][1] for step in steps])

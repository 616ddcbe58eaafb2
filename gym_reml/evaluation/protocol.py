"""The few-shot protocol: a learner, a family, shots and steps in; losses of the same held-out tasks out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.checks import check_integer, is_integer
from gym_reml.envs.training.setup import make_setup
from gym_reml.envs.training.view import format_observation
from gym_reml.evaluation.meta_learner import Ensemble, MetaLearner
from gym_reml.evaluation.plans import Planner
from gym_reml.evaluation.results import Result
from gym_reml.mdp.training import TrainingMDP
from gym_reml.spaces import Decided
from gym_reml.streams import numbered_streams
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

TASKS = 600
"""Evaluated where nobody says how many."""
CHUNK, POLICY_CHUNK = 250, 25
"""Tasks side by side; trajectories take more memory."""

Intervention = Callable[[Decided, Sequence[np.random.Generator]], Decided]
"""What a control does to the learner's decisions; the generators are the rows' own."""

Blindfold = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""What a control does to the observations (n, size) before the learner sees them."""


def evaluate(
    learner: MetaLearner | Ensemble,
    family: str | TaskFamily,
    shots: int | tuple[int, int] | None = None,
    steps: Sequence[int] = (0, 1, 5, 10),
    tasks: int | None = None,
    seed: int = 0,
    split: str = "test",
    *,
    intervene: Intervention | None = None,
    blindfold: Blindfold | None = None,
) -> Result:
    """Lets the learner build and train a network for each of `tasks` tasks.

    Task i is drawn from seed + i of the split, whoever is evaluated: results compare pairwise. Where a split holds but
    so many tasks (`TaskFamily.task_count`), none is drawn twice. Policies act deterministically. Steps beyond the
    horizon are allowed: the policy keeps acting.

    Args:
        learner: who; of an ensemble's networks the mean output is judged.
        family: on what: a name, or a `TaskFamily`.
        shots: support points, or (low, high); None for the family's own number.
        steps: after how many steps the networks are judged.
        tasks: how many; None for 600, or for all that there are where a family holds fewer.
        seed: of the first task.
        split: "train", "validation" or "test".
        intervene: changes the learner's decisions (controls).
        blindfold: changes what the learner sees (controls).

    Raises:
        ValueError: something else than a learner, steps, tasks or a seed that make no sense, more tasks than the split
            holds, a family that the learner's pool does not fit, or an ensemble on a family whose data depends on the
            network.
    """
    if not isinstance(learner, MetaLearner | Ensemble):
        raise ValueError(f"learner={learner!r}: must be a MetaLearner or an Ensemble, which hold a policy and its pool")
    wanted = tuple(steps) if isinstance(steps, Iterable) else ()
    if not wanted or not all(is_integer(step) and step >= 0 for step in wanted):
        raise ValueError(f"steps={steps!r}: must be one or more integers from 0")
    steps = tuple(sorted({int(step) for step in wanted}))
    check_integer("seed", seed, least=0)
    changes: dict[str, Any] = {"split": split} | ({} if shots is None else {"shots": shots})
    the_family = make_family(family).replace(**changes)
    tasks = _count(tasks, the_family)
    parts = []
    chunk = CHUNK if the_family.fixed_data else POLICY_CHUNK
    for rows in np.array_split(np.arange(tasks), -(-tasks // chunk)):
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
    return Result(
        learner.name,
        the_family.name,
        the_family.shots,
        int(seed),
        steps,
        metrics,
        diverged,
        _plain_arguments(the_family),
        fingerprint=the_family.fingerprint,
    )


def at_most(tasks: int, family: str | TaskFamily, split: str) -> int:
    """So many tasks, or all that the split holds if they are fewer."""
    known = make_family(family).replace(split=split).task_count
    return tasks if known is None else min(tasks, known)


def _count(tasks: int | None, family: TaskFamily) -> int:
    """How many tasks are evaluated."""
    if tasks is None:
        return at_most(TASKS, family, family.split)
    check_integer("tasks", tasks)
    known = family.task_count
    if known is not None and tasks > known:
        raise ValueError(
            f"tasks={tasks}: the {family.split!r} split of {family.name!r} holds {known}, and the same ones again "
            "would only make intervals look narrow; ask for as many at most, or leave tasks out"
        )
    return int(tasks)


def _plain_arguments(family: TaskFamily) -> dict[str, Any]:
    """The family's arguments that JSON can hold, but for shots and for where data lies."""
    names = [field.name for field in fields(family) if field.name not in ("shots", "root", "download")]
    values = {name: getattr(family, name) for name in names}
    return {name: _plain(value) for name, value in values.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(
        value, bool | int | float | str | np.bool_ | np.integer | np.floating | TaskFamily
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, TaskFamily):
        return {"name": value.name} | _plain_arguments(value)
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Moment:
    """Where the networks of some tasks stand after a step.

    Attributes:
        step: how many steps were taken.
        mdp: the process; it goes on, so look now.
        info: what it says of this step.
        diverged: (tasks,) bool, whether any step up to now was refused, or took the query loss above what counts.
    """

    step: int
    mdp: TrainingMDP
    info: dict[str, Any]
    diverged: NDArray[np.bool_]


def rollout(
    learner: MetaLearner | Ensemble,
    family: TaskFamily,
    seeds: Sequence[int],
    steps: int,
    intervene: Intervention | None = None,
    blindfold: Blindfold | None = None,
) -> Iterator[Moment]:
    """Lets the learner act on one task for each seed, and shows every moment from step 0 on.

    Of an ensemble the moments are those of its first member, but info holds the loss and metrics of the mean output.
    """
    if isinstance(learner, Ensemble):
        members = [rollout(member, family, seeds, steps, intervene, blindfold) for member in learner.members]
        yield from _together(members, family)
        return
    count = len(seeds)
    setup = make_setup(count, family=family, pool=learner.pool, **learner.arguments)
    mdp, encoding = setup.mdp, setup.encoding
    mdp.seed(range(count), [numbered_streams(seed, family.split) for seed in seeds])
    generators = [stream.ties for stream in mdp.streams]
    diverged = np.zeros(count, dtype=np.bool_)
    yield Moment(0, mdp, mdp.reset(), diverged)
    if isinstance(learner.policy, Planner):
        learner.policy.prepare(mdp)
    state: Any = None
    for step in range(1, steps + 1):
        flat = mdp.observe() if blindfold is None else blindfold(mdp.observe())
        observation = format_observation(flat, mdp.parts, setup.space)
        start = np.full(count, step == 1)
        actions, state = learner.act(observation, state, start, lambda: encoding.mask(mdp.allowed(), count))
        decided = encoding.decode(actions, mdp.allowed(), generators=generators)
        if intervene is not None:
            decided = intervene(decided, generators)
        outcome = mdp.step(decided)
        diverged = diverged | outcome.info["diverged"] | mdp.training.query_diverged
        yield Moment(step, mdp, outcome.info, diverged)


def _together(rollouts: Sequence[Iterator[Moment]], family: TaskFamily) -> Iterator[Moment]:
    if not family.fixed_data:
        raise ValueError(f"family={family.name!r}: its data depends on the network, so an ensemble has none of its own")
    for moments in zip(*rollouts, strict=True):
        first = moments[0]
        query = first.mdp.query
        outputs = torch.stack([moment.mdp.outputs(query.inputs) for moment in moments]).mean(dim=0)
        loss = family.loss(outputs, query)
        values = {"loss": loss} | family.metrics(outputs, query, loss)
        info = {f"query_{name}": value.cpu().numpy().astype(np.float64) for name, value in values.items()}
        diverged = np.logical_or.reduce([moment.diverged for moment in moments])
        yield Moment(first.step, first.mdp, info, diverged)

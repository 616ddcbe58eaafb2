"""The few-shot protocol: query losses of a learner on held-out tasks, after given numbers of gradient steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.checks import check_integer, is_integer
from gym_reml.envs.common.observations import format_observation
from gym_reml.envs.training.setup import Setup, make_setup
from gym_reml.evaluation.meta_learner import Ensemble, MetaLearner
from gym_reml.evaluation.plans import Plan, Planner
from gym_reml.evaluation.results import Result
from gym_reml.mdp.training import TrainingMDP
from gym_reml.spaces import Decided
from gym_reml.streams import numbered_streams
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

TASKS = 600
"""Default number of tasks."""

DEFAULT_STEPS = (0, 1, 5, 10)
"""Default numbers of gradient steps."""

CHUNK, POLICY_CHUNK = 250, 25
"""Number of tasks computed in parallel; trajectories need more memory."""

Intervention = Callable[[Decided, Sequence[np.random.Generator]], Decided]
"""Replaces the learner's decisions; called with the decisions of n rows and one generator for each."""

DIVERGED = "diverged"
"""Name, beside those of the metrics, of which rows have diverged."""

Part = dict[int, dict[str, NDArray[Any]]]
"""What was measured of some tasks, by step and name."""

Blindfold = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Replaces the observations, (n, size) float32, that the learner receives."""


def evaluate(
    learner: MetaLearner | Ensemble,
    family: str | TaskFamily,
    *,
    shots: int | tuple[int, int] | None = None,
    steps: Sequence[int] = DEFAULT_STEPS,
    tasks: int | None = None,
    seed: int = 0,
    split: str = "test",
    intervene: Intervention | None = None,
    blindfold: Blindfold | None = None,
) -> Result:
    """Evaluates a learner, which builds and trains a network for each of `tasks` tasks.

    Task i is drawn from seed + i of the split for every learner, so results can be compared pairwise. In a split with
    finitely many tasks (`TaskFamily.task_count`), none is drawn twice. Policies act deterministically. Beyond the
    horizon the policy goes on acting. Networks are computed on the device of the learner's pool.

    Args:
        learner: to evaluate; the networks' outputs of an `Ensemble` are averaged.
        family: of tasks: a name, or a `TaskFamily`.
        shots: number of support points, or a range (low, high); None for the family's default.
        steps: numbers of gradient steps after which the networks are evaluated on the query sets.
        tasks: number of tasks; None for 600, or for all where the split has fewer.
        seed: of the first task.
        split: "train", "validation" or "test".
        intervene: replaces the learner's decisions, for controls.
        blindfold: replaces the observations that the learner receives, for controls.

    Raises:
        ValueError: no learner; invalid steps, tasks or seed; more tasks than the split has; a pool that does not fit
            the family; or an ensemble on a family whose data depends on the network.
    """
    return evaluate_all(
        [learner],
        family,
        shots=shots,
        steps=steps,
        tasks=tasks,
        seed=seed,
        split=split,
        intervene=intervene,
        blindfold=blindfold,
    )[0]


def evaluate_all(
    learners: Sequence[MetaLearner | Ensemble],
    family: str | TaskFamily,
    *,
    shots: int | tuple[int, int] | None = None,
    steps: Sequence[int] = DEFAULT_STEPS,
    tasks: int | None = None,
    seed: int = 0,
    split: str = "test",
    intervene: Intervention | None = None,
    blindfold: Blindfold | None = None,
) -> list[Result]:
    """What `evaluate` returns for each learner; successive plans on one pool share the data, drawn once.

    Args:
        learners: to evaluate, a list.
        family: as of `evaluate`, like the others.
        shots, steps, tasks, seed, split, intervene, blindfold: see there.

    Raises:
        ValueError: as `evaluate`.
    """
    for learner in learners:
        if not isinstance(learner, MetaLearner | Ensemble):
            raise ValueError(
                f"learner={learner!r}: must be a MetaLearner or an Ensemble, which hold a policy and its pool"
            )
    given = tuple(steps) if isinstance(steps, Iterable) else ()
    if not given or not all(is_integer(step) and step >= 0 for step in given):
        raise ValueError(f"steps={steps!r}: must be one or more integers from 0")
    steps = tuple(sorted({int(step) for step in given}))
    check_integer("seed", seed, least=0)
    changes: dict[str, Any] = {"split": split} | ({} if shots is None else {"shots": shots})
    task_family = make_family(family).replace(**changes)
    tasks = _count(tasks, task_family)
    changed: dict[str, Any] = {"intervene": intervene, "blindfold": blindfold}
    found: list[list[Part]] = [[] for _ in learners]
    chunk = CHUNK if task_family.fixed_data else POLICY_CHUNK
    for rows in np.array_split(np.arange(tasks), -(-tasks // chunk)):
        seeds = [seed + int(row) for row in rows]
        last: tuple[MetaLearner, Setup] | None = None
        for learner, parts in zip(learners, found, strict=True):
            if isinstance(learner, Ensemble):
                moments = rollout(learner, task_family, seeds=seeds, steps=steps[-1], **changed)
            elif last is not None and intervene is None and _has_data_for(learner, *last):
                moments = _episodes(learner, last[1], last[1].mdp.again(), steps[-1], **changed)
            else:
                last = learner, _seeded(learner, task_family, seeds)
                moments = _episodes(learner, last[1], last[1].mdp.reset(), steps[-1], **changed)
            parts.append({moment.step: _measured(moment) for moment in moments if moment.step in steps})
    return [_result(learner, task_family, seed, steps, parts) for learner, parts in zip(learners, found, strict=True)]


def _result(
    learner: MetaLearner | Ensemble,
    family: TaskFamily,
    seed: int,
    steps: tuple[int, ...],
    parts: Sequence[Part],
) -> Result:
    """The result of a learner from what was measured of each chunk of tasks."""
    values = {
        name: np.stack([np.concatenate([part[step][name] for part in parts]) for step in steps])
        for name in parts[0][steps[0]]
    }
    diverged = values.pop(DIVERGED)
    return Result(
        learner.name,
        family.name,
        family.shots,
        int(seed),
        steps,
        values,
        diverged,
        _plain_arguments(family),
        fingerprint=family.fingerprint,
    )


def _measured(moment: Moment) -> dict[str, NDArray[Any]]:
    """The metrics on the query sets by name, and which rows have `DIVERGED`, each (tasks,)."""
    info = moment.info
    metrics = {name.removeprefix("query_"): info[name] for name in info if name.startswith("query_")}
    return metrics | {DIVERGED: moment.diverged}


def at_most(tasks: int, family: str | TaskFamily, split: str) -> int:
    """The smaller of `tasks` and the number of tasks in the split."""
    count = make_family(family).replace(split=split).task_count
    return tasks if count is None else min(tasks, count)


def _count(tasks: int | None, family: TaskFamily) -> int:
    """The number of tasks to evaluate, checked; `tasks` as in `evaluate`."""
    if tasks is None:
        return at_most(TASKS, family, family.split)
    check_integer("tasks", tasks)
    count = family.task_count
    if count is not None and tasks > count:
        raise ValueError(
            f"tasks={tasks}: the {family.split!r} split of {family.name!r} holds {count}, and repeated tasks would "
            f"make confidence intervals too narrow; give at most {count}, or leave tasks out"
        )
    return int(tasks)


def _plain_arguments(family: TaskFamily) -> dict[str, Any]:
    """The family's arguments that JSON can hold, without shots and the location of data."""
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
    """The state of a rollout after a step.

    Attributes:
        step: number of steps taken.
        mdp: the process; the next step changes it in place.
        info: the process's info about this step.
        diverged: (tasks,) bool, whether any step so far was refused, or raised the query loss above its cap.
    """

    step: int
    mdp: TrainingMDP
    info: dict[str, Any]
    diverged: NDArray[np.bool_]


def rollout(
    learner: MetaLearner | Ensemble,
    family: TaskFamily,
    *,
    seeds: Sequence[int],
    steps: int,
    intervene: Intervention | None = None,
    blindfold: Blindfold | None = None,
) -> Iterator[Moment]:
    """Runs a learner on one task for each seed, and yields the state after every step, from step 0 on.

    An ensemble yields the states of its first member, with the loss and metrics of the mean output as info.

    Args:
        learner: to run.
        family: of tasks.
        seeds: of the tasks, one for each row.
        steps: number of steps.
        intervene: replaces the learner's decisions.
        blindfold: replaces the observations that the learner receives.

    Raises:
        ValueError: a pool that does not fit the family, or an ensemble on a family whose data depends on the network.
    """
    if isinstance(learner, Ensemble):
        rollouts = [
            rollout(member, family, seeds=seeds, steps=steps, intervene=intervene, blindfold=blindfold)
            for member in learner.members
        ]
        yield from _averaged(rollouts, family)
        return
    setup = _seeded(learner, family, seeds)
    yield from _episodes(learner, setup, setup.mdp.reset(), steps, intervene=intervene, blindfold=blindfold)


def _seeded(learner: MetaLearner, family: TaskFamily, seeds: Sequence[int]) -> Setup:
    """The environment of a learner, a row for each seed, before its first reset."""
    setup = make_setup(len(seeds), family=family, pool=learner.pool, device=learner.pool.device, **learner.arguments)
    setup.mdp.seed(range(len(seeds)), [numbered_streams(seed, family.split) for seed in seeds])
    return setup


def _has_data_for(learner: MetaLearner, other: MetaLearner, setup: Setup) -> bool:
    """Whether `learner` is evaluated as if it were the first one if it goes on with the data drawn for `other`.

    Both have to be plans: these draw nothing from the rows' streams, as interventions do.
    """
    plans = isinstance(learner.policy, Plan) and isinstance(other.policy, Plan)
    alike = learner.pool is other.pool and repr(learner.arguments) == repr(other.arguments)
    return plans and alike and setup.mdp.family.fixed_data and setup.mdp.batch_size is None


def _episodes(
    learner: MetaLearner,
    setup: Setup,
    begun: dict[str, Any],
    steps: int,
    *,
    intervene: Intervention | None,
    blindfold: Blindfold | None,
) -> Iterator[Moment]:
    """The states of a learner's episodes, which have begun with the info `begun`."""
    mdp, encoding, count = setup.mdp, setup.encoding, setup.mdp.count
    generators = mdp.data.generators("ties")
    diverged = np.zeros(count, dtype=np.bool_)
    yield Moment(0, mdp, begun, diverged)
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


def _averaged(rollouts: Sequence[Iterator[Moment]], family: TaskFamily) -> Iterator[Moment]:
    """The rollout of an ensemble, from those of its members."""
    if not family.fixed_data:
        raise ValueError(
            f"family={family.name!r}: its data depends on the network, so members of an ensemble have different data"
        )
    for moments in zip(*rollouts, strict=True):
        first = moments[0]
        query = first.mdp.query
        outputs = torch.stack([moment.mdp.outputs(query.inputs) for moment in moments]).mean(dim=0)
        loss = family.loss(outputs, query)
        values = {"loss": loss} | family.metrics(outputs, query, loss)
        info = {f"query_{name}": value.cpu().numpy().astype(np.float64) for name, value in values.items()}
        diverged = np.logical_or.reduce([moment.diverged for moment in moments])
        yield Moment(first.step, first.mdp, info, diverged)

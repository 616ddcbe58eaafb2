"""Finite families: an evaluation draws no task twice, and not more tasks than there are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gym_reml.evaluation import MetaLearner, controls, evaluate, rollout
from gym_reml.evaluation.plans import plan_learner
from gym_reml.evaluation.protocol import evaluate_all
from gym_reml.pool import LayerPool
from gym_reml.streams import NumberedGenerator, numbered_streams, row_streams
from gym_reml.tasks import FAMILIES, SPLITS, TaskFamily, from_arrays, from_classes, make_family
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments

X = np.arange(60 * 30, dtype=float).reshape(60, 30, 1) / 1800
FAMILY = from_arrays(X, X + 0.5, shots=5, queries=5)
LABELLED = from_arrays(X, (X[..., 0] * 1800).astype(int) % 2, shots=5, queries=5)
MIXTURE = make_family("mixture", members=[FAMILY, from_arrays(X[:30], X[:30], shots=5, queries=5)], queries=5)
FINITE = {"regression": FAMILY, "classification": LABELLED, "mixture": MIXTURE}


def learner(family: TaskFamily = FAMILY) -> MetaLearner:
    pool = LayerPool.random(in_features=1, out_features=family.out_features, width=4, layers=2)
    return plan_learner("plan", pool, {"horizon": 2}, (1,), 0.0)


def drawn(family: TaskFamily, seeds: range) -> list[str]:
    """The tasks of an evaluation."""
    mdp = next(rollout(learner(family), family, seeds=seeds, steps=0)).mdp
    members = mdp.tasks.get("member", np.zeros(len(seeds)))
    return [f"{family.describe(mdp.tasks, row)} of {members[row]}" for row in range(len(seeds))]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("seed", [0, 5, 1000])
def test_as_many_tasks_as_there_are_are_each_drawn_once(name: str, split: str, seed: int) -> None:
    family = FINITE[name].replace(split=split)
    count = family.task_count or 0
    assert count == {"train": 36, "validation": 12, "test": 12}[split] * (1.5 if name == "mixture" else 1)
    everything = drawn(family, range(seed, seed + count))
    assert len(set(everything)) == count
    # Task i follows from seed + i, whoever else is there.
    assert [drawn(family, range(seed + row, seed + row + 1))[0] for row in (0, 3, count - 1)] == [
        everything[row] for row in (0, 3, count - 1)
    ]
    assert drawn(family, range(seed + count, seed + 2 * count)) == everything, "then from the start"


def test_some_tasks_of_a_mixture_are_of_all_members() -> None:
    mdp = next(rollout(learner(MIXTURE), MIXTURE.replace(split="test"), seeds=range(9), steps=0)).mdp
    assert set(mdp.tasks["member"]) == {0, 1}


@pytest.mark.parametrize("name", FINITE)
def test_more_tasks_than_there_are_are_refused(name: str) -> None:
    family, count = FINITE[name], FINITE[name].replace(split="test").task_count
    assert count is not None
    own = learner(family)
    message = rf"^tasks={{}}: the 'test' split of '.*' holds {count}, .* give at most {count}"
    for more in (count + 1, 600):
        with pytest.raises(ValueError, match=message.format(more)):
            evaluate(own, family, steps=(0,), tasks=more)
    wanted: list[int | None] = [count, None]
    for tasks in wanted:
        assert evaluate(own, family, steps=(0,), tasks=tasks).values(0).shape == (count,)


@pytest.mark.parametrize("control", ["constant_step", "best_composition", "from_scratch"])
def test_controls_are_tuned_on_all_there_are(control: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, Any]] = []

    def spied(function: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*arguments: Any, **protocol: Any) -> Any:
            asked.append((protocol.get("split", "test"), protocol.get("tasks")))
            return function(*arguments, **protocol)

        return spy

    for function in (evaluate, evaluate_all):
        monkeypatch.setattr(controls, function.__name__, spied(function))
    monkeypatch.setattr(controls, "STEP_GRID", (0.0,))
    getattr(controls, control)(learner(), FAMILY, steps=(1,), tuning_tasks=200)
    assert set(asked) == {("validation", 12), ("test", None)}


def test_one_test_task_alone_cannot_be_shuffled() -> None:
    few = from_arrays(X[:3], X[:3], shots=5, queries=5)
    with pytest.raises(ValueError, match=r"^tasks=1: must be at least 2"):
        controls.shuffled_observation(learner(), few, steps=(1,))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mixture"])
def test_others_never_run_out(name: str, tmp_path: Path) -> None:
    if FAMILIES[name].__module__.endswith("mujoco"):
        pytest.importorskip("mujoco")
    arguments = image_arguments(name, tmp_path) | {"queries": 4} if name in IMAGE_FAMILIES else {}
    assert make_family(name, **arguments).task_count is None
    assert make_family("mixture", members=["sinusoid"]).task_count is None
    assert from_classes(X.reshape(-1, 1), np.arange(1800) % 20).task_count is None


def test_training_draws_as_it_did() -> None:
    """Only evaluations number their tasks; elsewhere seeds draw them as before."""
    members = FAMILY.members
    expected = [members[row_streams(seed, "train").task.integers(len(members))] for seed in range(40)]
    tasks = FAMILY.draw([row_streams(seed, "train").task for seed in range(40)])
    np.testing.assert_array_equal(tasks["task"], expected)
    numbered = FAMILY.draw([numbered_streams(seed, "train").task for seed in range(40)])
    for name in ("support", "query"):
        np.testing.assert_array_equal(numbered[name], tasks[name])


def test_numbered_generators_survive_copies() -> None:
    generator = numbered_streams(7, "test").task
    for same in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert isinstance(same, NumberedGenerator)
        assert same.number == 7
        assert same.random() == row_streams(7, "test").task.random()

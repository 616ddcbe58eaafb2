"""Ensembles, whose outputs are averaged, and policies that read the process before they act."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gym_reml.evaluation import Ensemble, MetaLearner, evaluate, rollout
from gym_reml.evaluation import protocol as evaluation
from gym_reml.evaluation.plans import Plan, Planner, plan_learner
from gym_reml.mdp import TrainingMDP
from gym_reml.pool import LayerPool
from gym_reml.spaces import layer_and_step, make_encoding
from gym_reml.tasks import TaskFamily, from_arrays, make_family
from tests.support.env_helpers import Restless

SMALL = {"depth": 2, "horizon": 3}
GENERATOR = np.random.default_rng(0)
MANY = from_arrays(GENERATOR.normal(size=(60, 20, 2)), GENERATOR.integers(3, size=(60, 20)), shots=4, queries=8)
FAMILIES = {"function": make_family("sinusoid"), "classes": MANY}


def member(family: TaskFamily, seed: int, layers: tuple[int, ...] = (1, 2), step: float = 0.4) -> MetaLearner:
    pool = LayerPool.random(
        in_features=family.in_features, out_features=family.out_features, width=6, layers=3, seed=seed
    )
    return plan_learner(f"member {seed}", pool, SMALL, layers, step)


def trio(family: TaskFamily) -> Ensemble:
    return Ensemble("trio", (member(family, 0), member(family, 1, (3,)), member(family, 2, (2, 2), 0.8)))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_output_is_evaluated(name: str) -> None:
    family = FAMILIES[name]
    ensemble = trio(family)
    steps, tasks = (0, 1, 3), 7
    result = evaluate(ensemble, family, steps=steps, tasks=tasks, seed=3)
    rollouts = [
        rollout(one, family.replace(split="test"), seeds=range(3, 3 + tasks), steps=3) for one in ensemble.members
    ]
    for moments in zip(*rollouts, strict=True):
        if (step := moments[0].step) not in steps:
            continue
        query = moments[0].mdp.query
        outputs = [moment.mdp.outputs(query.inputs) for moment in moments]
        mean = (outputs[0] + outputs[1] + outputs[2]) / 3
        assert not torch.allclose(mean, outputs[0])
        if name == "function":
            expected = (mean - query.targets).square().mean(dim=(1, 2))
            np.testing.assert_allclose(result.values(step, "mse"), expected.numpy(), rtol=1e-5)
        else:
            hits = mean.argmax(dim=2) == query.targets
            np.testing.assert_allclose(result.values(step, "accuracy"), hits.double().mean(dim=1).numpy(), rtol=1e-6)
            expected = torch.nn.functional.cross_entropy(mean.transpose(1, 2), query.targets, reduction="none").mean(1)
        np.testing.assert_allclose(result.values(step), expected.numpy(), rtol=1e-5)
    assert (result.learner, result.steps) == ("trio", steps)


def test_one_member_or_the_same_three_times_equals_the_member() -> None:
    family = FAMILIES["function"]
    alone = evaluate(member(family, 0), family, steps=(0, 3), tasks=9)
    for count in (1, 3):
        together = evaluate(Ensemble("x", (member(family, 0),) * count), family, steps=(0, 3), tasks=9)
        assert together.metrics.keys() == alone.metrics.keys()
        np.testing.assert_allclose(together.metrics["mse"], alone.metrics["mse"], rtol=1e-4)


def test_members_have_the_usual_tasks_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["function"]
    whole = evaluate(trio(family), family, steps=(3,), tasks=10)
    alone = evaluate(member(family, 0), family, steps=(3,), tasks=10)
    assert whole.minus(alone, 3)[0] != 0.0
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    chunked = evaluate(trio(family), family, steps=(3,), tasks=10)
    np.testing.assert_allclose(chunked.metrics["mse"], whole.metrics["mse"], rtol=1e-4)


def test_an_ensemble_diverged_where_any_of_its_members_did() -> None:
    family = FAMILIES["function"]
    wild = member(family, 1)
    wild.pool.parameters["layers.matrix"] *= 1e3
    alone, calm = (evaluate(one, family, steps=(0, 3), tasks=12) for one in (wild, member(family, 0)))
    assert alone.diverged is not None
    assert calm.diverged is not None
    assert alone.diverged.any()
    assert not calm.diverged.any()
    both = evaluate(Ensemble("x", (member(family, 0), wild)), family, steps=(0, 3), tasks=12)
    np.testing.assert_array_equal(both.diverged, alone.diverged)


def test_interventions_and_blindfolds_reach_every_member() -> None:
    family, ensemble, counts = FAMILIES["function"], trio(FAMILIES["function"]), {"acted": 0, "seen": 0}

    def intervene(decided: Any, generators: Any) -> Any:
        counts["acted"] += 1
        return decided._replace(choices=np.ones_like(decided.choices))

    def blindfold(flat: Any) -> Any:
        counts["seen"] += 1
        return flat

    changed = evaluate(ensemble, family, steps=(3,), tasks=5, intervene=intervene, blindfold=blindfold)
    assert counts == {"acted": 9, "seen": 9}
    plans = Ensemble("x", tuple(member(family, seed, (1, 1), step) for seed, step in ((0, 0.4), (1, 0.4), (2, 0.8))))
    expected = evaluate(plans, family, steps=(3,), tasks=5)
    np.testing.assert_allclose(changed.metrics["mse"], expected.metrics["mse"], rtol=1e-5)


def test_invalid_ensembles() -> None:
    with pytest.raises(ValueError, match=r"members=\(\)"):
        Ensemble("x", ())
    with pytest.raises(ValueError, match="family='restless': its data depends on the network"):
        evaluate(trio(Restless()), Restless(), tasks=2)


# -- planners -------------------------------------------------------------------------------------------------------


class Curious:
    """Records its calls of `prepare` and `predict`."""

    def __init__(self) -> None:
        self.trail: list[Any] = []
        self.plan = Plan(make_encoding("box", layer_and_step(3)), layer=(1, 2))

    def prepare(self, mdp: TrainingMDP) -> None:
        self.trail.append((mdp.count, mdp.clock.tolist(), mdp.support.inputs.clone()))

    def predict(self, observation: Any, state: Any = None, *arguments: Any, **more: Any) -> tuple[Any, Any]:
        self.trail.append("acts")
        return self.plan.predict(observation, state)


def test_a_planner_is_prepared_for_every_chunk_before_its_first_action(monkeypatch: pytest.MonkeyPatch) -> None:
    family, policy = FAMILIES["function"], Curious()
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    learner = member(family, 0)
    evaluate(MetaLearner("x", policy, learner.pool, SMALL), family, steps=(2,), tasks=6, seed=8)
    shown = [entry for entry in policy.trail if entry != "acts"]
    assert [entry if entry == "acts" else entry[:2] for entry in policy.trail] == [
        (3, [0, 0, 0]),
        "acts",
        "acts",
    ] * 2
    first = next(rollout(learner, family.replace(split="test"), seeds=range(8, 14), steps=0)).mdp.support.inputs
    torch.testing.assert_close(torch.cat([inputs for *_, inputs in shown]), first)


def test_members_of_an_ensemble_may_plan() -> None:
    family, policy = FAMILIES["function"], Curious()
    planning = MetaLearner("x", policy, member(family, 0).pool, SMALL)
    evaluate(Ensemble("x", (member(family, 1), planning)), family, steps=(1,), tasks=3)
    assert [entry if entry == "acts" else entry[0] for entry in policy.trail] == [3, "acts"]


def test_only_policies_that_prepare_are_planners() -> None:
    assert isinstance(Curious(), Planner)
    assert not isinstance(Curious().plan, Planner)

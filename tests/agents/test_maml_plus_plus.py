"""MAML++: that each of its switches does what its formula says, and that off it is MAML."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from agents.problems.problem import NetworkShape, Problem, own_shape
from agents.problems.recipes import recipe_for
from agents.rivals import maml_plus_plus
from agents.rivals.maml import settings_for
from agents.rivals.maml_plus_plus import Config, Schedules, starting_pool, step_weights, train, with_better_statistics
from agents.rivals.meta_gradient import meta_learn
from agents.rivals.rival import RivalConfig
from gym_reml.evaluation import Ensemble, MetaLearner, evaluate, rollout
from gym_reml.learning import Episodes, LearningOptions, PoolLearner
from gym_reml.pool import LayerPool
from gym_reml.tasks import TaskFamily, from_classes, make_family
from tests.support.env_helpers import make_classes
from tests.support.replays import doubled, live

FUNCTION, CLASSES = make_family("sinusoid"), make_classes()
SHARED = {option.name for option in fields(RivalConfig)}
SWITCHES = [option.name for option in fields(Config) if option.name not in (*SHARED, "step_weights")]
ALONE = Config(ensemble=False)


def problem_of(family: TaskFamily, tasks: int = 64, seed: int = 0) -> Problem:
    recipe = replace(recipe_for(family), width=12)
    return Problem(family, recipe.scaled(tasks), tasks, seed)


def shape_of(problem: Problem) -> NetworkShape:
    return own_shape(problem.plain.recipe)


def set_up(parts: Config, done: float, learning_rate: float = 3e-3) -> PoolLearner:
    """A learner as the schedule sets it up for the moment when this share is done."""
    problem = problem_of(FUNCTION)
    pool = starting_pool(problem, shape_of(problem), parts, "step", 0.01)
    options = LearningOptions(learning_rate=learning_rate, rates_learning_rate=learning_rate, step_weights=[0, 0, 1])
    learner = PoolLearner(pool, FUNCTION, "maml", options)
    Schedules(problem, shape_of(problem), parts, learning_rate)(learner, done)
    return learner


def alone(family: TaskFamily, parts: Config = ALONE, tasks: int = 64) -> MetaLearner:
    learner = train(problem_of(family, tasks), replace(parts, ensemble=False))
    assert isinstance(learner, MetaLearner)
    return learner


def members(learner: MetaLearner | Ensemble) -> tuple[MetaLearner, ...]:
    return learner.members if isinstance(learner, Ensemble) else (learner,)


def test_these_are_the_switches() -> None:
    assert set(SWITCHES) == {
        "multi_step_loss",
        "derivative_order_annealing",
        "per_step_rates",
        "per_step_statistics",
        "per_step_norms",
        "cosine_annealing",
        "ensemble",
    }
    defaults = Config()
    assert [name for name in SWITCHES if not getattr(defaults, name)] == ["derivative_order_annealing"]


# -- MSL ------------------------------------------------------------------------------------------------------------


def test_the_step_weights_of_the_multi_step_loss() -> None:
    np.testing.assert_allclose(step_weights(0), [0.2] * 5)
    np.testing.assert_allclose(step_weights(3), [0.16] * 4 + [0.36])
    np.testing.assert_allclose(step_weights(6), [0.12] * 4 + [0.52])
    # From here on .03 / 5 is more than what is left of 1 / 5.
    np.testing.assert_allclose(step_weights(14.9), [0.006] * 4 + [0.976])
    assert step_weights(15) == step_weights(99) == (0.0, 0.0, 0.0, 0.0, 1.0)
    np.testing.assert_allclose(step_weights(1, steps=2, epochs=4), [0.375, 0.625])
    for epoch in range(15):
        weights = step_weights(epoch)
        assert sum(weights) == pytest.approx(1.0)
        np.testing.assert_allclose(weights[:4], max(1 / 5 - epoch / (5 * 15), 0.03 / 5))
    assert all(later[-1] >= earlier[-1] for earlier, later in pairwise(map(step_weights, range(20))))


@pytest.mark.parametrize(("done", "epoch"), [(0.0, 0), (0.034, 3), (0.0399, 3), (0.14, 14), (0.15, 15), (0.99, 99)])
def test_the_multi_step_loss_follows_the_epochs(done: float, epoch: int) -> None:
    assert set_up(ALONE, done).options.step_weights == step_weights(epoch)
    assert set_up(replace(ALONE, multi_step_loss=False), done).options.step_weights == [0, 0, 1]


# -- DA and CA ------------------------------------------------------------------------------------------------------


def test_derivative_order_annealing_is_first_order_for_the_first_half() -> None:
    moments = (0.0, 0.25, 0.499, 0.5, 0.75, 0.99)
    annealed = [set_up(replace(ALONE, derivative_order_annealing=True), done).rule for done in moments]
    assert annealed == ["fomaml"] * 3 + ["maml"] * 3
    assert {set_up(ALONE, done).rule for done in moments} == {"maml"}


def test_derivative_order_annealing_changes_what_is_learned() -> None:
    exact, annealed = (alone(FUNCTION, replace(ALONE, derivative_order_annealing=on)).pool for on in (False, True))
    assert not exact.parameters["stem.matrix"].equal(annealed.parameters["stem.matrix"])


def test_cosine_annealing_of_the_outer_learning_rate() -> None:
    def rates(parts: Config, done: float, start: float) -> set[float]:
        groups = set_up(parts, done, start).state()["optimizer"]["param_groups"]
        assert len(groups) == 2, "weights and step sizes"
        return {round(group["lr"], 12) for group in groups}

    for start in (3e-3, 1e-2):
        assert rates(ALONE, 0.0, start) == {start}
        (middle,), (quarter,), (end,) = (rates(ALONE, done, start) for done in (0.5, 0.25, 1.0))
        assert middle == pytest.approx((start + 1e-5) / 2)
        assert quarter == pytest.approx(1e-5 + (start - 1e-5) * (1 + 0.5**0.5) / 2)
        assert end == pytest.approx(1e-5)
        assert {*rates(replace(ALONE, cosine_annealing=False), 0.7, start)} == {start}


# -- LSLR -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [FUNCTION, CLASSES], ids=["function", "classes"])
def test_step_sizes_are_learned_for_each_layer_and_step(family: TaskFamily) -> None:
    pool = alone(family).pool
    first = settings_for(problem_of(family), 5).rate
    assert pool.granularity == "step"
    assert {name: tuple(rate.shape) for name, rate in pool.rates.items() if "norm" not in name} == {
        **({"stem.matrix": (5,)} if pool.adapt_stem else {}),
        "layers.matrix": (5, 2),
        "head.matrix": (5,),
    }
    assert all((rate - first).abs().min() > 1e-5 for rate in pool.rates.values()), "all have moved"
    single = alone(family, replace(ALONE, per_step_rates=False)).pool
    assert {name: tuple(rate.shape) for name, rate in single.rates.items()} == {"all": ()}
    assert single.rates["all"] != first


def test_a_negative_step_size_climbs() -> None:
    """Evaluated as plain gradient steps of these sizes, by autograd; nothing clamps them."""
    learner, steps, tasks = alone(FUNCTION), 5, 4
    pool = learner.pool
    pool.rates["layers.matrix"][1, 0] = -0.05
    pool.rates["head.matrix"][0] = -0.02
    result = evaluate(learner, FUNCTION, steps=range(1, 6), tasks=tasks, seed=1)
    mdp = next(rollout(learner, FUNCTION.replace(split="test"), seeds=range(1, 1 + tasks), steps=0)).mdp
    whole = Episodes(
        [doubled(mdp.support)],
        [doubled(mdp.query)],
        torch.zeros(steps, tasks, dtype=torch.int64),
        torch.ones(steps, tasks, dtype=torch.float64),
        (1, 2),
        2,
    )
    exact = pool.clone()
    for part in (exact.parameters, exact.rates):
        part |= {name: tensor.double() for name, tensor in part.items()}
    expected = torch.stack([live(exact, FUNCTION, whole, row)[0] for row in range(tasks)]).T
    np.testing.assert_allclose(result.metrics["loss"], expected.detach().numpy(), rtol=1e-3)


def test_step_sizes_become_negative_where_that_helps() -> None:
    """Of a start whose step size is so small that one update takes some below zero."""
    problem = problem_of(FUNCTION, tasks=32)
    shape = shape_of(problem)
    pool = starting_pool(problem, shape, ALONE, "step", 1e-3)
    settings = replace(settings_for(problem, 5), rates="step")
    meta_learn(problem, shape, settings, pool=pool, schedule=Schedules(problem, shape, ALONE, 3e-3))
    learned = torch.cat([rate.flatten() for rate in pool.rates.values()])
    # Adam's first step is as long as its learning rate.
    assert ((learned - 4e-3).abs() < 1e-4).sum() + ((learned + 2e-3).abs() < 1e-4).sum() == len(learned)
    pool.rates["head.matrix"][0] = -2e-3
    meta_learn(problem, shape, settings, pool=pool, schedule=Schedules(problem, shape, ALONE, 3e-3))
    assert pool.rates["head.matrix"][0] != -2e-3, "and go on learning there"


# -- BNRS and BNWB --------------------------------------------------------------------------------------------------


def test_images_have_norms_and_statistics_for_each_step() -> None:
    pool = alone(CLASSES).pool
    assert (pool.kind, pool.norm_steps) == ("batch_norm", 5)
    assert tuple(pool.parameters["layers.norm"].shape) == (5, 2, 2, 12)
    assert not {"stem.norm", "layers.norm"} & {*pool.adapted, *pool.rates}
    assert {name: tuple(tensor.shape) for name, tensor in pool.statistics.items()} == {
        "stem": (5, 2, 12),
        "layers": (5, 2, 2, 12),
    }
    start = starting_pool(problem_of(CLASSES), NetworkShape(12, 2, "batch_norm"), ALONE, "step", 0.4)
    for name, tensor in (pool.statistics | pool.parameters).items():
        before = (start.statistics | start.parameters)[name]
        assert not tensor.equal(before), f"{name}: learned, or seen"
    assert (pool.parameters["stem.norm"][0] != pool.parameters["stem.norm"][4]).any(), "each step its own"
    assert (pool.statistics["layers"][0] != pool.statistics["layers"][4]).any()


def test_convolutions_stay_convolutions(capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    family = from_classes(images, np.arange(60) % 30, ways=2, shots=1, queries=2)
    recipe = replace(recipe_for(family), width=4, layer_kind="conv", bootstrap_learning_rate=3e-3).scaled(16)
    learner = train(Problem(family, recipe, 16, 0), ALONE)
    assert isinstance(learner, MetaLearner)
    assert (learner.pool.kind, learner.pool.norm_steps, learner.pool.statistics) == ("conv", None, {})
    assert "neither BNRS nor BNWB" in capsys.readouterr().out


def test_without_statistics_the_points_of_the_pass_normalise() -> None:
    pool = alone(CLASSES, replace(ALONE, per_step_statistics=False)).pool
    assert (pool.kind, pool.norm_steps, pool.statistics) == ("batch_norm", 5, {})


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("helpful", [False, True])
def test_validation_tasks_decide_whether_running_statistics_are_used(
    ensemble: bool, helpful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = alone(CLASSES)
    asked: list[str] = []

    class Found:
        def __init__(self, candidate: MetaLearner | Ensemble) -> None:
            kept = bool(members(candidate)[0].pool.statistics)
            self.loss = 1.0 if kept == helpful else 2.0

        def values(self, step: int) -> Any:
            return np.full(3, self.loss)

    def judge(candidate: MetaLearner | Ensemble, family: TaskFamily, *, split: str, **_: Any) -> Found:
        asked.append(split)
        return Found(candidate)

    monkeypatch.setattr(maml_plus_plus, "evaluate", judge)
    given = Ensemble("maml_plus_plus", (learner, learner)) if ensemble else learner
    found = with_better_statistics(given, problem_of(CLASSES))
    assert asked == ["validation"] * 2
    assert len(members(found)) == len(members(given))
    for member in members(found):
        assert bool(member.pool.statistics) == helpful
        for name, tensor in learner.pool.parameters.items():
            assert torch.equal(member.pool.parameters[name], tensor)
    assert learner.pool.statistics, "its own are left alone"


def test_where_there_are_no_statistics_nothing_is_to_be_decided() -> None:
    learner = alone(FUNCTION)
    assert with_better_statistics(learner, problem_of(FUNCTION)) is learner


@pytest.mark.parametrize("statistics", [False, True])
def test_without_norms_for_each_step_it_is_plain_batch_norm(statistics: bool) -> None:
    pool = alone(CLASSES, replace(ALONE, per_step_norms=False, per_step_statistics=statistics)).pool
    assert (pool.kind, pool.norm_steps, pool.statistics) == ("batch_norm", None, {})
    assert {"stem.norm", "layers.norm"} <= {*pool.adapted} & {*pool.rates}


def test_functions_have_no_norms() -> None:
    pool = alone(FUNCTION).pool
    assert (pool.kind, pool.norm_steps, pool.statistics) == ("residual", None, {})


# -- the ensemble ---------------------------------------------------------------------------------------------------


def candidate(problem: Problem, seed: int) -> MetaLearner:
    pool = shape_of(problem).fresh(replace(problem, seed=seed)).with_rates("step", 0.01 * (seed + 1), steps=5)
    return shape_of(problem).learner(f"{seed}", pool, 5)


def test_the_three_best_on_validation_tasks_are_kept_best_first() -> None:
    problem = problem_of(FUNCTION)
    schedules = Schedules(problem, shape_of(problem), Config(), 3e-3)
    everyone = [candidate(problem, seed) for seed in range(6)]
    for number, learner in enumerate(everyone, start=1):
        schedules.consider(learner)
        assert len(schedules.best) == min(number, 3)
    protocol: dict[str, Any] = {"steps": (5,), "tasks": 200, "split": "validation"}
    losses = {learner.name: float(evaluate(learner, FUNCTION, **protocol).values(5).mean()) for learner in everyone}
    expected = sorted(losses, key=lambda name: losses[name])[:3]
    assert [learner.name for _, learner in schedules.best] == expected
    assert [loss for loss, _ in schedules.best] == pytest.approx([losses[name] for name in expected])


def test_models_are_looked_at_ten_times_in_the_second_half() -> None:
    seen: list[float] = []

    class Watched(Schedules):
        def consider(self, learner: MetaLearner) -> None:
            seen.append(now)
            assert learner.pool is not pool_learner.pool, "a copy, which stays as it is"
            assert learner.pool.parameters["head.matrix"].equal(pool_learner.pool.parameters["head.matrix"])

    problem = problem_of(FUNCTION)
    pool = starting_pool(problem, shape_of(problem), Config(), "step", 0.01)
    pool_learner = PoolLearner(pool, FUNCTION, "maml")
    for parts, expected in ((Config(), np.arange(50, 100, 5) / 100), (ALONE, [])):
        seen.clear()
        training = Watched(problem, shape_of(problem), parts, 3e-3)
        for iteration in range(1000):
            now = iteration / 1000
            training(pool_learner, now)
        np.testing.assert_allclose(seen, expected, atol=0.0011)


def test_the_ensemble_is_made_of_the_best_and_judged_by_their_mean_output(monkeypatch: pytest.MonkeyPatch) -> None:
    considered: list[tuple[float, LayerPool]] = []
    consider = Schedules.consider

    def watch(self: Schedules, learner: MetaLearner) -> None:
        consider(self, learner)
        kept = [loss for loss, other in self.best if other is learner]
        considered.append((kept[0] if kept else np.inf, learner.pool))

    monkeypatch.setattr(Schedules, "consider", watch)
    monkeypatch.setattr(maml_plus_plus, "VALIDATION_TASKS", 20)
    problem = problem_of(FUNCTION, tasks=32 * 12)
    ensemble = train(problem)
    assert isinstance(ensemble, Ensemble)
    assert (ensemble.name, len(ensemble.members)) == ("maml_plus_plus", 3)
    assert len(considered) == 7, "six updates of the second half, and the end"
    best = sorted(considered, key=lambda entry: entry[0])[:3]
    assert [member.pool for member in ensemble.members] == [pool for _, pool in best]
    last = alone(FUNCTION, tasks=32 * 12).pool
    torch.testing.assert_close(considered[-1][1].trainable(), last.trainable(), rtol=0, atol=0)

    family, tasks = FUNCTION.replace(split="test"), 6
    result = evaluate(ensemble, FUNCTION, steps=(0, 5), tasks=tasks)
    for step in (0, 5):
        outputs = []
        for member in ensemble.members:
            *_, moment = rollout(member, family, seeds=range(tasks), steps=step)
            outputs.append(moment.mdp.outputs(moment.mdp.query.inputs))
        mean = torch.stack(outputs).mean(dim=0)
        expected = (mean - moment.mdp.query.targets).square().mean(dim=(1, 2))
        np.testing.assert_allclose(result.values(step), expected.numpy(), rtol=1e-5)


def test_without_an_ensemble_it_is_the_last_model() -> None:
    assert isinstance(Config(ensemble=False).learner(problem_of(FUNCTION, 32)), MetaLearner)


def test_with_everything_off_it_is_maml() -> None:
    """On networks of its shape, but for the learning rate that does not fall."""
    problem = problem_of(FUNCTION)
    nothing: dict[str, Any] = dict.fromkeys(SWITCHES, False)
    off = alone(FUNCTION, Config(**nothing))
    plain = meta_learn(problem, shape_of(problem), settings_for(problem, 5), schedule=lambda learner, done: None)
    torch.testing.assert_close(off.pool.trainable(), plain.trainable(), rtol=0, atol=0)

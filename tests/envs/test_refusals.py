"""Refused steps depend on the support set only, and rewards on a bounded query loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.evaluation import evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.weights import Weights, descend, gradient_norms, without_overflow
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import FAMILIES, Batch, TaskFamily, make_family
from gym_reml.tasks.base import Forward, Generators, Tasks
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.env_helpers import SMALL, assert_same, take_step
from tests.support.family_arguments import family_arguments

ROWS, HORIZON = 4, 6
SHOWN = ("diverged", "layer", "depth", "step_size", "support_loss")


def changed(tensor: Tensor) -> Tensor:
    return 1e3 * tensor + 7.0 if tensor.is_floating_point() else tensor.flip(1)


def with_other_queries(family: TaskFamily) -> TaskFamily:
    """The same family with other query sets."""

    class Tampered(type(family)):  # type: ignore[misc]
        def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
            batch: Batch = super().query(tasks, forward, generators)
            return batch.map(changed)

    other: TaskFamily = object.__new__(Tampered)
    other.__dict__.update(family.__dict__)
    return other


def play(arguments: dict[str, Any], learning: bool | None = None) -> list[tuple[Any, ...]]:
    envs: Any = gym.make_vec("NetBuildHybrid-v0", num_envs=ROWS, horizon=HORIZON, **arguments)
    if learning is not None:
        envs.unwrapped.learning = learning
    trail = [envs.reset(seed=3)]
    generator = np.random.default_rng(0)
    layers = envs.unwrapped.pool.layers
    for _ in range(3 * HORIZON):
        action = {
            "layer": generator.integers(layers + 1, size=ROWS),
            "step_size": generator.uniform(-1, 1, (ROWS, 1)).astype(np.float32),
        }
        trail.append(envs.step(action))
    return trail


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("learn", [None, "maml"])
def test_observations_do_not_depend_on_the_query_set(family: str, learn: str | None, tmp_path: Path) -> None:
    arguments = family_arguments(family, tmp_path) | {"min_step": 1e-2, "max_step": 1e9, "depth": 3, "learn": learn}
    try:
        sizes = {name: arguments[name] for name in ("shots", "queries")}
        own = make_family(arguments["family"], **arguments.pop("family_kwargs"), **sizes)
        trails = [
            play(arguments | {"family": each}, None if learn is None else False)
            for each in (own, with_other_queries(own))
        ]
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        pytest.skip(str(error))
    refused, moved = 0, False
    for first, second in zip(*trails, strict=True):
        assert_same(first[0], second[0])
        for name in set(SHOWN) & set(first[-1]):
            assert_same(first[-1][name], second[-1][name])
        refused += int(np.sum(first[-1].get("diverged", 0)))
        moved |= not np.array_equal(first[-1]["query_loss"], second[-1]["query_loss"])
    assert moved, "the query sets are others"
    assert refused or not own.fixed_data, "steps were refused on the way"


@dataclass(frozen=True)
class FarQueries(Sinusoid):
    """Query points so far away that their loss exceeds the cap after almost every step."""

    name: ClassVar[str] = "far-queries"

    far: float = 1e3

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        batch = super().query(tasks, forward, generators)
        return Batch(batch.inputs * self.far, batch.targets)


@pytest.mark.parametrize("reward", ["performance", "improvement"])
@pytest.mark.parametrize("feedback", ["query", "support"])
@pytest.mark.parametrize("far", [1e3, 1e30])
def test_rewards_see_a_bounded_query_loss(far: float, reward: str, feedback: str) -> None:
    family = FarQueries(far=far)
    arguments = SMALL | {"family": family, "reward": reward, "feedback": feedback, "max_step": 0.5, "min_step": 0.4}
    arguments |= {"horizon": HORIZON, "autoreset_mode": "Disabled"}
    envs: Any = gym.make_vec("NetBuildHybrid-v0", num_envs=ROWS, **arguments)
    _, info = envs.reset(seed=0)
    bound = np.maximum(info["query_loss"], family.cap)
    beyond = 0
    for step in range(HORIZON):
        before = info
        action = {"layer": np.full(ROWS, step % 3), "step_size": np.zeros((ROWS, 1), np.float32)}
        _, earnings, *_, info = envs.step(action)
        passed = envs.unwrapped.mdp.training.query_diverged
        assert (info["query_loss"] <= bound).all()
        assert (info["query_loss"][passed] == bound[passed]).all()
        np.testing.assert_array_equal(info["query_mse"], info["query_loss"])
        lost = info["diverged"] | passed if feedback == "query" else info["diverged"]
        np.testing.assert_array_equal(info["reward_terms"]["divergence"], np.where(lost, -1 / HORIZON, 0.0))
        scores = [np.log1p(each[f"{feedback}_loss"]) for each in (before, info)]
        earned = -scores[1] / HORIZON if reward == "performance" else scores[0] - scores[1]
        np.testing.assert_allclose(earnings, earned + np.where(lost, -1 / HORIZON, 0.0), rtol=1e-6)
        beyond += int((passed & ~info["diverged"]).sum())
    assert beyond > 0, "accepted, and far off on the query set"


def test_evaluations_count_divergence_on_the_query_set() -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=2)
    arguments = {"action": "box", "depth": 2, "horizon": 3, "initial_layers": [1], "min_step": 0.4, "max_step": 0.4}
    learner = plan_learner("plain", pool, arguments, (), 0.0)
    result = evaluate(learner, FarQueries(), steps=(0, 3), tasks=10)
    assert result.diverged is not None
    assert not result.diverged[0].any()
    assert result.diverged[1].any()
    assert np.isfinite(result.values(3)).all()


def test_returns_have_the_same_bound() -> None:
    """Losses of policies are negative returns: low ones are never clipped, high ones and NaN are."""
    family = make_family("navigation", steps=3, shots=3, queries=3, return_scale=1e-3)
    pool = LayerPool.random(in_features=2, out_features=4, width=6, layers=2, constant_outputs=2)
    mdp = TrainingMDP(ROWS, family, pool, Objective(2), slots=1)
    mdp.seed(range(ROWS), many_streams(0, ROWS, "train"))
    mdp.reset()
    start = mdp.query_loss.copy()
    assert (start > family.cap).all(), "far from their goals, on this scale"
    returns = mdp.query.extras["returns"]
    for value, expected, passed in (
        (1e6, -1e6, False),
        (-1e6, None, True),
        (torch.nan, None, True),
        (torch.inf, None, True),
        (-torch.inf, None, True),
    ):
        returns[:] = value
        with torch.inference_mode():
            mdp.training._measure()
        np.testing.assert_allclose(mdp.query_loss, start if expected is None else np.full(ROWS, expected))
        assert mdp.training.query_diverged.tolist() == [passed] * ROWS
        np.testing.assert_allclose(mdp.row_metrics(0)["return"], -mdp.query_loss[0], rtol=1e-6)


@dataclass(frozen=True)
class TwoPoints(Sinusoid):
    """Two points between which the output's gradients cancel each other out."""

    name: ClassVar[str] = "two-points"

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        x = torch.tensor([[1.0], [0.5]]).repeat(len(generators), 1, 1)
        y = torch.tensor([[2.0**-10 - 2.0], [2.0]]).repeat(len(generators), 1, 1)
        return Batch(x, y)

    query = support
    signal_size = 0

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        return outputs.new_zeros(len(outputs), 0)


@pytest.mark.parametrize("step_size", [1e30, 3e38])
def test_infinite_weights_that_no_output_shows_are_refused(step_size: float) -> None:
    """A dead unit hides that its bias is minus infinity."""
    pool = LayerPool.random(in_features=1, out_features=1, width=1, layers=1, kind="relu")
    pool.parameters["stem.matrix"].copy_(torch.tensor([[1.0], [2.0**-10 - 1.0]]))
    pool.parameters["head.matrix"].copy_(torch.tensor([[1.0], [0.0]]))
    mdp = TrainingMDP(1, TwoPoints(), pool, Objective(2), slots=1, step_range=(step_size, step_size))
    mdp.seed([0], many_streams(0, 1, "train"))
    mdp.reset()
    outcome = take_step(mdp, np.array([0]), np.zeros(1, dtype=np.float32))
    weights = mdp.networks.weights(0).tensors()
    assert all(tensor.isfinite().all() for tensor in weights)
    assert outcome.info["diverged"].tolist() == [step_size > 1e38]
    assert outcome.info["support_loss"][0] == pytest.approx(4.0, rel=1e-2), "seen from outside all is well"


@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("size", [1e15, 3e18, 1e25, 3e38])
def test_long_gradients_are_clipped_as_short_ones(kind: str, size: float) -> None:
    """The squares of their numbers are too large for float32."""
    generator = torch.Generator().manual_seed(0)
    pool = LayerPool.random(in_features=2, out_features=3, width=5, layers=2, kind=kind)
    weights = pool.assemble(torch.tensor([[1, 2, 1], [2, 2, 1]])).weights
    slopes = [torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.5 for tensor in weights.tensors()]
    factor = torch.tensor([1.0, size / 0.5, 2.0], dtype=torch.float64).reshape(-1, 1, 1)
    exact = weights.like([slope * factor for slope in slopes])
    given = exact.like([slope.float() for slope in exact.tensors()])
    sizes = torch.tensor([0.1, 0.2, 0.3])
    norms = gradient_norms(given)
    shorter, shorter_norms = without_overflow(given, norms)
    found = descend(weights, shorter, norms=shorter_norms, step_sizes=sizes)
    double = weights.like([tensor.double() for tensor in weights.tensors()])
    expected = descend(double, exact, norms=gradient_norms(exact), step_sizes=sizes.double())
    for one, other, start in zip(found.tensors(), expected.tensors(), double.tensors(), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)
        assert not torch.equal(other[1], start[1]), "it moves"
    if size < 1e18:
        assert shorter is given


def test_a_gradient_that_is_infinite_stays_so() -> None:
    matrices = [torch.ones(3, 2, 2), torch.ones(3, 2, 1)]
    matrices[0][1, 0, 0] = torch.inf
    matrices[0][2, 0, 0] = torch.nan
    gradient = Weights([{"matrix": matrix} for matrix in matrices])
    _, norms = without_overflow(gradient, gradient_norms(gradient))
    assert norms.isfinite().all(dim=0).tolist() == [True, False, False]


@dataclass(frozen=True)
class Faulty(Sinusoid):
    """A closed form with an error."""

    name: ClassVar[str] = "faulty"

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        return outputs @ batch.targets


def test_mistakes_in_a_closed_form_are_shown() -> None:
    """An error in a closed form must not fall back to automatic differentiation."""
    env = gym.make("NetBuild-v0", family=Faulty(), **SMALL)
    with pytest.raises(RuntimeError, match="Expected size for first two dimensions"):
        env.reset(seed=0)

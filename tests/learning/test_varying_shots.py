"""`shots=(low, high)`: every task has its own number of support points, and equals a task with that many shots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.evaluation import Result, evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.learning import Episodes, replay
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams, row_streams
from gym_reml.tasks import FAMILIES, Batch, TaskFamily, from_arrays, from_classes, from_function, make_family
from gym_reml.tasks.base import WEIGHTS
from gym_reml.tasks.functions.sinusoid import Sinusoid
from gym_reml.tasks.images.classes import ClassFamily
from tests.support.env_helpers import take_step
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments

X = np.random.default_rng(0).normal(size=(9, 60, 2))
OWN: dict[str, Any] = {
    "formula": lambda: from_function(lambda x, a: a * x, {"a": (1, 2)}),
    "regression": lambda: from_arrays(X, X[..., ::-1], shots=5, queries=9),
    "classification": lambda: from_arrays(X, np.arange(540).reshape(9, 60) % 3, shots=5, queries=9),
    "features": lambda: from_classes(X.reshape(-1, 2), np.arange(540) % 18, ways=3, queries=9),
    "images": lambda: from_classes((X.reshape(540, 1, 2) * 60 % 255).astype(np.uint8), np.arange(540) % 18, queries=10),
    "float images": lambda: from_classes(X.reshape(540, 1, 2), np.arange(540) % 18, ways=3, queries=9),
}
NAMES = [*(name for name, kind in FAMILIES.items() if kind.fixed_data), *OWN]
ROWS = 6


def family_of(name: str, folder: Path) -> TaskFamily:
    if name in OWN:
        family: TaskFamily = OWN[name]()
        return family
    if name == "mixture":
        return make_family(name, members=["sinusoid", "step"], queries=9)
    if name in IMAGE_FAMILIES:
        more = {"domains": ["inverted"]} if name == "omniglot" else {}
        return make_family(name, **(image_arguments(name, folder) | {"ways": 3, "queries": 9} | more))
    return make_family(name, queries=9)


def process(family: TaskFamily, seeds: range, kind: str = "residual") -> TrainingMDP:
    pool = LayerPool.random(
        in_features=family.in_features, out_features=family.out_features, width=6, layers=3, kind=kind, seed=1
    )
    mdp = TrainingMDP(len(seeds), family, pool, Objective(horizon=3), slots=2, step_range=(0.01, 1.0))
    mdp.seed(range(len(seeds)), [row_streams(seed, "train") for seed in seeds])
    mdp.reset()
    return mdp


def play(mdp: TrainingMDP) -> list[dict[str, Any]]:
    """Everything returned by three steps, row by row."""
    generator = np.random.default_rng(0)
    trail: list[dict[str, Any]] = []
    layers, sizes = generator.integers(3, size=(3, ROWS)), generator.uniform(-1, 1, (3, ROWS)).astype(np.float32)
    for step in range(4):
        trail.append({"observation": mdp.observe(), "support": mdp.support_loss.copy(), "query": mdp.query_loss.copy()})
        if step < 3:
            trail[-1]["reward"] = take_step(mdp, layers[step, : mdp.count], sizes[step, : mdp.count]).reward
    return trail


def points_of(batch: Batch, row: int) -> Batch:
    """The points of a row with positive weight, as a batch of one row."""
    kept = batch.extras[WEIGHTS][row] > 0
    return Batch(batch.inputs[row, kept].unsqueeze(0), batch.targets[row, kept].unsqueeze(0))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "residual") for name in NAMES),
        *(("classification", name) for name, kind in LAYER_KINDS.items() if not kind.across_points),
    ],
)
def test_a_row_is_what_it_would_be_with_its_points_alone(name: str, kind: str, tmp_path: Path) -> None:
    """Observations, losses and rewards of three steps, against a batch of one row with that number of shots."""
    family = family_of(name, tmp_path)
    together = process(family.replace(shots=(2, 7)), range(ROWS), kind)
    trail = play(together)
    weights = together.support.extras[WEIGHTS]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(ROWS))
    per_class = family.out_features if isinstance(family, ClassFamily) else 1
    counts = (weights > 0).sum(dim=1).numpy() // per_class
    assert len(set(counts)) > 1
    assert ((counts >= 2) & (counts <= 7)).all()
    generator = np.random.default_rng(0)
    layers, sizes = generator.integers(3, size=(3, ROWS)), generator.uniform(-1, 1, (3, ROWS)).astype(np.float32)
    for row in range(ROWS):
        alone = process(family.replace(shots=int(counts[row])), range(row, row + 1), kind)
        for key, values in alone.tasks.items():
            if key.rpartition(".")[2] != "support":
                np.testing.assert_array_equal(values[0], together.tasks[key][row])
        own = points_of(together.support, row)
        torch.testing.assert_close(own.inputs, alone.support.inputs)
        torch.testing.assert_close(own.targets, alone.support.targets)
        for step in range(4):
            shown: dict[str, Any] = {
                "support": alone.support_loss,
                "query": alone.query_loss,
                "observation": alone.observe(),
            }
            if step < 3:
                shown["reward"] = take_step(alone, layers[step, [row]], sizes[step, [row]]).reward
            for key, value in shown.items():
                np.testing.assert_allclose(value[0], trail[step][key][row], rtol=2e-4, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_replays_and_their_gradients_do_not_know_the_padding(name: str, tmp_path: Path) -> None:
    family = family_of(name, tmp_path).replace(shots=(2, 7))
    mdp = process(family, range(ROWS))
    layers, sizes = torch.tensor([[1] * ROWS, [2] * ROWS]), torch.full((2, ROWS), 0.3)

    def gradients(support: Batch, row: int) -> list[Tensor]:
        index = torch.tensor([row])
        query = mdp.query.rows(index)
        episodes = Episodes([support], [query], layers[:, [row]], sizes[:, [row]], (), 2)
        leaves = [leaf.detach().clone().requires_grad_() for leaf in mdp.pool.parameters.values()]
        pool = mdp.pool.clone()
        pool.parameters.update(zip(pool.parameters, leaves, strict=True))
        losses, _, _ = replay(pool, family, episodes)
        return [losses.detach(), *torch.autograd.grad(losses.sum(), leaves, allow_unused=True)]

    for row in range(ROWS):
        padded = mdp.support.rows(torch.tensor([row]))
        spoiled = padded.map(torch.clone)
        spoiled.inputs[padded.extras[WEIGHTS] == 0] = 7.0
        spoiled.targets[padded.extras[WEIGHTS] == 0] = 0
        alone = points_of(mdp.support, row)
        for one, *others in zip(*(gradients(batch, row) for batch in (alone, padded, spoiled)), strict=True):
            for other in others:
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_numbers_are_uniform_and_the_rows_own() -> None:
    family = make_family("sinusoid", shots=(3, 6))
    streams = many_streams(0, 2000, "train")
    tasks = family.draw([row.task for row in streams])
    support = family.support(tasks, lambda x: x, [row.support for row in streams])
    counts = (support.extras[WEIGHTS] > 0).sum(dim=1)
    np.testing.assert_allclose(np.bincount(counts)[3:] / 2000, 0.25, atol=0.04)
    for row in range(3):
        own = row_streams(row, "train")
        alone = family.support(family.draw([own.task]), lambda x: x, [own.support])
        assert torch.equal(alone.extras[WEIGHTS][0], support.extras[WEIGHTS][row])


@pytest.mark.parametrize("name", ["sinusoid", "omniglot"])
def test_pictures_show_only_points_that_count(name: str, tmp_path: Path) -> None:
    family = family_of(name, tmp_path).replace(shots=(1, 7))
    for seed in range(4):
        env = gym.make("NetBuild-v0", family=family, width=6, layers=2, pool="random", render_mode="rgb_array")
        env.reset(seed=seed)
        batch = env.unwrapped.mdp.support  # type: ignore[attr-defined]
        real = {tuple(point) for point in points_of(batch, 0).inputs[0].tolist()}
        assert {tuple(point) for point in batch.inputs[0].tolist()} == real
        assert env.render() is not None


def test_evaluations_of_varying_shots_compare_and_are_saved(tmp_path: Path) -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=4, layers=2)
    learner = plan_learner("plan", pool, {"horizon": 2}, (1,), 0.0)
    result = evaluate(learner, "sinusoid", shots=(3, 10), steps=(0, 1), tasks=4)
    assert result.shots == (3, 10)
    result.save(tmp_path / "result.json")
    assert result.minus(Result.load(tmp_path / "result.json"), 1)[0] == 0.0
    with pytest.raises(ValueError, match="shots"):
        result.minus(evaluate(learner, "sinusoid", shots=5, steps=(0, 1), tasks=4), 1)


def test_environments_learn_with_them() -> None:
    arguments: dict[str, Any] = {"learn": "maml", "learn_kwargs": {"batch_size": 4}, "horizon": 2, "shots": (2, 6)}
    envs = gym.make_vec("NetBuild-v0", num_envs=4, width=6, layers=2, pool="random", **arguments)
    envs.reset(seed=0)
    for _ in range(5):
        _, reward, *_ = envs.step(envs.action_space.sample())
    assert np.isfinite(reward).all()
    assert envs.unwrapped.mdp.learner.updates > 0  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Own(Sinusoid):
    name: ClassVar[str] = "own"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs - batch.targets).abs().mean(dim=(1, 2))


@dataclass(frozen=True)
class Sure(Own):
    name: ClassVar[str] = "sure"
    varying_shots: ClassVar[bool] = True


def test_who_cannot_says_so() -> None:
    for name in ("navigation", *(name for name, kind in FAMILIES.items() if not kind.fixed_data)):
        if not FAMILIES[name].__module__.endswith("mujoco"):
            with pytest.raises(ValueError, match=rf"^shots=\(2, 5\): '{name}' takes one number for all tasks$"):
                make_family(name, shots=(2, 5))
    with pytest.raises(
        ValueError, match=r"^shots=\(2, 5\): 'own' takes one .* \(its own loss may count all points alike\)"
    ):
        Own(shots=(2, 5))
    with pytest.raises(ValueError, match="'own' takes one"):
        make_family("mixture", members=[Own()], shots=(2, 5))
    assert Sure(shots=(2, 5)).most_shots == 5
    with pytest.raises(ValueError, match=r"^shots=\(2, 5\): layers of kind 'batch_norm' use batch statistics"):
        gym.make("NetBuild-v0", shots=(2, 5), layer_kind="batch_norm", pool="random")


@pytest.mark.parametrize("shots", [(0, 3), (4, 3), (1, 2, 3), (), (1.0, 2), (True, 2), "12", [2]])
def test_bad_ranges_of_shots(shots: Any) -> None:
    with pytest.raises(ValueError, match=r"^shots=.*: must be a positive integer"):
        make_family("sinusoid", shots=shots)
    with pytest.raises(ValueError, match="together more than the 60 points"):
        from_arrays(X, X, shots=(1, 55), queries=9)

"""The rivals of REML: their commands, their updates against plain PyTorch, their sizes and budgets."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.comparison.entrants import SUPERVISED
from agents.problems.problem import CLASSIC, TASKS_OF_A_PROBLEM, NetworkShape, Problem, count_parameters, own_shape
from agents.problems.recipes import FUNCTIONS, IMAGES, Recipe, plain, recipe_for
from agents.reml.training import Reml
from agents.rivals import fomaml, maml, meta_sgd, pretrained, reptile
from agents.rivals.meta_gradient import Settings, meta_learn
from agents.rivals.rival import RivalConfig
from agents.runs.command_line import run_command
from agents.runs.run import Run
from gym_reml.evaluation import Ensemble, MetaLearner
from gym_reml.learning import Episodes
from gym_reml.meta_training.competition import HIDDEN_SCALE
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import Batch, TaskFamily, make_family
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.env_helpers import make_classes
from tests.support.replays import live

AGENTS = Path(__file__).resolve().parents[2] / "agents"
RIVALS = sorted(
    path.stem for path in (AGENTS / "rivals").glob("*.py") if "run_command(main" in path.read_text(encoding="utf-8")
)


def tiny(tasks: int = 64, family: TaskFamily | None = None, seed: int = 0) -> Problem:
    family = family or make_family("sinusoid")
    return Problem(family, recipe_for(family).scaled(tasks), tasks, seed)


def members(learner: MetaLearner | Ensemble) -> tuple[MetaLearner, ...]:
    return learner.members if isinstance(learner, Ensemble) else (learner,)


# -- commands -------------------------------------------------------------------------------------------------------


def test_these_are_the_rivals() -> None:
    assert {"scratch", "pretrained", "maml", "fomaml", "reptile", "meta_sgd"} <= set(RIVALS)
    assert {"maml_plus_plus", "bouncegrad", "router"} <= set(RIVALS)


@pytest.mark.parametrize("module", RIVALS)
def test_every_command_takes_what_all_take(module: str) -> None:
    options = {option.name for option in fields(importlib.import_module(f"agents.rivals.{module}").Config)}
    assert {option.name for option in fields(RivalConfig)} <= options


@pytest.mark.parametrize("module", RIVALS)
def test_every_rival_trains_and_is_evaluated(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All but scratch end elsewhere than at the random weights that they start from."""
    command = importlib.import_module(f"agents.rivals.{module}")
    trained: list[MetaLearner | Ensemble] = []

    class Watched(command.Config):  # type: ignore[name-defined]
        def show(self, train: Callable[[Problem], MetaLearner | Ensemble]) -> None:
            super().show(lambda problem: trained.append(train(problem)) or trained[0])  # type: ignore[func-returns-value]

    command.main(Watched(tasks=64, seed=3, evaluation_tasks=4))
    (learner,) = trained
    shown = capsys.readouterr().out
    assert f"| {learner.name} " in shown
    assert f" {0 if module == 'scratch' else 64} training tasks" in " ".join(shown.split())
    assert f"{count_parameters(learner):,} parameters" in " ".join(shown.split())
    assert learner.name.startswith(module)
    for member in members(learner):
        pool = member.pool
        start = NetworkShape(pool.width, pool.layers, pool.kind).fresh(tiny(seed=3))
        if module == "router":
            start.parameters["layers.matrix"] *= HIDDEN_SCALE
        assert all(tensor.isfinite().all() for tensor in pool.trainable().values())
        moved = {name for name, tensor in start.parameters.items() if not tensor.equal(pool.parameters[name])}
        assert moved == (set() if module == "scratch" else {"stem.matrix", "layers.matrix", "head.matrix"})


@pytest.mark.parametrize("module", RIVALS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "0"], "--tasks 0"),
        (["--evaluation-tasks", "1"], "evaluation-tasks 1"),
        (["--seed", "-1"], "--seed -1"),
        (["--clip", "-2"], "--clip -2.0: must be none or a positive number"),
    ],
)
def test_bad_arguments_are_named(
    module: str, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module(f"agents.rivals.{module}")
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        run_command(command.main, command.Config)


@pytest.mark.parametrize("module", RIVALS)
def test_every_rival_trains_and_is_evaluated_with_other_inner_steps(module: str) -> None:
    """Networks are trained as they were meta-trained."""
    command = importlib.import_module(f"agents.rivals.{module}")
    trained: list[MetaLearner | Ensemble] = []

    class Watched(command.Config):  # type: ignore[name-defined]
        def show(self, train: Callable[[Problem], MetaLearner | Ensemble]) -> None:
            trained.append(train(self.problem()))

    command.main(Watched(tasks=64, clip="none", optimizer="momentum"))
    for member in members(trained[0]):
        assert member.arguments["clip"] is None
        assert member.arguments["optimizer"] == "momentum"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step-weights", "1", "2"], r"--step-weights \(1.0, 2.0\): must be 5 numbers from 0"),
        (["--step-weights", *"00000"], "not all of them 0"),
        (["--steps", "2", "--step-weights", "1", "-1"], "must be 2 numbers from 0"),
    ],
)
@pytest.mark.parametrize("module", ["maml", "meta_sgd"])
def test_bad_weights_of_steps_are_named(
    module: str, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module(f"agents.rivals.{module}")
    monkeypatch.setattr(sys, "argv", [module, *options])
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        run_command(command.main, command.Config)


def test_options_of_meta_gradients_are_settings() -> None:
    """Weights, granularity and shape of the command are those that are trained with."""
    problem = tiny()
    config = maml.Config(rates="step", step_weights=(0.3, 0.1, 0.1, 0.1, 0.4), shape="own")
    settings = Settings(5, rates="step", step_weights=(0.3, 0.1, 0.1, 0.1, 0.4))
    expected = meta_learn(problem, own_shape(problem.plain.recipe), settings)
    torch.testing.assert_close(config.learner(problem).pool.trainable(), expected.trainable(), rtol=0, atol=0)
    found = meta_sgd.Config(per_step=True).learner(problem).pool
    assert found.granularity == "weight_step"


# -- updates, against plain PyTorch ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exact(Sinusoid):
    """Sinusoids in double precision, in which Adam's first steps do not hang on the sign of rounding errors."""

    name: ClassVar[str] = "exact"

    def support(self, *arguments: Any) -> Batch:
        return super().support(*arguments).map(lambda tensor: tensor.double())

    def query(self, *arguments: Any) -> Batch:
        return super().query(*arguments).map(lambda tensor: tensor.double())


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh pools hold the same numbers in double precision."""
    fresh = LayerPool.random

    def doubled(**arguments: Any) -> LayerPool:
        pool = fresh(**arguments)
        pool.parameters = {name: tensor.double() for name, tensor in pool.parameters.items()}
        return pool

    monkeypatch.setattr(LayerPool, "random", doubled)


exactly = pytest.mark.usefixtures("double_precision")
EXACT = tiny(64, Exact(), seed=2)
"""Two updates of 32 tasks, so that moments and schedule count."""


def plain_episodes(problem: Problem, shape: NetworkShape, updates: int, steps: int, size: float) -> list[Episodes]:
    """The problem's tasks in the order in which a learner meets them, on networks that are whole from the start."""
    family, count = problem.family, 32
    streams = many_streams(problem.seed * TASKS_OF_A_PROBLEM, count, "train")
    batches = []
    for _ in range(updates):
        tasks = family.draw([row.task for row in streams])
        support = family.support(tasks, lambda inputs: inputs, [row.support for row in streams])
        query = family.query(tasks, lambda inputs: inputs, [row.query for row in streams])
        layers, sizes = torch.zeros((steps, count), dtype=torch.int64), torch.full((steps, count), size)
        batches.append(Episodes([support], [query], layers, sizes, tuple(shape.layers), shape.depth))
    return batches


def adam_along_a_cosine(pool: LayerPool, losses: list[Callable[[], Tensor]]) -> None:
    """One step of Adam for each loss."""
    leaves = [tensor.requires_grad_() for tensor in pool.trainable().values()]
    adam = torch.optim.Adam(leaves, lr=3e-3)
    for number, loss in enumerate(losses):
        adam.param_groups[0]["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * number / len(losses)))
        adam.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(leaves, 10.0)
        adam.step()
    for leaf in leaves:
        leaf.requires_grad_(False)


def plain_maml(problem: Problem, shape: NetworkShape, steps: int, rates: str | None, first_order: bool) -> LayerPool:
    """MAML with double backward, task by task."""
    pool = shape.fresh(problem)
    if rates is not None:
        pool = pool.with_rates(rates, 0.01, steps=steps, slots=shape.depth)

    def loss(whole: Episodes) -> Tensor:
        last = [live(pool, problem.family, whole, row, first_order)[0][-1] for row in range(len(whole))]
        return torch.stack(last).mean()

    size = float(np.float32(0.01)) if rates is None else 1.0
    batches = plain_episodes(problem, shape, 2, steps, size)
    adam_along_a_cosine(pool, [lambda whole=whole: loss(whole) for whole in batches])  # type: ignore[misc]
    return pool


MULTIPLIED = NetworkShape(40, 2, "relu")
BY_META_GRADIENT: dict[str, tuple[Callable[[Problem], MetaLearner], tuple[NetworkShape, int, str | None, bool]]] = {
    "maml, one step": (lambda problem: maml.train(problem, 1, CLASSIC), (CLASSIC, 1, None, False)),
    "maml, five steps": (lambda problem: maml.train(problem, 5, CLASSIC), (CLASSIC, 5, "scalar", False)),
    "fomaml": (fomaml.train, (CLASSIC, 5, "scalar", True)),
    "meta_sgd": (lambda problem: meta_sgd.train(problem, 5, MULTIPLIED), (MULTIPLIED, 5, "weight", False)),
}


@exactly
@pytest.mark.parametrize("name", BY_META_GRADIENT)
def test_meta_gradients_are_those_of_plain_loops(name: str) -> None:
    train, (shape, steps, rates, first_order) = BY_META_GRADIENT[name]
    pool = train(EXACT).pool
    expected = plain_maml(EXACT, shape, steps, rates, first_order)
    torch.testing.assert_close(pool.trainable(), expected.trainable(), rtol=1e-5, atol=1e-8)
    if rates is not None:
        moved = torch.cat([(rate - 0.01).abs().flatten() > 1e-4 for rate in pool.rates.values()])
        assert moved.double().mean() > 0.5, "they learn as well; those of dead units cannot"
    other = plain_maml(EXACT, shape, steps, rates, not first_order)
    distances = [
        torch.cat([(tensor - reference.trainable()[key]).flatten() for key, tensor in pool.trainable().items()]).norm()
        for reference in (expected, other)
    ]
    assert distances[1] > 1e3 * distances[0] + 1e-3, "the other order gives something else"


def test_meta_learning_starts_from_fresh_weights_of_the_seed_and_draws_its_tasks() -> None:
    settings = Settings(2, rates="step", rate=0.02, batch=8)
    problem = tiny(seed=5)
    drawn = meta_learn(replace(problem, tasks=16), CLASSIC, settings)
    given = CLASSIC.fresh(problem).with_rates("step", 0.02, steps=2)
    assert meta_learn(replace(problem, tasks=16), CLASSIC, settings, pool=given) is given
    torch.testing.assert_close(drawn.trainable(), given.trainable(), rtol=0, atol=0)
    other = meta_learn(replace(tiny(seed=6), tasks=16), CLASSIC, settings, pool=CLASSIC.fresh(problem))
    assert not other.parameters["stem.matrix"].equal(drawn.parameters["stem.matrix"])


@exactly
def test_pretraining_is_adam_on_the_query_loss_without_adaptation() -> None:
    learner = pretrained.train(EXACT)
    pool = CLASSIC.fresh(EXACT)

    def loss(query: Batch) -> Tensor:
        stem, layers, head = (pool.parameters[name] for name in ("stem.matrix", "layers.matrix", "head.matrix"))
        hidden = torch.relu(query.inputs @ stem[:-1] + stem[-1])
        hidden = torch.relu(hidden @ layers[0, :-1] + layers[0, -1])
        return (hidden @ head[:-1] + head[-1] - query.targets).square().mean()

    batches = plain_episodes(EXACT, CLASSIC, 2, 1, 0.0)
    adam_along_a_cosine(pool, [lambda whole=whole: loss(whole.query[0]) for whole in batches])  # type: ignore[misc]
    torch.testing.assert_close(learner.pool.parameters, pool.parameters, rtol=1e-5, atol=1e-8)
    low, high = pretrained.FINETUNING_STEPS
    assert (learner.arguments["min_step"], learner.arguments["max_step"]) == (low, high)


@exactly
def test_reptile_moves_half_the_way_to_the_mean_of_fast_weights() -> None:
    """Its tasks show support and query points together, and its inner steps are plain SGD."""
    problem = replace(EXACT, tasks=32)
    pool = CLASSIC.fresh(problem)
    shown = replace(problem, family=problem.family.replace(shots=problem.family.most_shots + problem.family.queries))
    (whole,) = plain_episodes(shown, CLASSIC, 1, reptile.STEPS, float(np.float32(0.02)))
    assert whole.support[0].inputs.shape == (32, 55, 1)
    grown = [live(pool, problem.family, whole, row)[1] for row in range(32)]
    expected = {name: tensor.clone() for name, tensor in pool.parameters.items()}
    for name in ("stem.matrix", "layers.matrix", "head.matrix"):
        mean = torch.stack([fast[name, 0] for fast in grown]).mean(dim=0).detach()
        expected[name] += 0.5 * (mean - expected[name])
    torch.testing.assert_close(reptile.train(problem).pool.parameters, expected, rtol=1e-6, atol=1e-9)


# -- sizes and budgets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [make_family("sinusoid"), make_classes()], ids=["function", "images"])
def test_the_matched_shape_has_just_as_many_parameters_as_reml(family: TaskFamily, tmp_path: Path) -> None:
    problem = tiny(128, family).plain
    reml = Reml(Run.create(tmp_path / "run", problem.recipe, "x"), problem).train()
    shape = maml.matched_shape(problem)
    wanted = count_parameters(reml)
    pool_alone = sum(tensor.numel() for tensor in reml.pool.trainable().values())
    assert wanted > pool_alone + 128 * 128, "the policy counts"

    def size(shape: NetworkShape) -> int:
        return sum(tensor.numel() for tensor in shape.fresh(problem).parameters.values())

    assert (shape.depth, shape.kind) == (problem.recipe.depth, problem.recipe.layer_kind)
    assert size(replace(shape, width=shape.width - 1)) < wanted <= size(shape)


@pytest.mark.parametrize("recipe", [FUNCTIONS, IMAGES, plain(FUNCTIONS)], ids=["functions", "images", "plain"])
@pytest.mark.parametrize("tasks", [10_000, 61_000, 184_000])
def test_scaled_budgets_draw_as_many_tasks_as_wanted(recipe: Recipe, tasks: int) -> None:
    assert recipe.scaled(recipe.tasks) == recipe
    assert recipe.scaled(tasks).tasks == pytest.approx(tasks, rel=0.02)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> set[tuple[float, float]]:
    """All training tasks that were drawn, each once however often it was."""
    known: set[tuple[float, float]] = set()
    original = Sinusoid.draw

    def draw(self: Sinusoid, generators: Any) -> Any:
        tasks = original(self, generators)
        if self.split == "train":
            known.update(zip(tasks["amplitude"].tolist(), tasks["phase"].tolist(), strict=True))
        return tasks

    monkeypatch.setattr(Sinusoid, "draw", draw)
    return known


@pytest.mark.parametrize("name", sorted(SUPERVISED.keys() - {"maml_matched"}))
def test_nobody_draws_more_training_tasks_than_there_are(
    name: str, drawn: set[tuple[float, float]], tmp_path: Path
) -> None:
    # Its bootstrap finds clusters, on a thousand tasks however few there are in all.
    tasks = 3200 if name in ("reml", "router_rates") else 640
    SUPERVISED[name].train(tiny(tasks), tmp_path / "training")
    # SB3's on-policy algorithms finish the rollout they are in: here 20 steps of 128 rows, episodes having 5.
    rollout_tasks = 128 * (20 // 5 + 1) if name.startswith("reml") else 0
    assert len(drawn) <= 1.02 * tasks + rollout_tasks
    assert len(drawn) >= (0 if name == "scratch" else 0.95 * tasks)

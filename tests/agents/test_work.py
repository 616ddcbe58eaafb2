"""The work of training that comparisons record: inner gradients and environment steps, against closed forms."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.comparison.base import Findings
from agents.comparison.benchmarks import BENCHMARKS
from agents.comparison.jobs import Job
from agents.comparison.summarise import rows_of
from agents.pools import rounds
from agents.problems.problem import Problem
from agents.problems.recipes import COMPETITION_TASKS, FUNCTIONS, META_BATCH, recipe_for
from agents.reml import training
from agents.reml.training import Reml
from agents.rivals import bouncegrad, maml, pretrained, reptile, scratch
from agents.rivals.meta_gradient import Settings, meta_learn
from agents.runs import progress
from agents.runs import run as run_module
from agents.runs.run import Run, keep_checkpoint
from gym_reml.evaluation import controls
from gym_reml.learning import Episodes, replay
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.networks.work import Work, count_work, counting_work
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import make_family

TASKS = 64


def tiny() -> Problem:
    family = make_family("sinusoid")
    return Problem(family, recipe_for(family).scaled(TASKS), TASKS, 0)


def found(name: str, folder: Path) -> Findings:
    return BENCHMARKS["sinusoid"].measure(name, 5, seed=0, tasks=TASKS, evaluation_tasks=4, folder=folder)


# -- counting ---------------------------------------------------------------------------------------------------------


def test_contexts_count_what_is_done_in_them_and_in_those_inside() -> None:
    count_work(inner_gradients=100)
    with counting_work() as outer:
        count_work(inner_gradients=1)
        with counting_work() as inner:
            count_work(inner_gradients=2, environment_steps=3)
        count_work(environment_steps=4)
    count_work(environment_steps=100)
    assert inner == Work(2, 3)
    assert outer == Work(3, 7)
    with counting_work() as fresh, pytest.raises(KeyboardInterrupt):
        raise KeyboardInterrupt
    assert fresh == Work(0, 0)


@pytest.fixture
def mdp() -> TrainingMDP:
    family = make_family("sinusoid")
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=3, kind="residual", seed=0)
    mdp = TrainingMDP(6, family, pool, Objective(5), slots=2)
    mdp.seed(range(6), many_streams(0, 6, "train"))
    mdp.reset()
    return mdp


def test_a_step_of_the_process_is_a_step_and_a_gradient_of_every_row(mdp: TrainingMDP) -> None:
    with counting_work() as work:
        mdp.step(mdp.decision.decide(6, layer=np.array([0, 1, 2, 3, 0, 1])))
        assert work == Work(6, 6)
        mdp.train(np.zeros(6, dtype=np.int64), np.full(6, 0.01, dtype=np.float32))
        assert work == Work(12, 6), "updated alone, it is no step of an agent"
        mdp.reset()
        mdp.observe()
        mdp.outputs(mdp.query.inputs)
    assert work == Work(12, 6)


@pytest.mark.parametrize("first_order", [True, False])
def test_a_replay_takes_a_gradient_for_every_step_of_every_episode(mdp: TrainingMDP, first_order: bool) -> None:
    layers, sizes = torch.zeros((4, 6), dtype=torch.int64), torch.full((4, 6), 0.01)
    episodes: Episodes = mdp.episodes(layers, sizes)
    with counting_work() as work:
        replay(mdp.pool, mdp.family, episodes, first_order=first_order, judged=[False, False, False, True])
        assert work == Work(4 * 6, 0)
        replay(mdp.pool, mdp.family, episodes.take(torch.arange(2)))
    assert work == Work(4 * 6 + 4 * 2, 0)


# -- entrants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "steps"), [("maml_1", 1), ("maml_5", 5), ("fomaml", 5), ("meta_sgd", 5)])
def test_descendants_of_maml_take_their_steps_on_every_task(name: str, steps: int, tmp_path: Path) -> None:
    """And what is evaluated behind them is not counted."""
    findings = found(name, tmp_path / "training")
    assert (findings.inner_gradients, findings.environment_steps) == (steps * TASKS, 0)


def test_tuned_step_sizes_are_searched_by_steps_on_validation_tasks() -> None:
    """Each of so many sizes on each of 200 tasks; Reptile takes ten steps on every training task beside."""
    problem = tiny()
    with counting_work() as tuning:
        scratch.train(problem)
    assert tuning.inner_gradients == tuning.environment_steps
    assert tuning.inner_gradients % 200 == 0
    assert tuning.inner_gradients >= 200 * len(controls.STEP_GRID)
    with counting_work() as work:
        pretrained.train(problem)
    assert work.inner_gradients - work.environment_steps == TASKS
    with counting_work() as work:
        reptile.train(problem)
    assert work.inner_gradients - work.environment_steps == reptile.STEPS * TASKS


def test_structures_are_searched_by_replays() -> None:
    """BounceGrad: the first structure and every proposal, of two steps each, and five steps of the meta-gradient."""
    with counting_work() as work:
        bouncegrad.train(tiny())
    assert work == Work(TASKS * ((1 + bouncegrad.TRAINING_PROPOSALS) * FUNCTIONS.depth + FUNCTIONS.horizon), 0)


def work_of_reml(problem: Problem, folder: Path) -> tuple[Work, int]:
    """The work of three rounds of the bootstrap, and two rollouts of PPO in which the pool learns too.

    Returns:
        All of it, and the steps of the rollouts, which PPO finishes: 20 steps each.
    """
    recipe = replace(problem.recipe, bootstrap_iterations=3, total_steps=5000, routing_share=0.0, settled_share=0.0)
    with counting_work() as work:
        run = Run(folder) if folder.exists() else Run.create(folder, recipe, "x")
        Reml(run, replace(problem, recipe=recipe)).train()
    return work, 2 * 20 * recipe.n_envs


def test_reml_bootstraps_imitates_acts_and_replays(tmp_path: Path) -> None:
    work, acted = work_of_reml(tiny(), tmp_path / "run")
    bootstrap = 3 * META_BATCH * FUNCTIONS.horizon
    # Of three batches of examples one is followed to the end of its episodes.
    shown = META_BATCH * FUNCTIONS.horizon
    # The pool learns once from every episode; their length divides that of rollouts.
    assert work == Work(bootstrap + shown + acted + acted, shown + acted)


def test_plain_reml_lets_all_layers_compete(tmp_path: Path) -> None:
    work, acted = work_of_reml(tiny().plain, tmp_path / "run")
    # At both positions all eight layers are tried for every task, in replays of three steps.
    assert work == Work(3 * 2 * COMPETITION_TASKS * 8 * 3 + acted + acted, acted)


# -- records ----------------------------------------------------------------------------------------------------------


def test_work_goes_into_the_summary_and_the_rows(tmp_path: Path) -> None:
    jobs = [Job(tmp_path, "sinusoid", 5, "maml_5", seed, TASKS, 4) for seed in range(2)]
    for job in jobs:
        job.run()
    (one, *_) = rows_of(jobs)
    assert (one["inner_gradients"], one["environment_steps"]) == (5 * TASKS, 0)
    assert len(one["per_task"]) == 4
    for job, counted in zip(jobs, (None, 330), strict=True):
        job.summary_path.write_text(json.dumps(job.summary | {"inner_gradients": counted}), encoding="utf-8")
    (one, *_) = rows_of(jobs)
    assert one["inner_gradients"] == 330, "the mean of those that know it"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The work of REML with as many checkpoints as can be."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(progress, "LEAST", 1)
        return work_of_reml(tiny(), tmp_path_factory.mktemp("runs") / "run")[0]


@pytest.mark.parametrize("moment", range(4), ids=["bootstrap", "its last round", "agent begins", "agent"])
def test_what_was_done_before_an_interruption_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, undisturbed: Work, moment: int
) -> None:
    monkeypatch.setattr(progress, "LEAST", 1)
    moments = itertools.count()

    def then_interrupted(function: Any) -> Any:
        def call(*args: Any) -> None:
            function(*args)
            if next(moments) == moment:
                raise KeyboardInterrupt

        return call

    for module in (run_module, rounds):
        monkeypatch.setattr(module, "keep_checkpoint", then_interrupted(keep_checkpoint))
    monkeypatch.setattr(training, "begin_episodes", then_interrupted(training.begin_episodes))
    with pytest.raises(KeyboardInterrupt):
        work_of_reml(tiny(), tmp_path / "run")
    assert work_of_reml(tiny(), tmp_path / "run")[0] == undisturbed
    # The finished learner is loaded.
    assert work_of_reml(tiny(), tmp_path / "run")[0] == undisturbed


def test_what_was_done_before_an_interruption_may_be_unknown(tmp_path: Path) -> None:
    first = found("reml_plain/random_pool", tmp_path / "training")
    assert first.environment_steps
    again = found("reml_plain/random_pool", tmp_path / "training")
    assert (again.inner_gradients, again.environment_steps) == (first.inner_gradients, first.environment_steps)
    for path in tmp_path.rglob("work.json"):
        path.unlink()
    again = found("reml_plain/random_pool", tmp_path / "training")
    assert (again.inner_gradients, again.environment_steps) == (None, None)


def test_counting_changes_nothing() -> None:
    problem = tiny()
    plain = meta_learn(problem, maml.usual_shape(problem), Settings(2, rate=0.01))
    with counting_work() as work:
        counted = meta_learn(problem, maml.usual_shape(problem), Settings(2, rate=0.01))
    assert work.inner_gradients == 2 * TASKS
    torch.testing.assert_close(plain.trainable(), counted.trainable(), rtol=0, atol=0)

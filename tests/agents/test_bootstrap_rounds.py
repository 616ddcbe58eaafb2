"""A bootstrap that is killed goes on inside itself, and ends as the undisturbed one."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents.pools.bootstraps import Specialists, bootstrap
from agents.problems.problem import Problem
from agents.problems.recipes import FUNCTIONS, IMAGES, Recipe, plain
from agents.reml.training import Reml
from agents.runs.run import Run, latest_checkpoint
from gym_reml.tasks import make_family
from tests.test_files import Bomb

ROUNDS = 12


class Killed(Exception):
    """The process ends here."""


@pytest.fixture(autouse=True)
def _few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.pools.bootstraps.CLUSTERING_TASKS", 70)
    monkeypatch.setattr("agents.pools.policy_specialists.POLICY_CLUSTERING_TASKS", 40)


def problem(twice: bool = True, recipe: Recipe = FUNCTIONS) -> Problem:
    rate = FUNCTIONS.clustered_learning_rate if twice else IMAGES.clustered_learning_rate
    recipe = replace(recipe, width=8, layers=4, bootstrap_iterations=ROUNDS, clustered_learning_rate=rate)
    return Problem(make_family("sinusoid"), recipe, recipe.tasks, seed=3)


def killed_after(rounds: int, given: Problem, folder: Path) -> int:
    """Ends a bootstrap after so many rounds; returns how many it took."""
    taken: list[float] = []

    def stop(done: int, loss: float) -> None:
        taken.append(loss)
        if done == rounds:
            raise Killed

    with pytest.raises(Killed):
        bootstrap(given, stop, folder)
    return len(taken)


def assert_equal(one: Specialists, other: Specialists) -> None:
    for name, tensor in one[0].trainable().items():
        assert torch.equal(tensor, other[0].trainable()[name]), name
    assert (one[1] is None) == (other[1] is None)
    if one[1] is not None and other[1] is not None:
        for name, tensor in one[1].state().items():
            assert torch.equal(tensor, other[1].state()[name]), name


PROBLEMS = {
    "clusters": problem(True),
    "clusters, one rate": problem(False),
    "competition": problem(recipe=plain(FUNCTIONS)),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("kills", [(3,), (8,), (9,), (11,), (1, 5, 8, 10, 12)])
def test_it_ends_as_the_undisturbed_one_to_the_bit(kills: tuple[int, ...], name: str, tmp_path: Path) -> None:
    """In both parts, at their border, and several times; eight rounds come before the clusters."""
    given, losses = PROBLEMS[name], list[float]()
    undisturbed = bootstrap(given, lambda _, loss: losses.append(loss))
    done = 0
    for kill in kills:
        assert killed_after(kill, given, tmp_path) == kill - done, "no round is taken twice but the last"
        done = kill - 1  # the round that was killed had no checkpoint yet
    rest: list[float] = []
    assert_equal(undisturbed, bootstrap(given, lambda _, loss: rest.append(loss), tmp_path))
    assert rest == losses[done:]


def test_a_run_leaves_no_rounds_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem()
    run = Run.create(tmp_path / "run", given.recipe, "x")
    monkeypatch.setattr(Reml, "_learn", lambda job, pool: (_ for _ in ()).throw(Killed))
    killed_after(4, given, run.folder / "bootstrap")
    with pytest.raises(Killed):
        Reml(run, given).train()
    assert (run.folder / "pool_bootstrapped.pt").is_file()
    assert not (run.folder / "bootstrap").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("file", ["learner.pt", "clusters.pt", "pool.pt"])
def test_damaged_checkpoints_are_refused_and_run_nothing(file: str, tmp_path: Path) -> None:
    killed_after(11, problem(), tmp_path)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    path = found[1] / file
    for content in (pickle.dumps({"optimizer": Bomb(tmp_path / "trace")}), b"", path.read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=file.replace(".", r"\.")):
            bootstrap(problem(), None, tmp_path)
    torch.save({"optimizer": {}}, path)
    with pytest.raises(ValueError):  # noqa: PT011  (each file has its own)
        bootstrap(problem(), None, tmp_path)
    assert not (tmp_path / "trace").exists()

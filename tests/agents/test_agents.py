"""Meta-training: what its commands write, and that nothing is lost when they are killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tqdm import tqdm

import gym_reml
from agents import average, train
from agents.problems.families import family_of
from agents.problems.problem import TABLE_STEPS, Problem
from agents.problems.recipes import FUNCTIONS, IMAGES, recipe_for
from agents.reml.algorithms import ENCODINGS, SETTINGS, prefer_neutral_steps
from agents.reml.configuration import Config, config_of, problem_of, recipe_of
from agents.reml.training import Phases, Reml
from agents.runs.run import Run
from gym_reml.evaluation import MetaLearner, evaluate
from gym_reml.evaluation.meta_learner import ALGORITHMS
from gym_reml.pool import LayerPool
from gym_reml.sb3 import NativeVecEnv
from gym_reml.spaces import ENCODINGS as SPACES
from gym_reml.tasks import make_family
from tests.support.command_line import stop_of

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--bootstrap-iterations", "8", "--total-steps", "6000", "--n-envs", "32", "--evaluation-tasks", "4"]


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


# -- run directories ------------------------------------------------------------------------------------------------


@dataclass
class Something:
    number: int = 3


def writes(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a").write_text(text, encoding="utf-8")

    return write


def test_a_checkpoint_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Something(), "x")
    assert run.latest_checkpoint() is None
    run.checkpoint(10, writes("ten"))

    def crash(folder: Path) -> None:
        (folder / "a").write_text("twen", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.checkpoint(20, crash)
    latest = Run(tmp_path / "run").latest_checkpoint()
    assert latest is not None
    assert latest[0] == 10
    assert (latest[1] / "a").read_text(encoding="utf-8") == "ten"
    run.checkpoint(20, writes("twenty"))
    latest = run.latest_checkpoint()
    assert latest is not None
    assert (latest[1] / "a").read_text(encoding="utf-8") == "twenty"
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def test_runs_that_are_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        Run(tmp_path)
    Run.create(tmp_path / "run", Something(), "x")
    with pytest.raises(FileExistsError, match=r"choose another --run$"):
        Run.create(tmp_path / "run", Something(), "x")
    with pytest.raises(FileExistsError, match="choose another --run, or go on with it by --resume"):
        Run.create(tmp_path / "run", Config(), "x")
    (tmp_path / "run" / "config.json").write_text('{"format": "gym_reml.Run/77"}', encoding="utf-8")
    with pytest.raises(ValueError, match="Run/77"):
        Run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text('{"form', encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        Run(tmp_path / "run")


def test_a_run_goes_on_by_the_recipe_that_began_it_alone(tmp_path: Path) -> None:
    begun = Run.begun(tmp_path / "run", FUNCTIONS, "x")
    begun.checkpoint(3, lambda folder: None)
    found = Run.begun(tmp_path / "run", FUNCTIONS, "x").latest_checkpoint()
    assert found is not None
    assert found[0] == 3
    with pytest.raises(ValueError, match=r"run: was begun by another recipe"):
        Run.begun(tmp_path / "run", IMAGES, "x")


def test_a_run_remembers_its_configuration(tmp_path: Path) -> None:
    config = Config(family="mixture", family_kwargs='{"members": ["step", "linear"]}', shots=7, algorithm="DQN")
    run = Run.create(tmp_path / "run", config, "x")
    restored = config_of(Run(run.folder))
    assert restored == Config(**(vars(config) | {"run": run.folder}))
    family = family_of(restored)
    assert (family.name, family.shots) == ("mixture", 7)


# -- recipes and algorithms -----------------------------------------------------------------------------------------


def test_recipes_fit_their_families() -> None:
    family = make_family("sinusoid")
    assert recipe_for(family) is FUNCTIONS
    assert recipe_of(Config(total_steps=5), family).total_steps == 5
    assert Problem(family, IMAGES, 1, 0).training_family == family
    for recipe in (FUNCTIONS, IMAGES):
        assert recipe.routing_share + recipe.settled_share <= 1.0
        assert len(recipe.initial_layers) < recipe.depth


def test_every_algorithm_has_an_encoding() -> None:
    assert sorted(ENCODINGS) == sorted(name for names in ALGORITHMS.values() for name in names)
    assert set(ENCODINGS.values()) <= set(SPACES)


@pytest.mark.parametrize("algorithm", ENCODINGS)
def test_every_algorithm_meta_trains(algorithm: str, tmp_path: Path) -> None:
    """A few hundred steps through all phases; the learner that comes out acts as the one that was saved."""
    config = Config(algorithm=algorithm, total_steps=480, bootstrap_iterations=2, n_envs=16)
    run = Run.create(tmp_path / "run", config, "x")
    learner = Reml(run, problem_of(config), algorithm).train()
    assert isinstance(learner, MetaLearner)
    assert learner.algorithm == algorithm
    assert learner.normaliser is not None
    assert np.isfinite(learner.normaliser.mean).all()
    boot = LayerPool.load(run.folder / "pool_bootstrapped.pt")
    assert learner.pool.describe() == boot.describe()


def test_the_pool_changes_in_the_joint_phase_only(tmp_path: Path) -> None:
    pools = {}
    for total in (2560, 12_800):
        config = Config(rates="none", total_steps=total, bootstrap_iterations=2, n_envs=128)
        run = Run.create(tmp_path / f"run{total}", config, "x")
        learner = Reml(run, problem_of(config), "PPO").train()
        boot = LayerPool.load(run.folder / "pool_bootstrapped.pt").parameters
        pools[total] = all(learner.pool.parameters[name].equal(boot[name]) for name in boot)
    # One rollout is all routing; five rollouts reach the joint phase.
    assert pools == {2560: True, 12_800: False}


def test_no_two_runs_train_on_the_same_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a run, resumed or not, meet tasks again after a checkpoint."""
    seeds: list[set[int]] = []
    reset = NativeVecEnv.reset

    def spy(self: NativeVecEnv) -> Any:
        seeds.append({seed for seed in self._seeds if seed is not None})
        return reset(self)

    monkeypatch.setattr(NativeVecEnv, "reset", spy)
    for seed in (0, 1):
        config = Config(total_steps=640, bootstrap_iterations=1, n_envs=16, seed=seed)
        run = Run.create(tmp_path / f"run{seed}", config, "x")
        reml = Reml(run, problem_of(config), "PPO")
        monkeypatch.setattr("agents.runs.progress.CHECKPOINTS", 10**9)
        monkeypatch.setattr("agents.runs.progress.LEAST", 1)
        reml.train()
    shutil.rmtree(run.folder / "learner")
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    assert 0 < checkpoint[0] < 640
    reml.train()
    # At the start and after the checkpoint, of two runs; the resumed one goes on as the other did.
    assert [len(group) for group in seeds] == [16] * 5
    assert len(set().union(*seeds)) == 4 * 16
    assert seeds[4] == seeds[3]


def test_the_entropy_bonus_of_a_resumed_run_falls_as_that_of_any(tmp_path: Path) -> None:
    config = Config()
    run = Run.create(tmp_path / "run", config, "x")
    reml = Reml(run, problem_of(config), "PPO")
    phases = Phases(reml, None, tqdm(total=100, disable=True))  # type: ignore[arg-type]
    phases.model = type("Model", (), {"ent_coef": 0.001})()
    phases._on_training_start()
    assert phases._entropy == SETTINGS["PPO"]["ent_coef"] > 0.001


def test_policies_over_rated_pools_start_at_the_neutral_step() -> None:
    class Agent:
        def __init__(self) -> None:
            self.policy = type("Policy", (), {"action_net": torch.nn.Linear(4, 6 + 13)})()

    agent = Agent()
    before = agent.policy.action_net.bias.detach().clone()
    prefer_neutral_steps(agent, layers=5, step_bins=13)
    moved = (agent.policy.action_net.bias.detach() - before).nonzero().flatten().tolist()
    assert moved == [6 + 6]


# -- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    arguments = ["--run", str(folder), *TINY, "--total-steps", "20000"]
    code = "import agents.runs.progress as progress, agents.train, tyro; progress.CHECKPOINTS = 10**9; "
    code += "progress.LEAST = 1; "
    code += "agents.train.main(tyro.cli(agents.reml.configuration.Config))"
    chance = random.Random(time.time_ns())
    moments = [chance.uniform(5.0, 14.0), chance.uniform(4.0, 10.0)]
    print(f"killed after {moments} s")
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment())
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if folder.exists() and (folder / "config.json").is_file():
            arguments = ["--resume", str(folder)]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment(), check=True, timeout=240)
    results = folder / "results"
    assert {"table.md", "curves.png", "examples.png", "routing.png", "reml.json", "scratch.json"} <= {
        p.name for p in results.iterdir()
    }
    leftovers = [path for path in folder.rglob(".*") if path.is_file() and path.stat().st_size and path.suffix == ".pt"]
    assert not leftovers
    assert MetaLearner.load(folder / "learner").name == "reml"

    average.main(average.Config(runs=(folder, folder)))
    assert "mean over 2 seeds" in capsys.readouterr().out

    again = subprocess.run(
        command("agents.evaluate", str(folder), "--family", "linear", "--tasks", "5"),
        cwd=ROOT,
        env=environment(),
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert "trained on sinusoid" in again.stdout
    assert (folder / "evaluations" / "linear-5-shot" / "table.md").is_file()
    assert (folder / "evaluations" / "linear-5-shot" / "routing.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "sinusoids"], "sinusoids"),
        (["--algorithm", "PPO2"], "PPO2"),
        (["--resume", "no/such/run"], "no/such/run"),
        (["--family-kwargs", "{"], "family-kwargs"),
        (["--family-kwargs", '{"nonsense": 1}'], "nonsense"),
        (["--family-kwargs", '{"split": "test"}'], "split"),
        (["--family-kwargs", '{"shots": 3}'], "--shots"),
        (["--shots", "0"], "shots=0"),
        (["--total-steps", "-5"], "total-steps"),
        (["--evaluation-tasks", "1"], "evaluation-tasks"),
        (["--seed", "-1"], "--seed -1"),
        (["--device", "abacus"], "device='abacus': not available here"),
        (["--device", "meta"], "choices: 'cpu'"),
        (["--device", "cpu:0", "--ray", "auto", "--seeds", "2"], "--device cpu:0: a cluster runs a run on each core"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown = stop_of("train", arguments, monkeypatch, capsys)
    assert message in f"{code} {shown}"
    assert not list(tmp_path.iterdir())


def test_the_device_is_that_of_networks_and_pool_and_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches the environment and all pools, is kept in config.json, and is followed by a run that goes on."""
    trained: list[tuple[str, Run]] = []
    made: list[str] = []

    def to(pool: LayerPool, device: str) -> LayerPool:
        made.append(device)
        return pool

    monkeypatch.setattr("agents.reml.training.make_vec_env", lambda *args, **named: made.append(named["device"]))
    monkeypatch.setattr(LayerPool, "to", to)

    def stop(job: Reml) -> None:
        trained.append((job.problem.device, job.run))
        with pytest.raises(AttributeError):  # of the environment that is none
            job._learn(LayerPool.random(in_features=1, out_features=1, width=8, layers=17))
        raise InterruptedError

    monkeypatch.setattr(Reml, "train", stop)
    folder = tmp_path / "run"
    for config in Config(device="cpu:0", run=folder), Config(resume=folder), Config(resume=folder, device="cpu"):
        with pytest.raises(InterruptedError):
            train.main(config)
    assert [device for device, _ in trained] == ["cpu:0", "cpu:0", "cpu"]
    assert made == ["cpu:0", "cpu:0", "cpu"]
    assert {run.folder for _, run in trained} == {folder}
    assert Run(folder).config["device"] == "cpu:0"
    with pytest.raises(InterruptedError):
        train.main(Config(run=tmp_path / "other"))
    assert Run(tmp_path / "other").config["device"] == "cpu"


def test_config_json_names_everything(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Config(seed=4), "x")
    content: dict[str, Any] = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert content["seed"] == 4
    assert content["format"].startswith("gym_reml.Run/")
    assert set(vars(Config())) <= set(content)


def test_several_seeds_are_trained_once_each_and_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory goes on with what is left; its options are those that it was begun with."""
    trained = []

    def fake(config: Config) -> None:
        trained.append(config)
        if config.seed == 4 and len(trained) == 2:
            raise ValueError("interrupted")
        run = Run.create(config.run, replace(config, run=None), "x")
        found = evaluate(scratch, family, steps=TABLE_STEPS, tasks=2)
        found.save(run.folder / "results" / "scratch.json")

    family = make_family("sinusoid")
    scratch = gym_reml.load("sinusoid/reml")
    monkeypatch.setattr(train, "train", fake)
    folder = tmp_path / "runs"
    with pytest.raises(ValueError, match=r"1 runs failed, see .*seed-4.log\.txt"):
        train.main(Config(seed=3, seeds=2, evaluation_tasks=4, run=folder))
    train.main(Config(resume=folder))
    assert [(config.seed, config.seeds, config.evaluation_tasks) for config in trained] == [
        (3, 1, 4),
        (4, 1, 4),
        (4, 1, 4),
    ]
    assert "(1 of 2 runs left to do)" in capsys.readouterr().out
    assert "mean over 2 seeds" in (folder / "average.md").read_text(encoding="utf-8")
    for options, message in ({"ray": "auto"}, "--ray auto"), ({"workers": 2}, "--workers 2"), ({"seeds": 0}, "--seeds"):
        with pytest.raises(ValueError, match=message):
            train.main(Config(**options))

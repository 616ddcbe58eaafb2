"""How far a training has come: kept without pickles, and gone on from as if nothing had happened."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from agents.reml.algorithms import ENCODINGS, make_agent
from agents.reml.configuration import Config, problem_of
from agents.reml.designs import DESIGNS
from agents.reml.training import IDS, Reml
from agents.runs.checkpoints import COUNTERS, restore_agent, save_agent
from agents.runs.run import Run
from agents.trials.rl2 import training as rl2_training
from agents.trials.rl2.recipes import Rl2Recipe, Setting, rl2_recipe_for
from gym_reml.pool import LayerPool
from gym_reml.sb3 import make_vec_env
from tests.test_files import Bomb


def made(algorithm: str, seed: int = 0) -> tuple[Any, VecNormalize]:
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=3)
    env = make_vec_env(IDS[ENCODINGS[algorithm]], n_envs=4, pool=pool, horizon=3)
    normalised = VecNormalize(env, norm_reward=False)
    agent = make_agent(algorithm, normalised, seed=seed, learning_rate=1e-3, log_folder=None, design=DESIGNS["layers"])
    if hasattr(agent, "learning_starts"):
        agent.learning_starts, agent.gradient_steps = 8, 1
    return agent, normalised


def numbers(value: Any) -> list[float]:
    """All numbers in nested state dicts, in order."""
    if isinstance(value, torch.Tensor):
        return [float(number) for number in value.flatten().tolist()]
    if isinstance(value, dict):
        return [number for name in sorted(value, key=str) for number in numbers(value[name])]
    if isinstance(value, list | tuple):
        return [number for part in value for number in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.parametrize("algorithm", ENCODINGS)
def test_an_agent_stands_where_it_stood(algorithm: str, tmp_path: Path) -> None:
    agent, env = made(algorithm)
    agent.learn(160)
    env.training = False
    save_agent(agent, env, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["agent.pt"]
    other, other_env = made(algorithm, seed=1)
    assert numbers(other.get_parameters()) != numbers(agent.get_parameters())
    restore_agent(other, other_env, tmp_path)
    assert numbers(other.get_parameters()) == numbers(agent.get_parameters())
    for name in (*COUNTERS, "log_ent_coef", "weights"):
        if hasattr(agent, name):
            assert numbers(getattr(other, name)) == numbers(getattr(agent, name)), name
    assert other.num_timesteps >= 160
    for name in ("obs_rms", "ret_rms"):
        for part in ("mean", "var", "count"):
            np.testing.assert_array_equal(getattr(getattr(other_env, name), part), getattr(getattr(env, name), part))
    assert not other_env.training
    assert [episode["r"] for episode in other.ep_info_buffer] == [episode["r"] for episode in agent.ep_info_buffer]
    other.learn(40, reset_num_timesteps=False)
    assert other.num_timesteps >= 200


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("place", ["modules", "tensors", "counters", "statistics", "more"])
@pytest.mark.parametrize("write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_a_strangers_checkpoint_runs_nothing(place: str, write: Callable[..., Any], tmp_path: Path) -> None:
    agent, env = made("SAC")
    save_agent(agent, env, tmp_path)
    state = torch.load(tmp_path / "agent.pt", weights_only=True)
    write(state | {place: Bomb(tmp_path / "trace")}, tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=r"agent\.pt: "):
        restore_agent(agent, env, tmp_path)
    assert not (tmp_path / "trace").exists()


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another agent": lambda state: state.update(algorithm="TD3"),
    "another version": lambda state: state.update(format="gym_reml.Agent/9"),
    "a module is missing": lambda state: state["modules"].pop("policy"),
    "a module that is none": lambda state: state["modules"].update({"env.close": {}}),
    "a weight is missing": lambda state: state["modules"]["policy"].popitem(),
    "a tensor is missing": lambda state: state["tensors"].clear(),
    "a counter is missing": lambda state: state["counters"].pop("num_timesteps"),
    "a counter is a text": lambda state: state["counters"].update(num_timesteps="many"),
    "means of another size": lambda state: state["statistics"]["observations.all"].__setitem__(0, torch.zeros(3)),
    "a replay buffer of another size": lambda state: state["replay"].update(pos=3),
    "no replay buffer": lambda state: state.update(replay=None),
    "a generator of another kind": lambda state: state["random"].update(actions={"bit_generator": "MT19937"}),
    "episodes are none": lambda state: state.update(episodes=None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_checkpoints_are_refused(damage: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    agent, env = made("SAC")
    save_agent(agent, env, tmp_path)
    state = torch.load(tmp_path / "agent.pt", weights_only=True)
    damage(state)
    torch.save(state, tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=r"agent\.pt: "):
        restore_agent(agent, env, tmp_path)


def test_dict_observations_keep_their_statistics(tmp_path: Path) -> None:
    envs = [VecNormalize(make_vec_env(n_envs=2, observation="dict"), norm_reward=False) for _ in range(2)]
    agents = [PPO("MultiInputPolicy", env, n_steps=8, batch_size=8) for env in envs]
    agents[0].learn(32)
    save_agent(agents[0], envs[0], tmp_path)
    restore_agent(agents[1], envs[1], tmp_path)
    assert isinstance(envs[0].obs_rms, dict)
    assert isinstance(envs[1].obs_rms, dict)
    for part, rms in envs[0].obs_rms.items():
        np.testing.assert_array_equal(envs[1].obs_rms[part].mean, rms.mean)


def test_a_run_holds_no_pickle_and_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while it trains nor at its end: whoever gets the folder can go on with it and run nothing of it."""
    monkeypatch.setattr("agents.runs.progress.CHECKPOINTS", 10**9)
    monkeypatch.setattr("agents.runs.progress.LEAST", 1)
    config = Config(total_steps=640, bootstrap_iterations=1, n_envs=16)
    run = Run.create(tmp_path / "run", config, "x")
    job = Reml(run, problem_of(config), "PPO")
    job.train()
    found = run.latest_checkpoint()
    assert found is not None
    assert sorted(path.name for path in found[1].iterdir()) == ["agent.pt", "learner.pt", "pool.pt"]
    files = [path for path in run.folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts]
    assert {path.suffix for path in files} == {".pt", ".json"}
    shutil.rmtree(run.folder / "learner")

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise AssertionError("unpickles")

    with monkeypatch.context() as patch:
        for module in ("pickle", "cloudpickle"):
            for name in ("load", "loads"):
                patch.setattr(f"{module}.{name}", refuse)
        assert job.train().algorithm == "PPO"
    # Of an earlier version: said, and not read.
    shutil.rmtree(run.folder / "learner")
    (found[1] / "agent.pt").rename(found[1] / "agent.zip")
    with pytest.raises(ValueError, match="a checkpoint of an earlier version, a pickle"):
        job.train()


@pytest.mark.parametrize("algorithm", ["PPO", "SAC", "DQN"])
def test_an_interrupted_run_ends_as_one_that_never_was(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: pool, policy, normaliser and what off-policy agents learn from."""
    monkeypatch.setattr("agents.runs.progress.CHECKPOINTS", 5)
    monkeypatch.setattr("agents.runs.progress.LEAST", 1)
    config = Config(total_steps=640, bootstrap_iterations=1, n_envs=16)
    problem = problem_of(config)
    jobs = [Reml(Run.create(tmp_path / name, config, "x"), problem, algorithm) for name in ("whole", "broken")]
    jobs[0].train()
    save = Reml.save_checkpoint

    def crash(self: Reml, agent: Any, env: Any) -> None:
        save(self, agent, env)
        if agent.num_timesteps >= 320:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reml, "save_checkpoint", crash)
        with pytest.raises(KeyboardInterrupt):
            jobs[1].train()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002  (what Stable-Baselines3 draws from)
    jobs[1].train()
    learners = [torch.load(job.run.folder / "learner" / "learner.pt", weights_only=True) for job in jobs]
    assert numbers(learners[0]) == numbers(learners[1])
    assert len(numbers(learners[0])) > 1000
    whole, broken = (job.run.latest_checkpoint() for job in jobs)
    assert whole is not None
    assert broken is not None
    states = [torch.load(found[1] / "agent.pt", weights_only=True) for found in (whole, broken)]
    assert numbers(states[0]) == numbers(states[1])
    assert (states[0]["replay"] is None) == (algorithm == "PPO")


def test_trained_agents_of_trials_hold_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting.of("tabular", 2, None)
    recipe: Rl2Recipe = rl2_recipe_for(setting)
    small = {"n_envs": 4, "minibatch": 2, "total_steps": 1, "lstm": 8, "epochs": 1}
    recipe = Rl2Recipe(**(vars(recipe) | small))
    monkeypatch.setattr("agents.runs.progress.CHECKPOINTS", 10**9)
    monkeypatch.setattr("agents.runs.progress.LEAST", 1)
    run = Run.create(tmp_path / "run", recipe, "x")
    trained = rl2_training.train(run, setting, recipe, 0)
    assert recipe.pairs, "this one has classes of its own"
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".pt", ".json"}
    again = rl2_training.train(run, setting, recipe, 0)
    assert numbers(again.agent.policy.state_dict()) == numbers(trained.agent.policy.state_dict())
    assert (again.steps, again.curve) == (trained.steps, trained.curve)
    torch.save({"format": "gym_reml.TrialAgent/1", "about": Bomb(tmp_path / "trace")}, run.folder / "agent.pt")
    with pytest.raises(ValueError, match=r"agent\.pt: "):
        rl2_training.train(run, setting, recipe, 0)
    assert not (tmp_path / "trace").exists()
    (run.folder / "agent.pt").rename(run.folder / "agent.zip")
    with pytest.raises(ValueError, match="by an earlier version, into a pickle"):
        rl2_training.train(run, setting, recipe, 0)

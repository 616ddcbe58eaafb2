"""The logged decisions are the agent's, with every algorithm and kind of vector environment of SB3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from agents.reml.algorithms import ENCODINGS
from gym_reml.evaluation.meta_learner import find_algorithm
from gym_reml.sb3 import ChoicesCallback, make_vec_env

IDS = {"box": "NetBuild-v0", "multidiscrete": "NetBuildMultiDiscrete-v0", "discrete": "NetBuildDiscrete-v0"}
HORIZON, LAYERS, COUNT = 3, 3, 2
ARGUMENTS: dict[str, Any] = {"depth": 2, "horizon": HORIZON, "pool": "random", "layers": LAYERS, "width": 4}
SHARES = ["choices/no_layer", *(f"choices/layer_{layer}" for layer in range(1, LAYERS + 1))]
SCALARS = ["log10_step_size", "log10_step_size_std", "diverged", "query_loss_first", "query_loss_last"]
EVERYTHING = {*SHARES, *(f"choices/{name}" for name in SCALARS)}


def single() -> gym.Env[Any, Any]:
    return gym.make("NetBuild-v0", **ARGUMENTS)


FACES: dict[str, Callable[[], Any]] = {
    "native": lambda: make_vec_env("NetBuild-v0", n_envs=COUNT, **ARGUMENTS),
    "dummy": lambda: DummyVecEnv([single] * COUNT),
    "subproc": lambda: SubprocVecEnv([single] * COUNT, start_method="spawn"),
    "normalised": lambda: VecNormalize(VecMonitor(DummyVecEnv([single] * COUNT))),
}


class Kept(Logger):
    """A log writer that keeps its content."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self.written: list[dict[str, Any]] = []

    def dump(self, step: int = 0) -> None:
        self.written.append({name: value for name, value in self.name_to_value.items() if name.startswith("choices/")})
        super().dump(step)


class Infos(BaseCallback):
    """Keeps all infos, and whether each was the last of its episode."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[list[dict[str, Any]], list[bool]]] = []

    def _on_step(self) -> bool:
        self.steps.append((list(self.locals["infos"]), list(self.locals["dones"])))
        return True


def learned(env: Any, steps: int = 24, algorithm: str = "PPO", **arguments: Any) -> tuple[Kept, Infos]:
    usual: dict[str, Any] = {"device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [8]}}
    if algorithm == "PPO":
        usual |= {"n_steps": 6, "batch_size": 12, "n_epochs": 1}
    policy = "MlpLstmPolicy" if algorithm == "RecurrentPPO" else "MlpPolicy"
    model = find_algorithm(algorithm)(policy, env, **(usual | arguments))
    log, infos = Kept(), Infos()
    model.set_logger(log)
    model.learn(steps, callback=[infos, ChoicesCallback()], log_interval=1)
    env.close()
    return log, infos


@pytest.mark.parametrize("face", FACES)
def test_the_log_has_the_decisions(face: str) -> None:
    log, infos = learned(FACES[face]())
    assert len(log.written) == 2, "one of each rollout"
    for place, written in enumerate(log.written):
        rollout = infos.steps[6 * place : 6 * place + 6]
        rows = [info for step, _ in rollout for info in step]
        assert written.keys() == EVERYTHING
        for layer, name in enumerate(SHARES):
            assert written[name] == pytest.approx(np.mean([info["layer"] == layer for info in rows]))
        logs = np.log10([info["step_size"] for info in rows])
        assert written["choices/log10_step_size"] == pytest.approx(logs.mean())
        assert written["choices/log10_step_size_std"] == pytest.approx(logs.std())
        assert written["choices/diverged"] == np.mean([info["diverged"] for info in rows])
        first = [info["query_loss"] for step in (0, HORIZON) for info in rollout[step][0]]
        last = [info["query_loss"] for step in (HORIZON - 1, 2 * HORIZON - 1) for info in rollout[step][0]]
        assert written["choices/query_loss_first"] == pytest.approx(np.mean(first))
        assert written["choices/query_loss_last"] == pytest.approx(np.mean(last))
        assert all(rollout[step][1] == [True] * COUNT for step in (HORIZON - 1, 2 * HORIZON - 1))


@pytest.mark.parametrize("algorithm", [name for name in ENCODINGS if name not in ("ARS", "PPO")])
def test_every_algorithm_logs_its_choices(algorithm: str) -> None:
    env = make_vec_env(IDS[ENCODINGS[algorithm]], n_envs=COUNT, **ARGUMENTS)
    off_policy: dict[str, Any] = {"learning_starts": 8, "buffer_size": 100, "batch_size": 4}
    arguments = off_policy if hasattr(find_algorithm(algorithm), "collect_rollouts") else {}
    if "learning_starts" not in find_algorithm(algorithm).__init__.__code__.co_varnames:
        arguments = {"n_steps": 6}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log, _ = learned(env, 36, algorithm, **arguments)
    written = [values for values in log.written if values]
    assert written
    # At the end of the last rollout that was written: off-policy algorithms write in the middle of one.
    assert written[-1].keys() == EVERYTHING
    assert sum(written[-1][name] for name in SHARES) == pytest.approx(1.0)


def test_sums_restart_after_the_log_is_written() -> None:
    """DQN writes the log after every fourth episode; its rollouts have one step."""
    env = make_vec_env(IDS["discrete"], n_envs=1, **ARGUMENTS)
    model = find_algorithm("DQN")("MlpPolicy", env, device="cpu", seed=0, learning_starts=1000, train_freq=1)
    log, infos = Kept(), Infos()
    model.set_logger(log)
    model.learn(8 * HORIZON, callback=[infos, ChoicesCallback()], log_interval=4)
    first, second = log.written
    layers = [step[0]["layer"] for step, _ in infos.steps]
    # The step in which the log is written belongs to the next one.
    begin, end = 4 * HORIZON - 1, 8 * HORIZON - 1
    for layer, name in enumerate(SHARES):
        assert first[name] == pytest.approx(np.mean(np.array(layers[:begin]) == layer))
        assert second[name] == pytest.approx(np.mean(np.array(layers[begin:end]) == layer))


def test_learning_goes_on_in_the_middle_of_an_episode() -> None:
    env = make_vec_env("NetBuild-v0", n_envs=COUNT, **ARGUMENTS)
    model = A2C("MlpPolicy", env, n_steps=2, device="cpu", seed=0)
    log, infos, choices = Kept(), Infos(), ChoicesCallback()
    model.set_logger(log)
    for _ in range(3):
        model.learn(2 * COUNT, callback=[infos, choices], log_interval=1, reset_num_timesteps=False)
    losses = [[info["query_loss"] for info in step] for step, _ in infos.steps]
    assert [values.get("choices/query_loss_first") for values in log.written] == pytest.approx(
        [np.mean(losses[0]), np.mean(losses[3]), None]
    )


@pytest.mark.parametrize("name", ["BanditTrial-v0", "CartPole-v1"])
def test_elsewhere_it_warns_once_and_logs_nothing(name: str) -> None:
    env = DummyVecEnv([lambda: gym.make(name)])
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu")
    log = Kept()
    model.set_logger(log)
    with pytest.warns(UserWarning, match=r"ChoicesCallback: nothing is logged.*gym_reml\.ENVIRONMENTS") as caught:
        model.learn(24, callback=ChoicesCallback())
    assert len([warning for warning in caught if "ChoicesCallback" in str(warning.message)]) == 1
    assert not any(log.written)


def test_a_run_of_agents_logs_choices(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from agents.problems.problem import Problem
    from agents.problems.recipes import FUNCTIONS
    from agents.reml.configuration import Config
    from agents.reml.training import Reml
    from agents.runs.run import Run
    from gym_reml.tasks import make_family

    run = Run.create(tmp_path / "run", Config(), "a")
    recipe = FUNCTIONS.scaled(640)
    Reml(run, Problem(make_family("sinusoid"), recipe, 640, 0)).train()
    (folder,) = (tmp_path / "run" / "tensorboard").glob("agent*")
    tags = EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    assert {"choices/no_layer", "choices/layer_8", "choices/query_loss_last", "pool/updates"} <= set(tags)

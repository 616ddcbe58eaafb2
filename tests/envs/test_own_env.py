"""An environment from outside over `TrainingMDP`: its own encoding and defaults, single and vector, and an id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO

from gym_reml.envs.training.envs import TrainingEnv, TrainingVectorEnv
from gym_reml.envs.training.setup import make_setup
from gym_reml.evaluation import MetaLearner, evaluate
from gym_reml.sb3 import make_vec_env
from gym_reml.spaces import ENCODINGS, ActionEncoding, Decided
from gym_reml.spaces.base import read_numbers
from gym_reml.spaces.decision import Masks
from tests.support.env_helpers import SMALL, assert_same
from tests.support.vectors import assert_outcomes_agree, singles

ID = "StepSize-v0"
DEFAULTS: dict[str, Any] = SMALL | {"depth": 2, "initial_layers": (1, 2), "action": "step"}


class StepEncoding(ActionEncoding):
    """Box(-1, 1, (1,)): the step size alone."""

    name = "step"

    def _make_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def decode(self, actions: Any, allowed: Masks, *, generators: Any) -> Decided:
        steps = read_numbers(actions, (len(generators), 1))
        return self.decision.decide(len(steps), step_size=steps[:, 0])

    def encode(self, decided: Decided) -> Any:
        return np.clip(decided.numbers, -1.0, 1.0)


class StepSizeEnv(TrainingEnv):
    """A complete network; the agent chooses the size of every gradient step."""

    def __init__(self, render_mode: str | None = None, **arguments: Any) -> None:
        super().__init__(make_setup(1, **(DEFAULTS | arguments)), render_mode)


class StepSizeVectorEnv(TrainingVectorEnv):
    """The native vector environment."""

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str = "NextStep",
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        setup = make_setup(num_envs, **(DEFAULTS | arguments))
        super().__init__(setup, autoreset_mode, render_mode=render_mode, max_episode_steps=max_episode_steps)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(ENCODINGS, StepEncoding.name, StepEncoding)
    gym.register(ID, StepSizeEnv, vector_entry_point=StepSizeVectorEnv)
    yield
    del gym.registry[ID]


@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker_passes_and_no_layer_is_appended() -> None:
    for render_mode in (None, "ansi", "rgb_array"):
        check_env(gym.make(ID, render_mode=render_mode).unwrapped, skip_render_check=render_mode is None)
    env = gym.make(ID)
    env.reset(seed=0)
    *_, info = env.step(np.array([1.0], dtype=np.float32))
    assert (info["layer"], info["step_size"]) == (0, pytest.approx(0.3))


def test_the_vector_equals_singles() -> None:
    ours, theirs = gym.make_vec(ID, num_envs=3), singles(ID, 3)
    assert_same(ours.reset(seed=4), theirs.reset(seed=4), 2e-4)
    ours.action_space.seed(0)
    for _ in range(8):
        action = ours.action_space.sample()
        assert_outcomes_agree(ours.step(action), theirs.step(action))


def test_an_agent_trained_in_it_is_evaluated() -> None:
    agent = PPO("MlpPolicy", make_vec_env(ID, n_envs=2), n_steps=8, batch_size=8, seed=0, device="cpu").learn(16)
    learner = MetaLearner.from_sb3(agent)
    assert learner.arguments["action"] == "step"
    assert evaluate(learner, "sinusoid", shots=3, steps=(0, 5), tasks=4).metrics["loss"].shape == (2, 4)

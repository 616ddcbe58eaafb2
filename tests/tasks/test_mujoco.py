"""Families of policies on MuJoCo's robots: rewards from their positions, and side effects of loading."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from gym_reml.tasks import make_family
from gym_reml.tasks.policies.gymnasium import GymnasiumFamily
from gym_reml.tasks.policies.mujoco import (
    draw_direction,
    draw_velocity,
    make_ant_direction,
    make_half_cheetah_direction,
    make_half_cheetah_velocity,
    set_direction,
    set_velocity,
)
from tests.support.gymnasium_helpers import constant, roll_out


def forward_velocity(env: Any, body: str, action: NDArray[Any]) -> tuple[float, float]:
    """The velocity by the positions of a body or a joint, 0.05 s apart, and the reward."""
    physics = env.unwrapped.data

    def place() -> float:
        return float(physics.body(body).xpos[0] if body else physics.qpos[0])

    before = place()
    reward = env.step(action)[1]
    return (place() - before) / 0.05, reward


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize(
    ("make", "body", "cost", "bonus"),
    [(make_half_cheetah_direction, "", 0.05, 0.0), (make_ant_direction, "torso", 0.005, 1.0)],
    ids=["half-cheetah", "ant"],
)
def test_running_in_a_direction(
    make: Callable[[], Any], body: str, cost: float, bonus: float, direction: float
) -> None:
    env = make()
    set_direction(env, {"direction": direction})
    env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1.0, 1.0, (10, *env.action_space.shape)).astype(np.float32):
        velocity, reward = forward_velocity(env, body, action)
        assert reward == pytest.approx(direction * velocity - cost * (action**2).sum() + bonus, abs=1e-5)


def test_running_at_a_velocity() -> None:
    env = make_half_cheetah_velocity()
    set_velocity(env, {"velocity": 1.3})
    env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1.0, 1.0, (10, 6)).astype(np.float32):
        velocity, reward = forward_velocity(env, "", action)
        assert reward == pytest.approx(-abs(velocity - 1.3) - 0.05 * (action**2).sum(), abs=1e-5)


def test_goals() -> None:
    generator = np.random.default_rng(0)
    directions = [draw_direction(generator)["direction"] for _ in range(400)]
    assert set(directions) == {-1.0, 1.0}
    assert abs(np.mean(directions)) < 0.15
    velocities = np.array([draw_velocity(generator)["velocity"] for _ in range(400)])
    assert velocities.min() >= 0.0
    assert velocities.max() <= 2.0
    np.testing.assert_allclose(np.quantile(velocities, [0.25, 0.5, 0.75]), [0.5, 1.0, 1.5], atol=0.12)


def test_an_ant_that_falls_is_out() -> None:
    family = make_family("ant_direction", steps=60)
    assert isinstance(family, GymnasiumFamily)
    seen = roll_out(family, constant(*[0.0] * 16), count=4)
    assert (seen.active.sum(dim=2) < 60).any(), "actions at random throw it over"
    assert (seen.rewards[~seen.active] == 0.0).all()


def test_loading_robots_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    make_half_cheetah_direction()
    make_ant_direction()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_without_mujoco(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ImportError, match=r'^HalfCheetah-v5 needs MuJoCo: pip install "gym-reml\[mujoco\]"$'):
        make_family("half_cheetah_velocity")


def test_the_table_of_families_loads_no_physics() -> None:
    code = "import sys, gym_reml.tasks; print('mujoco' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


# -- in the environment -----------------------------------------------------------------------------------------------


def test_an_episode_on_a_robot() -> None:
    small: dict[str, Any] = {"shots": 2, "queries": 2, "width": 6, "layers": 2, "horizon": 3}
    env = gym.make("NetBuild-v0", family="half_cheetah_direction", family_kwargs={"steps": 6}, **small)
    _, info = env.reset(seed=0)
    assert info["task"]["direction"] in (-1.0, 1.0)
    env.action_space.seed(0)
    for step in range(3):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert reward == pytest.approx(info["query_return"] / 300.0 / 3)
        assert (terminated, truncated) == (step == 2, False)

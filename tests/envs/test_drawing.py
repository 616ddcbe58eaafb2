"""Drawing through Gymnasium: a window, and images of real archives' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import HumanRendering

from gym_reml.streams import many_streams
from gym_reml.tasks import make_family
from tests.support.env_helpers import SMALL, sample_actions

NAVIGATION: dict[str, Any] = {
    **{"pool": "random", "width": 6, "layers": 3, "shots": 3, "queries": 2},
    **{"family": "navigation", "family_kwargs": {"steps": 12}},
}
CLASSES: dict[str, Any] = {"family": "omniglot", "shots": 1, "queries": 4, "width": 6, "layers": 3, "pool": "random"}


def test_human_rendering_is_wrapped_around(monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame", reason="Gymnasium's HumanRendering shows frames with pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with pytest.warns(UserWarning, match="HumanRendering wrapper is being applied"):
        env = gym.make("NetBuild-v0", render_mode="human", **SMALL)
    assert isinstance(env, HumanRendering)
    try:
        env.reset(seed=0)
        for action in sample_actions(env.action_space, 2):
            env.step(action)
        assert env.render_mode == "human"
        assert env.env.render_mode == "rgb_array"
        assert env.window is not None
        shown = pygame.surfarray.array3d(env.window).swapaxes(0, 1)
        np.testing.assert_array_equal(shown, env.env.render())
    finally:
        env.close()


def test_drawing_without_a_mode_says_how(recwarn: pytest.WarningsRecorder) -> None:
    env = gym.make("NetBuild-v0", **SMALL).unwrapped
    env.reset(seed=0)
    assert env.render() is None
    assert any("without render_mode" in str(warning.message) for warning in recwarn)
    envs = gym.make_vec("NetBuild-v0", num_envs=2, **SMALL)
    envs.reset(seed=0)
    assert envs.render() is None


def test_a_refused_layer_was_not_appended() -> None:
    """Also where the network holds the chosen layer from the start."""
    arguments: dict[str, Any] = {"initial_layers": [1], "max_step": 1e30} | SMALL
    env: Any = gym.make("NetBuildHybrid-v0", render_mode="ansi", **arguments).unwrapped
    env.reset(seed=0)
    env.step({"layer": 1, "step_size": np.ones(1, dtype=np.float32)})
    assert "layer 1 not appended" in env.render()
    assert "REFUSED" in env.render()


def test_frames_have_decisions_and_outcomes() -> None:
    arguments: dict[str, Any] = {"depth": 2, "horizon": 6, "max_step": 1e30} | SMALL
    env: Any = gym.make("NetBuildHybrid-v0", render_mode="ansi", **arguments).unwrapped
    recorder, plan = env._recorders[0], [(1, -1.0), (2, 1.0), (0, -1.0), (2, -1.0), (3, -1.0), (3, 1.0)]
    for _ in range(2):
        env.reset(seed=1)
        infos = [
            env.step({"layer": layer, "step_size": np.array([place], dtype=np.float32)})[-1] for layer, place in plan
        ]
        frame = recorder.frame(env.mdp)
        assert frame.decided["layer"] == (1, 2, 0, 2, 0, 0), "a full network has no layers to choose"
        assert frame.decided["step_size"] == tuple(info["step_size"] for info in infos)
        assert frame.appended == tuple(info["layer"] > 0 for info in infos)
        assert frame.diverged == tuple(info["diverged"] for info in infos)
        assert frame.appended == (True, False, False, True, False, False)


@pytest.mark.parametrize("vector", [False, True])
def test_images_are_drawn(tmp_path: Path, vector: bool) -> None:
    pytest.importorskip("PIL", reason="reading Omniglot needs Pillow")
    from tests.support.omniglot_archive import write_archives

    arguments = CLASSES | {"family_kwargs": {"root": str(write_archives(tmp_path / "data")), "ways": 2}}
    env: Any
    for mode in ("rgb_array", "ansi"):
        if vector:
            env = gym.make_vec("NetBuild-v0", num_envs=2, render_mode=mode, **arguments)
        else:
            env = gym.make("NetBuild-v0", render_mode=mode, **arguments)
        env.reset(seed=0)
        before = env.render()
        env.step(sample_actions(env.action_space, 1)[0])
        after = env.render()
        frames = list(zip(before, after, strict=True)) if vector else [(before, after)]
        assert len(frames) == (2 if vector else 1)
        for one, other in frames:
            if mode == "ansi":
                assert "omniglot, 1 shot" in other
                assert one != other
            else:
                assert (other.dtype, other.ndim) == (np.uint8, 3)
                assert not np.array_equal(one, other)


@pytest.mark.parametrize("vector", [False, True])
def test_paths_of_policies_are_drawn(vector: bool) -> None:
    env: Any
    for mode in ("rgb_array", "ansi"):
        if vector:
            env = gym.make_vec("NetBuild-v0", num_envs=2, render_mode=mode, **NAVIGATION)
        else:
            env = gym.make("NetBuild-v0", render_mode=mode, **NAVIGATION)
        env.reset(seed=0)
        before = env.render()
        env.step(sample_actions(env.action_space, 1)[0])
        after = env.render()
        frames = list(zip(before, after, strict=True)) if vector else [(before, after)]
        assert len(frames) == (2 if vector else 1)
        for one, other in frames:
            if mode == "ansi":
                assert "paths" in other
                assert "return" in other
                assert "loss" not in other
                assert one != other
            else:
                assert other.shape == (560, 896, 3)
                assert not np.array_equal(one, other)


def test_paths_are_those_of_the_support_set() -> None:
    env: Any = gym.make_vec("NetBuild-v0", num_envs=2, render_mode="ansi", **NAVIGATION)
    env.reset(seed=0)
    mdp, recorder = env.mdp, env._recorders[1]
    first = recorder.frame(mdp)
    for action in sample_actions(env.action_space, 3):
        env.step(action)
        frame = recorder.frame(mdp)
        assert frame.measure == "return"
        np.testing.assert_array_equal(frame.paths.before, first.paths.now)
        assert frame.paths.now.shape == (3, 13, 2)
        np.testing.assert_array_equal(frame.paths.now[:, 0], 0.0)
        # Every place but the first is paid minus its distance to the goal.
        paid = -np.linalg.norm(frame.paths.now[:, 1:] - frame.paths.goal, axis=2)
        np.testing.assert_allclose(np.nansum(paid, axis=1), mdp.support.extras["returns"][1], rtol=1e-5)
        np.testing.assert_allclose(frame.courses["support"][-1], np.nansum(paid, axis=1).mean(), rtol=1e-5)
        np.testing.assert_array_equal(frame.paths.goal, mdp.tasks["goal"][1])


def test_paths_end_with_the_step_that_reaches_the_goal() -> None:
    family = make_family("navigation", shots=2, steps=6)
    streams = many_streams(0, 1, "train")
    tasks = {"goal": np.array([[0.25, 0.1]])}

    def straight(inputs: torch.Tensor) -> torch.Tensor:
        towards = (torch.tensor([0.25, 0.1]) - inputs).clip(-0.1, 0.1) / 0.1
        # Hardly any noise.
        return torch.cat([towards, torch.full_like(towards, -20.0)], dim=2)

    batch = family.support(tasks, straight, [row.support for row in streams])
    found = family.paths(tasks, batch, 0)
    assert found is not None
    ways, goal = found
    np.testing.assert_array_equal(goal, tasks["goal"][0])
    expected = [[0.0, 0.0], [0.1, 0.1], [0.2, 0.1], [0.25, 0.1], *[[np.nan] * 2] * 3]
    np.testing.assert_allclose(ways, [expected] * 2, atol=1e-3)

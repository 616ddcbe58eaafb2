"""Drawing through Gymnasium: a window, and images of real archives' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from env_helpers import SMALL, sample_actions
from gymnasium.wrappers import HumanRendering

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
    assert gym.make_vec("NetBuild-v0", num_envs=2, **SMALL).render() is None


@pytest.mark.parametrize("vector", [False, True])
def test_images_are_drawn(tmp_path: Path, vector: bool) -> None:
    pytest.importorskip("PIL", reason="reading Omniglot needs Pillow")
    from omniglot_archive import write_archives

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

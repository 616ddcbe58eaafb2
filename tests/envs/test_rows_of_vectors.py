"""A native vector environment seen row by row."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

import gym_reml  # noqa: F401
from gym_reml.envs.common.rows import infos_of_rows


def test_rows_that_are_not_reset_have_no_info() -> None:
    """Also where infos have masks, which are written anew for each row."""
    envs: Any = gym.make_vec("NetBuildDiscrete-v0", num_envs=3, autoreset_mode="Disabled")
    envs.reset(seed=0)
    _, info = envs.reset(options={"reset_mask": np.array([False, True, False])})
    infos = infos_of_rows(envs, info)
    single: Any = gym.make("NetBuildDiscrete-v0")
    assert [set(row) for row in infos] == [set(), set(single.reset(seed=1)[1]), set()]

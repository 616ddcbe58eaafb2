"""Comparison of outcomes of vector environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

from gym_reml.spaces import layer_and_step
from tests.support.env_helpers import assert_same

TOLERANCE = 2e-4
COUNT = 4


def singles(env_id: str, count: int = COUNT, mode: str = "NextStep", **arguments: Any) -> SyncVectorEnv:
    return SyncVectorEnv(
        [lambda: gym.make(env_id, **arguments).unwrapped for _ in range(count)], autoreset_mode=AutoresetMode(mode)
    )


def as_rows(info: dict[str, Any], count: int = COUNT) -> list[dict[str, Any]]:
    """Each row's info, as Gymnasium unpacks vector infos."""
    wrapper = vector_wrappers.DictInfoToList.__new__(vector_wrappers.DictInfoToList)
    wrapper.env = gym.vector.VectorEnv()
    wrapper.env.num_envs = count
    rows: list[dict[str, Any]] = wrapper._convert_info_to_list(info)
    return [_plain(row) for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def masks_by_part(info: dict[str, Any]) -> dict[str, Any]:
    """SyncVectorEnv's info with masks that are tuples, or hold a None, by the action's parts, as ours has them."""
    info = dict(info)
    if "final_info" in info:
        info["final_info"] = masks_by_part(info["final_info"])
    masks = info.get("action_mask")
    if isinstance(masks, dict):
        info["action_mask"] = {name: mask for name, mask in masks.items() if name.strip("_") == "layer"}
    elif masks is not None and masks.dtype == object:
        there = info["_action_mask"]
        parts = list(zip(*(mask for mask in masks if mask is not None), strict=True))
        names = layer_and_step(1, None if len(parts) == 2 else len(parts) - 3).names
        info["action_mask"] = {}
        for name, part in zip(names, parts, strict=True):
            values = np.zeros((len(masks), len(part[0])), dtype=np.int8)
            values[there] = part
            info["action_mask"] |= {name: values, f"_{name}": there.copy()}
    return info


def assert_infos_agree(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The same names, masks, types, shapes and numbers, including nested ones."""
    _assert_columns_agree(ours, masks_by_part(theirs))


def _assert_columns_agree(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for name in theirs:
        if name == "final_obs":
            assert_same(ours[name], theirs[name], TOLERANCE)
        elif isinstance(theirs[name], dict):
            _assert_columns_agree(ours[name], theirs[name])
        else:
            assert ours[name].shape == theirs[name].shape, name
            assert_same(ours[name], theirs[name], TOLERANCE, name)


def assert_outcomes_agree(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    """Observations and rewards within the tolerance, ends exactly, infos with their masks."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert_same(one, other, TOLERANCE)
    assert_infos_agree(ours[-1], theirs[-1])

"""Pools as plain data: files of format 1 are read as the same pools."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from tests.support.replays import assert_same_pool, small_pool

NAMES = {"stem.matrix": "stem", "layers.matrix": "layers", "head.matrix": "head"}
NAMES |= {"stem.norm": "stem_norm", "layers.norm": "layers_norm"}


def in_format_1(pool: LayerPool) -> dict[str, Any]:
    """The state of a pool in format 1, where constants were columns of the head."""
    state = pool.state() | {"format": "gym_reml.LayerPool/1", "constant_outputs": pool.constant_outputs}
    for part in ("parameters", "rates"):
        tensors = state[part]
        constants = tensors.pop("head.constants", None)
        if constants is not None and constants.ndim == 2:
            head = tensors["head.matrix"]
            columns = torch.zeros(len(head), constants.shape[1], dtype=head.dtype)
            columns[-1:] = constants
            tensors["head.matrix"] = torch.cat([head, columns], dim=1)
        state[part] = {NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    return state


@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("granularity", [None, *RATES])
@pytest.mark.parametrize("adapt_stem", [True, False])
def test_files_of_format_1_are_read(kind: str, granularity: str | None, adapt_stem: bool) -> None:
    pool = small_pool(kind, granularity, adapt_stem)
    assert_same_pool(LayerPool.from_state(in_format_1(pool)), pool)


@pytest.mark.parametrize("granularity", [None, "scalar", "weight"])
def test_their_constant_outputs_are_read(granularity: str | None) -> None:
    pool = LayerPool.random(in_features=2, out_features=4, width=5, layers=2, constant_outputs=2)
    pool = pool if granularity is None else pool.with_rates(granularity, 0.1)
    for tensor in pool.trainable().values():
        tensor.uniform_(0.1, 1.0, generator=torch.Generator().manual_seed(tensor.numel()))
    read = LayerPool.from_state(in_format_1(pool))
    assert_same_pool(read, pool)
    assert (read.constant_outputs, read.out_features) == (2, 4)


@pytest.mark.parametrize("granularity", ["tensor", "step"])
def test_constants_took_the_rates_of_the_head(granularity: str) -> None:
    pool = LayerPool.random(in_features=2, out_features=4, width=5, layers=2, constant_outputs=2)
    pool = pool.with_rates(granularity, 0.1, steps=3, slots=2)
    pool.rates["head.matrix"].fill_(0.3)
    state = in_format_1(pool)
    assert torch.equal(LayerPool.from_state(state).rates["head.constants"], pool.rates["head.matrix"])


def test_step_norms_and_files_from_before_there_were_statistics() -> None:
    pool = small_pool("batch_norm", "tensor", norm_steps=3, statistics=True)
    assert_same_pool(LayerPool.from_state(in_format_1(pool)), pool)
    pool = small_pool("batch_norm", "tensor")
    state = in_format_1(pool)
    del state["statistics"], state["constant_outputs"]
    assert_same_pool(LayerPool.from_state(state), pool)


@pytest.mark.parametrize(
    "damage", [{"constant_outputs": 9}, {"constant_outputs": -1}, {"parameters": 3}, {"rates": {"head": 1.0}}]
)
def test_damaged_files_of_format_1(damage: dict[str, Any]) -> None:
    state = in_format_1(LayerPool.random(in_features=2, out_features=4, width=5, layers=2)) | damage
    with pytest.raises(ValueError, match=r"^here: damaged layer pool, "):
        LayerPool.from_state(state, "here")


def test_the_packaged_pool_is_read() -> None:
    """The packaged file has format 1."""
    import gymnasium as gym

    pool = gym.make("NetBuild-v0").unwrapped.pool  # type: ignore[attr-defined]
    assert set(pool.parameters) == {"stem.matrix", "layers.matrix", "head.matrix"}

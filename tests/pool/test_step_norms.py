"""Pools with norms for each step: parameters, copies and files. Their computation is tested in test_batch_norm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gym_reml.learning import PoolLearner
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from tests.support.replays import FAMILY, LAYERS, assert_same_pool, everything, plain, small_pool

STATISTICS = pytest.mark.parametrize("statistics", [False, True])


@STATISTICS
def test_with_step_norms(statistics: bool) -> None:
    pool = small_pool("batch_norm", "weight")
    stepped = pool.with_step_norms(3, statistics)
    assert pool.norm_steps is None
    assert stepped.norm_steps == 3
    for name in ("stem.norm", "layers.norm"):
        assert torch.equal(stepped.parameters[name], pool.parameters[name].expand(3, *pool.parameters[name].shape))
    assert stepped.adapted == ("layers.matrix", "head.matrix")
    assert stepped.rates.keys() == {"layers.matrix", "head.matrix"}
    assert stepped.trainable().keys() == pool.parameters.keys() | {"rate.layers.matrix", "rate.head.matrix"}
    for granularity in RATES:
        rates = stepped.with_rates(granularity, 0.1, steps=2, slots=2).rates
        assert rates.keys() == ({"all"} if granularity == "scalar" else {"layers.matrix", "head.matrix"})
    if not statistics:
        assert stepped.statistics == {}
        return
    assert {name: tuple(tensor.shape) for name, tensor in stepped.statistics.items()} == {
        "stem": (3, 2, 4),
        "layers": (3, LAYERS, 2, 4),
    }
    assert all((t[..., 0, :] == 0).all() and (t[..., 1, :] == 1).all() for t in stepped.statistics.values())


@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if kind != "batch_norm"])
def test_step_norms_are_for_batch_norm(kind: str) -> None:
    with pytest.raises(ValueError, match=f"^kind='{kind}': norms for each step are for 'batch_norm'"):
        small_pool(kind).with_step_norms(2)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, None])
def test_bad_numbers_of_steps(steps: Any) -> None:
    with pytest.raises(ValueError, match=rf"^steps={re.escape(repr(steps))}: must be a positive integer"):
        small_pool("batch_norm").with_step_norms(steps)
    with pytest.raises(ValueError, match=r"^steps=2: this pool has norms for each of 3 steps already"):
        small_pool("batch_norm", norm_steps=3).with_step_norms(2)


@pytest.mark.parametrize("rule", ["in_place", "reptile"])
def test_averages_have_no_step_norms(rule: str) -> None:
    with pytest.raises(ValueError, match=rf"^learn='{rule}': averages fast weights.* 'fomaml', 'maml'"):
        PoolLearner(small_pool("batch_norm", norm_steps=2), FAMILY, rule)


@STATISTICS
@pytest.mark.parametrize("granularity", [None, *RATES])
def test_files_and_copies_carry_it(statistics: bool, granularity: str | None, tmp_path: Path) -> None:
    pool = small_pool("batch_norm", granularity, norm_steps=3, statistics=statistics)
    pool.save(tmp_path / "pool.pt")
    assert_same_pool(LayerPool.load(tmp_path / "pool.pt"), pool)
    for make in (lambda: LayerPool.from_state(pool.state()), pool.clone):
        copy = make()
        assert_same_pool(copy, pool)
        for tensor in everything(copy).values():
            tensor += 1.0
        assert not any(torch.equal(everything(copy)[name], tensor) for name, tensor in everything(pool).items())
        pool.assign(copy)
        assert_same_pool(copy, pool)
    there = pool.to("meta")
    assert {tensor.device.type for tensor in everything(there).values()} == {"meta"}


def test_assign_and_describe_tell_them_apart() -> None:
    pools = [
        small_pool("batch_norm"),
        small_pool("batch_norm", norm_steps=2),
        small_pool("batch_norm", norm_steps=3),
        small_pool("batch_norm", norm_steps=3, statistics=True),
    ]
    ends = ["1 outputs", "norms for each of 2 steps", "norms for each of 3 steps", "statistics for each of 3 steps"]
    for pool, end in zip(pools, ends, strict=True):
        assert pool.describe().endswith(end)
        for other in pools:
            if other is not pool:
                with pytest.raises(ValueError, match="another shape"):
                    pool.assign(other)


DAMAGE: dict[str, Any] = {
    "no steps": lambda parameters, statistics: parameters.update(
        {"stem.norm": torch.ones(0, 2, 4), "layers.norm": torch.ones(0, 3, 2, 4)}
    ),
    "other numbers of steps": lambda parameters, statistics: parameters.update({"stem.norm": torch.ones(4, 2, 4)}),
    "stem alone": lambda parameters, statistics: parameters.update({"stem.norm": torch.ones(2, 4)}),
    "statistics of other steps": lambda parameters, statistics: statistics.update(stem=torch.ones(2, 2, 4)),
    "statistics of the stem alone": lambda parameters, statistics: statistics.pop("layers"),
    "statistics without step norms": lambda parameters, statistics: parameters.update(
        {"stem.norm": torch.ones(2, 4), "layers.norm": torch.ones(3, 2, 4)}
    ),
    "no tensor": lambda parameters, statistics: statistics.update(stem=[1.0]),
    "not finite": lambda parameters, statistics: statistics["stem"].fill_(torch.inf),
    "a variance below 0": lambda parameters, statistics: statistics["layers"][0, 0, 1].fill_(-1.0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_states(damage: Any) -> None:
    state = plain(small_pool("batch_norm", norm_steps=3, statistics=True)).state()
    LayerPool.from_state(state)
    damage(state["parameters"], state["statistics"])
    with pytest.raises(ValueError, match=r"^here: damaged layer pool, "):
        LayerPool.from_state(state, "here")


def test_other_kinds_have_no_step_norms_in_files() -> None:
    state = plain(small_pool("batch_norm", norm_steps=3)).state()
    with pytest.raises(ValueError, match="do not fit together"):
        LayerPool.from_state(state | {"kind": "layer_norm"})

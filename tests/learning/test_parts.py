"""Updates whose episodes are differentiated in parts equal those of all episodes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.learning import LearningOptions, PoolLearner, pool_learner
from gym_reml.learning.episodes import Episodes
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.meta_training import meta_train
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import make_family

ROWS, STEPS, AT_ONCE = 7, 3, 3
FAMILY = make_family("sinusoid")


def process(pool: LayerPool) -> TrainingMDP:
    mdp = TrainingMDP(ROWS, FAMILY, pool, Objective(STEPS), slots=2)
    mdp.seed(range(ROWS), many_streams(0, ROWS, FAMILY.split))
    mdp.reset()
    return mdp


def updated(
    at_once: int | None,
    rule: str = "maml",
    kind: str = "residual",
    *,
    statistics: bool = False,
    spoiled: float | None = None,
    row_weights: Callable[[Tensor], Tensor] | None = None,
) -> tuple[PoolLearner, list[float]]:
    """A learner after three updates; with `spoiled`, one row takes steps of this size."""
    pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3, kind=kind, seed=1)
    if statistics:
        pool = pool.with_step_norms(STEPS, statistics=True)
    # Adam makes steps of rounding errors where a gradient is 0, so these have to be small.
    for part in (pool.parameters, pool.statistics):
        part |= {name: tensor.double() for name, tensor in part.items()}
    learner = PoolLearner(pool, FAMILY, rule, LearningOptions(rows_at_once=at_once, learning_rate=1e-3))
    mdp, losses = process(pool), []
    for turn in range(3):
        mdp.reset()
        layers = torch.from_numpy(np.random.default_rng(turn).integers(0, 4, (STEPS, ROWS)))
        sizes = torch.full((STEPS, ROWS), 0.05)
        if spoiled is not None:
            sizes[:, 4] = spoiled
        episodes = mdp.episodes(layers, sizes)
        losses.append(learner.minimise(episodes, learner._step_weights(STEPS), row_weights=row_weights))
    return learner, losses


def assert_equal(one: tuple[PoolLearner, list[float]], other: tuple[PoolLearner, list[float]]) -> None:
    (first, losses), (second, same) = one, other
    torch.testing.assert_close(first.pool.trainable(), second.pool.trainable(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(first.pool.statistics, second.pool.statistics, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(losses, same, rtol=1e-5)
    assert (first.updates, first.used, first.dropped) == (second.updates, second.used, second.dropped)


@pytest.mark.parametrize("rule", ["maml", "fomaml"])
@pytest.mark.parametrize("kind", ["relu", "residual", "layer_norm", "batch_norm"])
def test_parts_make_the_same_update(kind: str, rule: str) -> None:
    assert_equal(updated(AT_ONCE, rule, kind), updated(None, rule, kind))


def test_running_statistics_are_those_of_all_rows() -> None:
    found = updated(AT_ONCE, kind="batch_norm", statistics=True)
    assert found[0].pool.statistics
    assert_equal(found, updated(None, kind="batch_norm", statistics=True))


@pytest.mark.parametrize("size", [1, ROWS, 100])
def test_parts_may_be_of_any_size(size: int) -> None:
    assert_equal(updated(size), updated(None))


@pytest.mark.parametrize("size", [1e30, 3e8], ids=["not finite", "long"])
def test_parts_drop_the_same_episodes(size: float) -> None:
    found = updated(AT_ONCE, spoiled=size)
    assert found[0].dropped == 3
    assert_equal(found, updated(None, spoiled=size))


def test_weights_of_rows_see_the_losses_of_all() -> None:
    def by_loss(losses: Tensor) -> Tensor:
        return torch.softmax(-losses.nan_to_num(posinf=1e9), dim=0)

    assert_equal(updated(AT_ONCE, row_weights=by_loss), updated(None, row_weights=by_loss))


def test_no_more_rows_than_asked_are_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = pool_learner.replay

    def counted(pool: LayerPool, family: Any, episodes: Episodes, **named: Any) -> Any:
        seen.append(len(episodes))
        return original(pool, family, episodes, **named)

    monkeypatch.setattr(pool_learner, "replay", counted)
    pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3)
    learner = PoolLearner(pool, FAMILY, "maml", LearningOptions(rows_at_once=AT_ONCE))
    meta_train(process(pool), learner, None, iterations=1)
    assert seen == [3, 3, 1, 3, 3, 1]


def test_a_number_of_rows_is_checked() -> None:
    with pytest.raises(ValueError, match="rows_at_once=0 must be an integer from 1"):
        LearningOptions(rows_at_once=0)

"""Layers specialised on clusters of tasks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gym_reml.files import load_safely, save_atomically
from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.meta_training import Clusters, find_clusters, meta_train
from gym_reml.meta_training.clusters import copy_layer
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.streams import many_streams
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily


def two_kinds() -> TaskFamily:
    """Lines far above and far below zero."""
    from gym_reml.tasks import from_function

    def high(x: np.ndarray, a: np.ndarray) -> np.ndarray:
        return a + 0.0 * x

    members = [from_function(high, {"a": bounds}) for bounds in ((2.5, 3.5), (-3.5, -2.5))]
    return make_family("mixture", members=members)


def process(pool: LayerPool, count: int = 16, horizon: int = 2) -> TrainingMDP:
    family = two_kinds()
    mdp = TrainingMDP(count, family, pool, Objective(horizon), slots=1)
    mdp.seed(range(count), many_streams(0, count, family.split))
    return mdp


def test_clusters_are_the_kinds_of_tasks(tmp_path: Path) -> None:
    mdp = process(LayerPool.random(in_features=1, out_features=1, width=8, layers=3))
    clusters = find_clusters(mdp, 2, tasks=200)
    mdp.reset()
    found, kinds = clusters.assign(mdp.observe()), mdp.tasks["member"]
    assert set(kinds) == {0, 1}
    assert ((found == kinds).all()) or ((found == 1 - kinds).all())
    again = find_clusters(process(LayerPool.random(in_features=1, out_features=1, width=8, layers=3)), 2, tasks=200)
    np.testing.assert_array_equal(clusters.centres, again.centres)
    save_atomically(clusters.state(), tmp_path / "clusters.pt")
    restored = Clusters.from_state(load_safely(tmp_path / "clusters.pt"))
    np.testing.assert_array_equal(restored.assign(mdp.observe()), found)


def test_meta_training_lowers_the_query_loss_and_ends_with_its_rates_restored() -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=2).with_rates("step", 0.02, steps=2)
    mdp = process(pool)
    learner = PoolLearner(pool, mdp.family, "maml", LearningOptions(learning_rate=1e-2))
    losses: list[float] = []
    meta_train(mdp, learner, lambda seen: np.full(len(seen), 1), iterations=60, progress=lambda _, x: losses.append(x))
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
    assert learner.updates == 60


@pytest.mark.parametrize("granularity", [None, *RATES])
def test_copies_take_the_layer_with_its_rates(granularity: str | None) -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=4, layers=3, kind="layer_norm")
    if granularity is not None:
        pool = pool.with_rates(granularity, 0.1, steps=2, slots=2)
        for rate in pool.rates.values():
            rate.mul_(1.0 + 0.01 * torch.rand(rate.shape, generator=torch.Generator().manual_seed(0)))
    before = pool.clone()
    copy_layer(pool, 1, [3])
    for name, tensor in pool.trainable().items():
        old = before.trainable()[name]
        if "layers" not in name or (name.startswith("rate.") and granularity == "weight_step"):
            assert tensor.equal(old)
            continue
        axis = 1 if name.startswith("rate.") and granularity == "step" else 0
        assert tensor.select(axis, 2).equal(old.select(axis, 0))
        for untouched in (0, 1):
            assert tensor.select(axis, untouched).equal(old.select(axis, untouched))


def test_copies_take_what_is_kept_per_step_along() -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=4, layers=3, kind="batch_norm")
    pool = pool.with_step_norms(2, statistics=True).with_rates("step", 0.1, steps=2)
    generator = torch.Generator().manual_seed(0)
    kept = {"norm": pool.parameters["layers.norm"], "statistics": pool.statistics["layers"]}
    for tensor in kept.values():
        tensor.uniform_(generator=generator)
    before = {name: tensor.clone() for name, tensor in kept.items()}
    copy_layer(pool, 1, [3])
    for name, tensor in kept.items():
        assert tensor[:, 2].equal(before[name][:, 0])
        assert tensor[:, :2].equal(before[name][:, :2])


def test_invalid_states_raise_and_states_are_copies() -> None:
    clusters = Clusters(np.zeros(3), np.ones(3), np.zeros((2, 3)))
    state = clusters.state()
    for wrong in (None, {}, state | {"x": state["mean"]}, state | {"mean": "abc"}):
        with pytest.raises(ValueError, match=r"^state: must hold the tensors mean, deviation, centres"):
            Clusters.from_state(wrong)
    for wrong in ({"mean": torch.zeros(4)}, {"centres": torch.zeros(3)}, {"deviation": torch.full((3,), torch.nan)}):
        with pytest.raises(ValueError, match=r"^state: its arrays have inconsistent shapes, or are not finite"):
            Clusters.from_state(state | wrong)
    restored = Clusters.from_state(state)
    for numbers in state.values():
        numbers.fill_(7.0)
    for one in (clusters, restored):
        assert not one.mean.any()
        assert not one.centres.any()

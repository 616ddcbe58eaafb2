"""Greedy competition specialises layers: different layers win different kinds of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.learning import Episodes, LearningOptions, PoolLearner, replay
from gym_reml.meta_training import greedy_competition
from gym_reml.meta_training.competition import HIDDEN_SCALE, TEMPERATURE, _Competition
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import TaskFamily, from_function

# Two kinds of tasks far apart: y = +3 and y = -3, and nothing in between.
LAYERS = 4
FAMILY = from_function(lambda x, side: 3.0 * np.sign(side), {"side": (-1.0, 1.0)}, shots=4, queries=8)


def pool(kind: str = "residual", seed: int = 0) -> LayerPool:
    return LayerPool.random(
        in_features=1, out_features=1, width=12, layers=LAYERS, kind=kind, scale=HIDDEN_SCALE, seed=seed
    )


def losses_of_layers(trained: LayerPool, family: TaskFamily = FAMILY, count: int = 20) -> tuple[Tensor, Tensor]:
    """For new tasks, which are above zero (count,), and the loss after one small step with each layer (count, L)."""
    streams = many_streams(10_000, count, family.split)
    tasks = family.draw([row.task for row in streams])
    support = family.support(tasks, lambda x: x, [row.support for row in streams])
    query = family.query(tasks, lambda x: x, [row.query for row in streams])
    by_layer = [
        replay(
            trained,
            family,
            Episodes([support], [query], torch.full((1, count), layer), torch.full((1, count), 0.007), (), 1),
        )[0][0]
        for layer in range(1, LAYERS + 1)
    ]
    return query.targets[:, 0, 0] > 0, torch.stack(by_layer, dim=1)


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_two_kinds_of_tasks_make_two_specialists(kind: str) -> None:
    trained = pool(kind)
    before = losses_of_layers(trained)[1].amin(dim=1).mean()
    greedy_competition(trained, FAMILY, depth=1, iterations=120, tasks=6, steps=1, learning_rate=0.01)
    above, losses = losses_of_layers(trained)
    assert above.any()
    assert not above.all()
    winners = losses.argmin(dim=1)
    assert set(winners[above].tolist()).isdisjoint(winners[~above].tolist())
    assert losses.amin(dim=1).mean() < before / 2
    # Specialists: whoever wins one kind is worse than a know-nothing (loss 9) at the other.
    assert losses[above][:, winners[~above][0]].mean() > 9
    assert losses[~above][:, winners[above][0]].mean() > 9


def test_the_reported_loss_falls_and_is_reported_every_time() -> None:
    reports: list[tuple[int, float]] = []
    greedy_competition(
        pool(),
        FAMILY,
        depth=2,
        iterations=60,
        tasks=4,
        learning_rate=0.01,
        progress=lambda *report: reports.append(report),
    )
    assert [iteration for iteration, _ in reports] == list(range(60))
    losses = [loss for _, loss in reports]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2


def test_the_best_layer_stays_for_the_next_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers are tried at a position, on top of the one that won the position before it."""
    trials: list[tuple[Tensor, Tensor]] = []
    minimise = PoolLearner.minimise

    def watched(self: PoolLearner, episodes: Episodes, step_weights: Tensor, *, row_weights: Any = None) -> float:
        loss = minimise(self, episodes, step_weights, row_weights=row_weights)
        trials.append((episodes.layers.reshape(3, 5, LAYERS), row_weights.losses))
        return loss

    monkeypatch.setattr(PoolLearner, "minimise", watched)
    greedy_competition(pool(), FAMILY, depth=2, iterations=2, tasks=5, steps=3)
    all_layers = torch.arange(1, LAYERS + 1).expand(5, LAYERS)
    assert len(trials) == 4
    for (first, losses), (second, _) in (trials[:2], trials[2:]):
        assert torch.equal(first[0], all_layers)
        assert not first[1:].any()
        assert torch.equal(second[0], (losses.argmin(dim=1, keepdim=True) + 1).expand(5, LAYERS))
        assert torch.equal(second[1], all_layers)
        assert not second[2].any()


def test_everything_follows_from_the_seed() -> None:
    trained = [pool() for _ in range(3)]
    for copy, seed in zip(trained, (0, 0, 1), strict=True):
        greedy_competition(copy, FAMILY, iterations=3, tasks=3, seed=seed)
    first, again, other = (copy.parameters for copy in trained)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])
        assert not torch.equal(tensor, pool().parameters[name]), "in place"
        assert not tensor.requires_grad


def test_rates_learn_with_the_layers() -> None:
    trained = pool().with_rates("tensor", 0.007)
    greedy_competition(trained, FAMILY, iterations=3, tasks=3, step_size=1.0)
    assert all((rate != 0.007).any() for rate in trained.rates.values())


@pytest.mark.parametrize(("depth", "steps"), [(4, 3), (2, 1), (0, 3)])
def test_more_positions_than_steps(depth: int, steps: int) -> None:
    with pytest.raises(ValueError, match=rf"^depth={depth}: must be from 1 to steps={steps}"):
        greedy_competition(pool(), FAMILY, depth=depth, steps=steps, iterations=1)


def test_a_pool_of_other_inputs() -> None:
    wrong = LayerPool.random(in_features=3, out_features=1)
    with pytest.raises(ValueError, match=r"^pool: holds .*3 inputs"):
        greedy_competition(wrong, FAMILY, iterations=1)


def test_shares_are_a_softmax_of_how_well_the_layers_did() -> None:
    competition = _Competition(2, 3)
    losses = [[1.0, 1.1, 3.0], [0.5, float("nan"), float("inf")]]
    shares = competition(torch.tensor(losses).flatten()).reshape(2, 3)
    mean = (1.0 + 1.1 + 3.0) / 3
    powers = np.exp(-np.array(losses[0]) / (TEMPERATURE * mean))
    np.testing.assert_allclose(shares[0], powers / powers.sum() / 2, rtol=1e-5)
    # What was not finite takes no share and does not blur what was.
    np.testing.assert_allclose(shares[1], [0.5, 0.0, 0.0])
    assert competition.losses.argmin(dim=1).tolist() == [0, 0]
    torch.testing.assert_close(_Competition(1, 2)(torch.zeros(2)), torch.tensor([0.5, 0.5]))


def test_a_learner_of_another_pool_is_refused() -> None:
    learner = PoolLearner(pool(), FAMILY, "maml", LearningOptions())
    with pytest.raises(ValueError, match="learner: must be of this pool"):
        greedy_competition(pool(), FAMILY, iterations=1, learner=learner)

"""Replays against plain PyTorch and against the process, and their exact meta-gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gym_reml.learning import Episodes, LearningOptions, replay
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.spaces import Decided
from gym_reml.streams import many_streams
from tests.support.replays import (
    DIRECTION,
    FAMILY,
    LAYER,
    PLAN,
    SLOTS,
    STEPS,
    Recording,
    assert_meta_gradient,
    episodes,
    live,
    small_pool,
    uses,
)

KINDS = pytest.mark.parametrize("kind", LAYER_KINDS)
GRANULARITIES = pytest.mark.parametrize("granularity", [None, *RATES])


def test_every_kind_and_every_optimizer_has_its_reference() -> None:
    assert LAYER.keys() == LAYER_KINDS.keys()
    assert DIRECTION.keys() == OPTIMIZERS.keys()


# -- replay --------------------------------------------------------------------------------------------------------


@KINDS
@GRANULARITIES
@pytest.mark.parametrize("initial_layers", [(), (2,)])
def test_replay_agrees_with_plain_pytorch(kind: str, granularity: str | None, initial_layers: tuple[int, ...]) -> None:
    pool = small_pool(kind, granularity)
    for moments in (1, STEPS):
        whole = episodes(initial_layers=initial_layers, moments=moments)
        losses, weights, contents = replay(pool, FAMILY, whole)
        for row in range(len(whole)):
            expected, fast = live(pool, FAMILY, whole, row)
            torch.testing.assert_close(losses[:, row], expected)
            assert [int(layer) for layer in contents[:, row] if layer] == uses(whole, row)
            for slot in range(len(uses(whole, row))):
                matrix = weights.positions[slot + 1]["matrix"]
                torch.testing.assert_close(matrix[row], fast["layers.matrix", slot])


@KINDS
@pytest.mark.parametrize("clip", [0.5, None])
def test_replay_clips_as_the_episodes_were_clipped(kind: str, clip: float | None) -> None:
    """Losses and the meta-gradient, which passes through the clip."""
    pool, whole = small_pool(kind, "tensor"), episodes(clip=clip)
    losses = replay(pool, FAMILY, whole)[0]
    for row in range(len(whole)):
        torch.testing.assert_close(losses[:, row], live(pool, FAMILY, whole, row)[0])
    assert not torch.allclose(losses, replay(pool, FAMILY, replace(whole, clip=0.5 if clip is None else None))[0]), (
        "it matters"
    )
    assert_meta_gradient(pool, episodes(step_size=0.02, clip=clip))


@KINDS
@pytest.mark.parametrize("clip", [10.0, 0.5, None])
@pytest.mark.parametrize("adapt_stem", [True, False])
def test_replay_is_what_the_process_lived(kind: str, adapt_stem: bool, clip: float | None) -> None:
    assert_replayed(kind, adapt_stem=adapt_stem, clip=clip)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_replay_of_optimizers_is_what_the_process_lived(optimizer: str) -> None:
    assert_replayed("relu", optimizer=optimizer)


@KINDS
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_replay_of_step_sizes_of_each_position_is_what_the_process_lived(kind: str, optimizer: str) -> None:
    assert_replayed(kind, step_sizes="layer", optimizer=optimizer)


@KINDS
def test_replay_of_minibatches_is_what_the_process_lived(kind: str) -> None:
    assert_replayed(kind, batch_size=3, optimizer="momentum")


def assert_replayed(kind: str, *, adapt_stem: bool = True, **arguments: Any) -> None:
    """Losses of an episode of the process, and of its replay."""
    pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3, kind=kind, adapt_stem=adapt_stem)
    rated = pool.with_rates("weight", 0.02)
    kept = Recording(rated, FAMILY, "maml", LearningOptions(batch_size=5))
    mdp = TrainingMDP(5, FAMILY, rated, Objective(horizon=STEPS), slots=SLOTS, learner=kept, **arguments)
    mdp.seed(range(5), many_streams(0, 5, "train"))
    mdp.reset()
    rng = np.random.default_rng(0)
    recorded = []
    for layers in PLAN:
        numbers = rng.uniform(-1, 1, (5, mdp.decision.numbers)).astype(np.float32)
        recorded.append(mdp.step(Decided(layers.numpy()[:, None], numbers)).info["query_loss"])
    (whole,) = kept.seen[:1]
    points = [batch.inputs.shape[1] for batch in whole.support]
    assert points == [FAMILY.shots] if mdp.batch_size is None else [mdp.batch_size] * STEPS
    losses = replay(rated, FAMILY, whole)[0]
    np.testing.assert_allclose(sorted(losses[-1].tolist()), sorted(recorded[-1]), rtol=1e-3)
    np.testing.assert_allclose(losses.mean(dim=1), np.mean(recorded, axis=1), rtol=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["relu", "layer_norm"])
@pytest.mark.parametrize("granularity", [None, "weight_step"])
@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
def test_optimizers_are_replayed_exactly(
    optimizer: str, kind: str, granularity: str | None, by_position: bool, first_order: bool
) -> None:
    """Losses and meta-gradients against plain PyTorch; layers that come later, steps of each position, refused ones."""
    pool = small_pool(kind, granularity)
    whole = episodes(optimizer=optimizer, clip=0.5, step_size=0.02, by_position=by_position)
    whole.step_sizes[0, ..., 0] = whole.step_sizes[1, ..., 3] = 0.0
    leaves = [tensor for name, tensor in pool.trainable().items() if not (first_order and name.startswith("rates"))]
    for leaf in leaves:
        leaf.requires_grad_()
    losses = replay(pool, FAMILY, whole, first_order=first_order)[0]
    expected = torch.stack([live(pool, FAMILY, whole, row, first_order)[0] for row in range(len(whole))], dim=1)
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-12)
    found, wanted = (torch.autograd.grad(each.mean(), leaves, allow_unused=True) for each in (losses, expected))
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_meta_gradients_through_optimizers_by_finite_differences(optimizer: str) -> None:
    assert_meta_gradient(small_pool("tanh", "tensor"), episodes(step_size=0.02, optimizer=optimizer))


@KINDS
@GRANULARITIES
def test_meta_gradient_by_finite_differences(kind: str, granularity: str | None) -> None:
    assert_meta_gradient(small_pool(kind, granularity), episodes(step_size=0.02))


# -- episodes ------------------------------------------------------------------------------------------------------


@KINDS
def test_losses_of_other_steps_are_not_computed(kind: str) -> None:
    pool, whole = small_pool(kind), episodes()
    everything, last = (replay(pool, FAMILY, whole, judged=judged)[0] for judged in (None, (False, False, True)))
    assert torch.equal(last[-1], everything[-1])
    assert not last[:-1].any()


def test_slot_contents() -> None:
    contents = episodes(initial_layers=(3,), slots=3).slot_contents()
    assert contents.layers.T.tolist() == [[3, 1, 2], [3, 2, 3], [3, 0, 0], [3, 3, 3], [3, 1, 2]]
    assert contents.numbers.tolist() == contents.layers.tolist()
    assert contents.depth.T.tolist() == [[1, 2, 2, 3], [1, 2, 3, 3], [1, 1, 1, 1], [1, 2, 3, 3], [1, 2, 3, 3]]
    contents = episodes(slots=2).slot_contents()
    assert contents.layers.T.tolist() == [[1, 2], [2, 3], [0, 0], [3, 3], [1, 2]]
    assert contents.depth[-1].tolist() == [2, 2, 0, 2, 2]


@pytest.mark.parametrize("moments", [1, STEPS])
def test_take_and_concatenate(moments: int) -> None:
    whole = episodes(initial_layers=(2,), moments=moments)
    parts = [whole.take(torch.tensor(index)) for index in ([4, 1], [0], [2, 3])]
    assert [len(part) for part in parts] == [2, 1, 2]
    together = Episodes.concatenate(parts)
    back = together.take(torch.tensor([2, 1, 3, 4, 0]))
    assert (back.initial_layers, back.slots) == ((2,), SLOTS)
    assert torch.equal(back.layers, whole.layers)
    assert torch.equal(back.step_sizes, whole.step_sizes)
    for left, right in ((back.support, whole.support), (back.query, whole.query)):
        assert len(left) == len(right) == moments
        for one, other in zip(left, right, strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)
            assert all(torch.equal(one.extras[name], tensor) for name, tensor in other.extras.items())
    assert torch.equal(parts[1].query[0].inputs[0], whole.query[0].inputs[0])

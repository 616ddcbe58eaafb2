"""Learning rules against plain PyTorch, one episode at a time (tests/support/replays.py)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.files import load_safely, save_atomically
from gym_reml.learning import RULES, Episodes, LearningOptions, PoolLearner, replay
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.tasks import TaskFamily, from_function, make_family
from tests.support.replays import FAMILY, PLAN, SLOTS, STEPS, Recording, episodes, live, small_pool, uses

KINDS = pytest.mark.parametrize("kind", LAYER_KINDS)
GRANULARITIES = pytest.mark.parametrize("granularity", [None, *RATES])
GRADIENT_RULES = [rule for rule in RULES if rule in ("fomaml", "maml")]


def values(pool: LayerPool) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in pool.trainable().items()}


def assert_equal(pool: LayerPool, expected: dict[str, Tensor], rtol: float = 1e-7, atol: float = 1e-7) -> None:
    torch.testing.assert_close(pool.trainable(), expected, rtol=rtol, atol=atol)


def learner(pool: LayerPool, rule: str = "maml", family: TaskFamily = FAMILY, **options: Any) -> PoolLearner:
    return PoolLearner(pool, family, rule, LearningOptions(**options))


def reference_gradient(
    pool: LayerPool, whole: Episodes, weights: list[float], first_order: bool
) -> tuple[dict[str, Tensor], float]:
    """The meta-gradient by PyTorch's double backward, and the loss."""
    copy = pool.clone()
    leaves = {name: tensor.requires_grad_() for name, tensor in copy.trainable().items()}
    losses = torch.stack([live(copy, FAMILY, whole, row, first_order)[0] for row in range(len(whole))])
    loss = (losses.mean(dim=0) * torch.tensor(weights, dtype=torch.float64)).sum()
    slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {name: slope for name, slope in zip(leaves, slopes, strict=True) if slope is not None}, float(loss.detach())


# -- fomaml and maml -----------------------------------------------------------------------------------------------


@KINDS
@GRANULARITIES
@pytest.mark.parametrize("rule", GRADIENT_RULES)
def test_updates_are_adam_on_the_meta_gradient(kind: str, granularity: str | None, rule: str) -> None:
    """Three updates, so that Adam's moments matter; the gradient is clipped in some of them."""
    pool = small_pool(kind, granularity)
    own = learner(pool, rule, learning_rate=0.003, rates_learning_rate=0.02, step_weights=(3.0, 0.0, 1.0), clip=1.0)
    copy = pool.clone()
    groups: list[dict[str, Any]] = [{"params": list(copy.parameters.values()), "lr": 0.003}]
    adam = torch.optim.Adam([*groups, *([{"params": list(copy.rates.values()), "lr": 0.02}] if copy.rates else [])])
    for seed in range(3):
        whole = episodes(seed=seed, moments=1 if seed else STEPS)
        slopes, loss = reference_gradient(copy, whole, [0.75, 0.0, 0.25], rule == "fomaml")
        length = float(torch.stack([slope.square().sum() for slope in slopes.values()]).sum().sqrt())
        for name, leaf in copy.trainable().items():
            leaf.grad = slopes[name] / max(length, 1.0) if name in slopes else None
        adam.step()
        np.testing.assert_allclose(own.update(whole), loss, rtol=1e-6)
        # Step weights are single precision.
        assert_equal(pool, values(copy), rtol=1e-6, atol=1e-7)
    assert (own.updates, own.dropped) == (3, 0)
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in pool.trainable().values())


def test_the_two_gradients_differ() -> None:
    pool = small_pool("tanh")
    exact, first = (reference_gradient(pool, episodes(), [0.0, 0.0, 1.0], order)[0] for order in (False, True))
    assert any((exact[name] - first[name]).abs().max() > 1e-3 for name in exact)


@pytest.mark.parametrize(
    ("given", "steps", "expected"),
    [
        (None, 4, [0.25] * 4),
        ([1, 3], 2, [0.25, 0.75]),
        ((2, 1), 4, [0.4, 0.2, 0.2, 0.2]),
        ([0, 0, 5], 3, [0, 0, 1]),
        (np.array([1.0, 1.0, 9.0]), 2, [0.5, 0.5]),
    ],
)
def test_step_weights(given: Any, steps: int, expected: list[float]) -> None:
    pool = small_pool("relu")
    whole = episodes(PLAN[[0, 1, 2, 0]][:steps])
    losses = replay(pool, FAMILY, whole)[0].mean(dim=1)
    found = learner(pool, step_weights=given).update(whole)
    np.testing.assert_allclose(found, sum(w * float(loss) for w, loss in zip(expected, losses, strict=True)), rtol=1e-6)


def test_step_weights_of_later_steps_alone_say_so() -> None:
    with pytest.raises(ValueError, match=r"step_weights=\[0, 0, 0, 1\] are all 0 in the 3 steps"):
        learner(small_pool("relu"), step_weights=[0, 0, 0, 1]).update(episodes())


# -- in place and reptile ------------------------------------------------------------------------------------------


def test_in_place_with_one_row_and_one_use_is_training_the_layer() -> None:
    """Algorithm 1 of the paper, with SGD written out: h = relu(x w + b), layer, head."""
    pool = small_pool("relu")
    whole = episodes(torch.tensor([[2], [0], [0]]))
    parts = [pool.parameters[name].clone().requires_grad_() for name in ("stem.matrix", "head.matrix")]
    layer = pool.parameters["layers.matrix"][1].clone().requires_grad_()
    x, y = whole.support[0].inputs[0], whole.support[0].targets[0]
    for step in range(STEPS):
        hidden = torch.relu(x @ parts[0][:-1] + parts[0][-1])
        hidden = torch.relu(hidden @ layer[:-1] + layer[-1])
        loss = (hidden @ parts[1][:-1] + parts[1][-1] - y).square().mean()
        weights = [*parts, layer]
        slopes = torch.autograd.grad(loss, weights)
        length = torch.cat([slope.flatten() for slope in slopes]).norm()
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight -= whole.step_sizes[step, 0] * slope * min(1.0, 10.0 / float(length))
    before = values(pool)
    learner(pool, "in_place").update(whole)
    expected = {
        "stem.matrix": parts[0].detach(),
        "head.matrix": parts[1].detach(),
        "layers.matrix": before["layers.matrix"].clone(),
    }
    expected["layers.matrix"][1] = layer.detach()
    assert_equal(pool, expected)
    assert not torch.equal(pool.parameters["layers.matrix"][1], before["layers.matrix"][1])


@KINDS
@pytest.mark.parametrize("rule", ["in_place", "reptile"])
@pytest.mark.parametrize("adapt_stem", [True, False])
def test_averages(kind: str, rule: str, adapt_stem: bool) -> None:
    """Every layer moves to, or towards, the mean over its uses; unused layers stay."""
    plan = torch.where(PLAN == 2, 1, PLAN)
    pool, whole = small_pool(kind, "tensor", adapt_stem), episodes(plan, initial_layers=(1,))
    share = 0.3 if rule == "reptile" else 1.0
    grown: dict[tuple[str, int], list[Tensor]] = {}
    for row in range(len(whole)):
        fast = live(pool, FAMILY, whole, row)[1]
        for (name, slot), weight in fast.items():
            layer = uses(whole, row)[slot] if name.startswith("layers") else 0
            grown.setdefault((name, layer), []).append(weight)
    assert {len(weights) for weights in grown.values()} > {5}, "some are used more often than others"
    expected = values(pool)
    for (name, layer), weights in grown.items():
        target = expected[name][layer - 1] if layer else expected[name]
        target += share * (torch.stack(weights).mean(dim=0).detach() - target)
    stays = pool.parameters["layers.matrix"][1].clone()
    learner(pool, rule, learning_rate=None if rule == "in_place" else share).update(whole)
    assert_equal(pool, expected)
    assert torch.equal(pool.parameters["layers.matrix"][1], stays), "it was not used"


def test_reptile_interpolates_half_way_by_default() -> None:
    pools = [small_pool("relu") for _ in range(3)]
    whole = episodes()
    learner(pools[1], "reptile").update(whole)
    learner(pools[2], "in_place").update(whole)
    start, half, end = (values(pool) for pool in pools)
    for name in start:
        torch.testing.assert_close(half[name], (start[name] + end[name]) / 2)


# -- all rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("damage", ["step", "data"])
@KINDS
def test_broken_episodes_are_left_out_and_counted(rule: str, damage: str, kind: str) -> None:
    whole, good = episodes(), torch.tensor([0, 2, 4])
    if damage == "step":
        whole.step_sizes[0, [1, 3]] = 1e300
    else:
        whole.support[0].targets[1, 0] = torch.nan
        whole.query[0].targets[3, 0] = torch.inf
    pool, expected = small_pool(kind), small_pool(kind)
    own, other = learner(pool, rule), learner(expected, rule)
    assert own.update(whole) == pytest.approx(other.update(whole.take(good)))
    assert (own.updates, own.dropped) == (1, 2)
    assert_equal(pool, values(expected))


@pytest.mark.parametrize("rule", RULES)
def test_nothing_but_broken_episodes_change_nothing(rule: str) -> None:
    pool, whole = small_pool("relu"), episodes()
    whole.step_sizes[:] = torch.inf
    before = values(pool)
    own = learner(pool, rule)
    with pytest.warns(UserWarning, match="all 5 episodes so far were dropped"):
        assert np.isnan(own.update(whole))
    assert (own.updates, own.dropped) == (0, 5)
    assert_equal(pool, before, rtol=0, atol=0)
    assert not any(tensor.requires_grad for tensor in pool.trainable().values())


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns(rule: str) -> None:
    """Levels are around 2.5, so an initialisation near them helps; "in_place" learns it, too."""
    family = from_function(lambda x, level: level, {"level": (2.0, 3.0)}, shots=3, queries=5)
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=2, kind="relu")
    held_out = episodes(torch.tensor([[1, 2] * 8, [0] * 16]), family=family, step_size=0.01, seed=999)

    def query_loss() -> float:
        copy = pool.clone()
        copy.parameters = {name: tensor.double() for name, tensor in copy.parameters.items()}
        return float(replay(copy, family, held_out)[0].mean())

    before = query_loss()
    own = learner(pool, rule, family, learning_rate=0.5 if rule == "reptile" else 0.01 if "maml" in rule else None)
    for seed in range(40):
        part = episodes(torch.tensor([[1, 2] * 4, [0] * 8]), family=family, step_size=0.01, seed=8 * seed)
        single = [batch.map(lambda tensor: tensor.float()) for batch in (part.support[0], part.query[0])]
        sizes = part.step_sizes.float()
        own.update(Episodes([single[0]], [single[1]], part.layers, sizes, (), SLOTS))
    assert own.updates == 40
    assert query_loss() < before / 5


@pytest.mark.parametrize("rule", RULES)
def test_updates_wait_for_a_batch_and_keep_what_is_left(rule: str) -> None:
    own = Recording(small_pool("relu"), FAMILY, rule, LearningOptions(batch_size=4, passes=3, seed=1))
    whole = episodes(torch.zeros(1, 14, dtype=torch.int64))
    ids = whole.support[0].inputs[:, 0, 0].tolist()
    passes = 3 if rule in GRADIENT_RULES else 1
    taken: list[list[int]] = []
    for start, stop in ((0, 3), (3, 11), (11, 12), (12, 14)):
        own.add(whole.take(torch.arange(start, stop)))
        taken.append([ids.index(float(x)) for part in own.seen for x in part.support[0].inputs[:, 0, 0]])
        assert all(len(part) == 4 for part in own.seen)
        own.seen.clear()
    assert [sorted(rows) for rows in taken] == [
        [],
        sorted([*range(8)] * passes),
        sorted([*range(8, 12)] * passes),
        [],
    ]
    if passes > 1:
        assert all(sorted(taken[1][8 * p : 8 * p + 8]) == [*range(8)] for p in range(passes)), "pass by pass"
        assert taken[1][:8] != taken[1][8:16], "each in another order"


def test_the_order_follows_from_the_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        own = Recording(small_pool("relu"), FAMILY, "maml", LearningOptions(batch_size=8, passes=1, seed=seed))
        own.add(episodes(torch.zeros(1, 8, dtype=torch.int64)))
        orders.append(own.seen[0].support[0].inputs[:, 0, 0].tolist())
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("granularity", [None, "tensor"])
def test_state_continues_identically(rule: str, granularity: str | None, tmp_path: Path) -> None:
    pool = small_pool("relu", granularity)
    options = LearningOptions(batch_size=5, passes=2)
    own = PoolLearner(pool, FAMILY, rule, options)
    parts = [episodes(seed=10 * seed) for seed in range(4)]
    for part in parts[:2]:
        own.add(part)
    own.dropped = 7
    state = own.state()
    save_atomically(state, tmp_path / "learner.pt")
    others = [PoolLearner(pool.clone(), FAMILY, rule, options) for _ in range(3)]
    read = load_safely(tmp_path / "learner.pt")
    # One after the other: neither the first, going on, nor who took the state from it may change the state.
    for number, each in enumerate((own, *others)):
        if number:
            each.load_state(read if number == 3 else state)
        for part in parts[2:]:
            each.add(part)
        assert (each.updates, each.dropped) == (own.updates, 7)
        assert_equal(each.pool, values(pool), rtol=0, atol=0)
    assert own.updates == 2 * state["updates"]


# -- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 1}, r"unknown 'lr'; choices: batch_size, passes, learning_rate, rates_learning_rate, constants_"),
        *[
            ({name: value}, rf"{name}={value!r} must be an integer from {least}")
            for name, least in (("batch_size", 1), ("passes", 1), ("seed", 0))
            for value in (least - 1, 2.5, True, "4", *([] if name == "passes" else [None]))
        ],
        *[
            ({name: value}, rf"{name}={value!r} must be a positive number")
            for name in ("learning_rate", "rates_learning_rate", "constants_learning_rate", "clip")
            for value in (0, -1.0, float("nan"), float("inf"), "1", True)
        ],
        ({"clip": None}, "clip=None must be"),
        *[({"step_weights": value}, "step_weights=.* must be") for value in ([], [0, 0], [1, -1], ["a"], 3, [np.nan])],
    ],
)
def test_bad_options(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^learn_kwargs: {message}"):
        LearningOptions.parse(arguments)


def test_good_options() -> None:
    given = {"batch_size": np.int64(3), "learning_rate": 1, "step_weights": [0, 1], "clip": np.float32(2)}
    options = LearningOptions.parse(given)
    assert {name: getattr(options, name) for name in given} == given
    assert dataclasses.asdict(LearningOptions.parse({})) == dataclasses.asdict(LearningOptions())


def test_unknown_rule_and_a_pool_that_does_not_fit() -> None:
    with pytest.raises(
        ValueError, match=r"learn='sgd': must be None or one of 'in_place', 'reptile', 'fomaml', 'maml'"
    ):
        PoolLearner(small_pool("relu"), FAMILY, "sgd")
    pool = LayerPool.random(in_features=2, out_features=1)
    with pytest.raises(ValueError, match=r"pool: holds .*2 inputs.*; 'linear' tasks have 1 inputs and 1 outputs"):
        PoolLearner(pool, make_family("linear"), "maml")
    with pytest.raises(ValueError, match=r"^learn_kwargs: learning_rate=1.5 must be at most 1"):
        learner(small_pool("relu"), "reptile", learning_rate=1.5)


def test_options_are_copies_of_what_was_given() -> None:
    weights = [1.0, 2.0]
    options = LearningOptions(step_weights=weights)
    weights[0] = 9.0
    assert options.step_weights == [1.0, 2.0]

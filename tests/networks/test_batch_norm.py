"""Batch normalisation, with norms for each step (BNWB) and running statistics (BNRS) as in MAML++."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn import functional

from gym_reml.learning import LearningOptions, PoolLearner, replay
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.streams import many_streams
from tests.support.env_helpers import take_step
from tests.support.replays import (
    FAMILY,
    PLAN,
    SLOTS,
    STEPS,
    Moments,
    Recording,
    assert_meta_gradient,
    assert_same_pool,
    episodes,
    everything,
    live,
    plain,
    small_pool,
)

ROWS = PLAN.shape[1]
STEMS = pytest.mark.parametrize("adapt_stem", [True, False])
STATISTICS = pytest.mark.parametrize("statistics", [False, True])
# Fewer steps than are taken, where the last is used again, as many, and more.
NORM_STEPS = pytest.mark.parametrize("norm_steps", [1, STEPS - 1, STEPS, STEPS + 1])


def make_mdp(pool: LayerPool, rows: int = ROWS, learner: PoolLearner | None = None, start: int = 0) -> TrainingMDP:
    mdp = TrainingMDP(
        rows, FAMILY, pool, Objective(horizon=STEPS), slots=SLOTS, step_range=(1e-3, 0.1), learner=learner
    )
    mdp.seed(range(rows), many_streams(0, start + rows, "train")[start:])
    mdp.reset()
    return mdp


# -- the kind ----------------------------------------------------------------------------------------------------------


def test_given_statistics_make_points_independent_and_the_derivative_affine() -> None:
    pool = small_pool("batch_norm", adapt_stem=True, norm_steps=2, statistics=True)
    slots, clock = torch.tensor([[1, 2, 3], [2, 2, 1]]), torch.tensor([0, 1, 1])
    weights, norms = pool.assemble(slots).weights, pool.assemble(slots).norms(clock, running=True)
    assert not any("norm" in position for position in weights.positions), "they are not fast weights"
    weights = weights.like([tensor.detach().clone().requires_grad_() for tensor in weights.tensors()])
    x = torch.randn(3, 5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    architecture, filled = pool.architecture, [True, True]
    trace = architecture.forward(weights, architecture.prepare(x, {}), filled=filled, norms=norms)
    by_hand = architecture.gradient(weights, trace, output_gradient=trace.outputs.detach(), filled=filled)
    by_autograd = torch.autograd.grad(0.5 * trace.outputs.square().sum(), weights.tensors())
    assert not any("norm" in position for position in by_hand.positions)
    torch.testing.assert_close(by_hand.tensors(), list(by_autograd))
    alone = architecture.forward(weights, architecture.prepare(x[:, 2:3], {}), filled=filled, norms=norms)
    torch.testing.assert_close(alone.outputs, trace.outputs[:, 2:3])


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_only_kinds_that_say_so_look_across_points(kind: str) -> None:
    pool, slots = small_pool(kind), torch.tensor([[1], [2]])
    x = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64).reshape(1, 5, 1)
    whole, part = (
        pool.architecture.forward(
            pool.assemble(slots).weights, pool.architecture.prepare(inputs, pool.fixed), filled=[True, True]
        ).outputs
        for inputs in (x, x[:, :2])
    )
    assert torch.allclose(whole[:, :2], part) == (not pool.architecture.across_points)


def test_the_process_sees_the_query_sets_statistics_and_no_others() -> None:
    """Support and query set are normalised separately; the prediction at a query point depends on the others."""
    pool = plain(small_pool("batch_norm"))
    mdp = make_mdp(pool)
    take_step(mdp, PLAN[0].numpy(), np.zeros(ROWS, dtype=np.float32))
    loss = FAMILY.loss(mdp.outputs(mdp.query.inputs), mdp.query)
    np.testing.assert_allclose(mdp.query_loss, loss, rtol=1e-5)
    loss = FAMILY.loss(mdp.outputs(mdp.support.inputs), mdp.support)
    np.testing.assert_allclose(mdp.support_loss, loss, rtol=1e-5)
    inputs = mdp.query.inputs.clone()
    inputs[:, 1:] += 1.0
    assert not torch.allclose(mdp.outputs(inputs)[:, 0], mdp.outputs(mdp.query.inputs)[:, 0], rtol=1e-3)


# -- norms for each step -----------------------------------------------------------------------------------------------


@NORM_STEPS
@STEMS
@pytest.mark.parametrize("granularity", [None, *RATES])
@pytest.mark.parametrize("initial_layers", [(), (2,)])
def test_replay_takes_each_steps_norms_as_a_plain_loop_does(
    norm_steps: int, adapt_stem: bool, granularity: str | None, initial_layers: tuple[int, ...]
) -> None:
    pool = small_pool("batch_norm", granularity, adapt_stem, norm_steps=norm_steps)
    whole = episodes(initial_layers=initial_layers, moments=STEPS)
    losses, weights, _ = replay(pool, FAMILY, whole)
    for row in range(ROWS):
        expected, fast = live(pool, FAMILY, whole, row)
        torch.testing.assert_close(losses[:, row], expected)
        head = weights.positions[-1]["matrix"]
        torch.testing.assert_close(head[row], fast["head.matrix", 0])


def test_which_step_a_pass_belongs_to() -> None:
    """With a gain of 1 in step 1 and 0 elsewhere, only the passes of step 1 transmit anything."""
    pool = small_pool("batch_norm", norm_steps=STEPS)
    for name in ("stem.norm", "layers.norm"):
        pool.parameters[name].zero_()
    pool.parameters["stem.norm"][1, 0] = 1.0
    pool.parameters["head.matrix"][-1] = 0.0
    plan = torch.zeros((STEPS, 1), dtype=torch.int64)
    mdp = make_mdp(plain(pool), 1)
    predictions = [mdp.outputs(mdp.query.inputs)]
    shown = []
    for layers in plan:
        shown.append(float(np.abs(mdp.observe()[0, mdp.parts["activations"]]).sum()))
        take_step(mdp, layers.numpy(), np.full(1, -1.0, dtype=np.float32))
        predictions.append(mdp.outputs(mdp.query.inputs))
    spread = [float(outputs.std()) for outputs in predictions]
    assert [value > 0 for value in shown] == [False, True, False], "support pass before update 1"
    assert [value > 1e-6 for value in spread] == [False, False, True, False], "query pass after update 1"


@pytest.mark.parametrize("granularity", [None, *RATES])
@pytest.mark.parametrize("norm_steps", [STEPS - 1, STEPS])
def test_meta_gradient_of_step_norms_by_finite_differences(granularity: str | None, norm_steps: int) -> None:
    assert_meta_gradient(small_pool("batch_norm", granularity, norm_steps=norm_steps), episodes(step_size=0.02))


@NORM_STEPS
@STEMS
@STATISTICS
def test_the_process_is_a_plain_loop(norm_steps: int, adapt_stem: bool, statistics: bool) -> None:
    """Without running statistics, replays reproduce the episode."""
    pool = plain(small_pool("batch_norm", "weight", adapt_stem, norm_steps=norm_steps, statistics=statistics))
    kept = Recording(pool, FAMILY, "maml", LearningOptions(batch_size=ROWS, passes=1))
    mdp = make_mdp(pool, learner=kept)
    rng = np.random.default_rng(0)
    recorded = [
        take_step(mdp, layers.numpy(), rng.uniform(-1, 1, ROWS).astype(np.float32)).info["query_loss"]
        for layers in PLAN
    ]
    (whole,) = kept.seen
    expected = torch.stack([live(pool, FAMILY, whole, row, running=statistics)[0] for row in range(ROWS)], dim=1)
    order, found = expected.detach()[0].argsort(), np.array(recorded)
    np.testing.assert_allclose(found[:, found[0].argsort()], expected.detach()[:, order], rtol=2e-3, atol=1e-5)
    again = replay(pool, FAMILY, whole)[0]
    assert torch.allclose(again, expected, rtol=2e-3, atol=1e-5) == (not statistics)


@STATISTICS
def test_rows_do_not_depend_on_each_other_or_on_their_clocks(statistics: bool) -> None:
    pool = plain(small_pool("batch_norm", norm_steps=STEPS, statistics=statistics))
    together, step = make_mdp(pool, 2), np.zeros(2, dtype=np.float32)
    alone = [make_mdp(pool, 1, start=row) for row in range(2)]
    for turn, layers in enumerate([[1, 2], [0, 3], [2, 0]]):
        if turn == 1:  # row 1 starts over: from here on the clocks differ
            together.reset(np.array([1]))
            alone[1].reset()
        outcome = take_step(together, layers, step)
        for row, mdp in enumerate(alone):
            own = take_step(mdp, np.array(layers[row : row + 1]), step[:1])
            np.testing.assert_allclose(outcome.observation[row], own.observation[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(outcome.info["query_loss"][row], own.info["query_loss"][0], rtol=1e-5)
    assert together.clock.tolist() == [3, 2]


@STATISTICS
def test_a_refused_step_goes_on_in_the_next_steps_norms(statistics: bool) -> None:
    pool = plain(small_pool("batch_norm", norm_steps=STEPS, statistics=statistics))
    mdp = make_mdp(pool)
    mdp.step_range = (1e-3, 1e12)
    before = [mdp.networks.weights(row).tensors() for row in range(ROWS)]
    info = take_step(mdp, PLAN[0].numpy(), np.ones(ROWS, dtype=np.float32)).info
    assert info["diverged"].any()
    for row in np.flatnonzero(info["diverged"]).tolist():
        after = mdp.networks.weights(row).tensors()
        assert torch.equal(after[-1], before[row][-1])
        assert mdp.networks.depth[row] == 0
    np.testing.assert_allclose(info["query_loss"], FAMILY.loss(mdp.outputs(mdp.query.inputs), mdp.query), rtol=1e-5)


# -- running statistics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["fomaml", "maml"])
@NORM_STEPS
def test_running_statistics_follow_the_support_passes(rule: str, norm_steps: int) -> None:
    """running + 0.1 (mean over all uses - running); those of unused layers stay; a broken episode is ignored."""
    pool = small_pool("batch_norm", norm_steps=norm_steps, statistics=True)
    plan = torch.where(PLAN == 2, 1, PLAN)
    whole, good = episodes(plan), [0, 1, 2, 4]
    whole.query[0].targets[3, 0] = torch.nan
    moments: Moments = {}
    for row in good:
        live(pool, FAMILY, whole, row, moments=moments)
    by_step: Moments = {}
    for (step, layer), seen in moments.items():
        by_step.setdefault((min(step, norm_steps - 1), layer), []).extend(seen)
    expected = {name: tensor.clone() for name, tensor in pool.statistics.items()}
    for (step, layer), seen in by_step.items():
        running = expected["layers"][step, layer - 1] if layer else expected["stem"][step]
        running += 0.1 * (torch.stack(seen).mean(dim=0) - running)
    assert not any((step, 2) in by_step for step in range(norm_steps))
    learner = PoolLearner(pool, FAMILY, rule, LearningOptions())
    learner.update(whole)
    assert (learner.updates, learner.dropped) == (1, 1)
    torch.testing.assert_close(pool.statistics, expected)


def test_statistics_stay_where_an_update_fails() -> None:
    pool, whole = small_pool("batch_norm", norm_steps=2, statistics=True), episodes()
    before = pool.clone()
    whole.step_sizes[:] = torch.inf
    with pytest.warns(UserWarning, match="all 5 episodes so far were dropped"):
        assert np.isnan(PoolLearner(pool, FAMILY, "maml", LearningOptions()).update(whole))
    assert_same_pool(pool, before)


def test_replays_do_not_depend_on_running_statistics() -> None:
    pool, whole = small_pool("batch_norm", norm_steps=2, statistics=True), episodes()
    before = replay(pool, FAMILY, whole)[0]
    for tensor in pool.statistics.values():
        tensor += 1.0
    assert torch.equal(replay(pool, FAMILY, whole)[0], before)


@pytest.mark.parametrize("norm_steps", [None, 2])
def test_with_running_statistics_the_process_sees_nothing_of_the_query_set(norm_steps: int | None) -> None:
    for statistics in (False, True) if norm_steps else (False,):
        mdp = make_mdp(plain(small_pool("batch_norm", norm_steps=norm_steps, statistics=statistics)))
        take_step(mdp, PLAN[0].numpy(), np.zeros(ROWS, dtype=np.float32))
        inputs = mdp.query.inputs.clone()
        inputs[:, 1:] += 1.0
        here, there = (mdp.outputs(points)[:, 0] for points in (mdp.query.inputs, inputs))
        assert torch.allclose(here, there, rtol=1e-4) == statistics


def test_the_process_normalises_by_them() -> None:
    """One network written out: relu(gain (z - mean) / sqrt(variance + epsilon) + shift), before and after a step."""
    pool = plain(small_pool("batch_norm", norm_steps=2, statistics=True))
    mdp = make_mdp(pool, 1)
    x = torch.linspace(-2.0, 2.0, 7).reshape(1, 7, 1)
    for index in (0, 0, 1, 1):  # beyond the last step the last
        stem, head = pool.parameters["stem.matrix"], mdp.networks.weights(0).positions[-1]["matrix"]
        (gain, shift), (mean, variance) = pool.parameters["stem.norm"][index], pool.statistics["stem"][index]
        z = x[0] @ stem[:-1] + stem[-1]
        hidden = functional.relu(gain * (z - mean) / (variance + 1e-5).sqrt() + shift)
        torch.testing.assert_close(mdp.outputs(x)[0], hidden @ head[0, :-1] + head[0, -1])
        take_step(mdp, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.float32))


# -- environments ------------------------------------------------------------------------------------------------------


@STATISTICS
@pytest.mark.parametrize("learn", ["fomaml", "maml"])
def test_environments_learn_with_step_norms(statistics: bool, learn: str) -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=3, kind="batch_norm")
    pool = pool.with_rates("step", 0.05, steps=3).with_step_norms(3, statistics)
    start = pool.clone()
    env = gym.make_vec("NetBuild-v0", num_envs=4, pool=pool, learn=learn, learn_kwargs={"batch_size": 4}, horizon=3)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(8):
        observation, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(observation).all()
        assert np.isfinite(reward).all()
    moved = {name for name, tensor in everything(pool).items() if not torch.equal(tensor, everything(start)[name])}
    assert moved == everything(pool).keys()
    env.reset(options={"pool": "initial"})
    assert_same_pool(pool, start)
    env.close()

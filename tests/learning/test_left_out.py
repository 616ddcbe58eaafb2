"""Episodes that cannot be learned from: others are not affected; they are counted, and cause warnings if all are."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from agents.pools.outer_updates import OUTER_UPDATES
from agents.pools.reinforcement import adapt_policies
from agents.problems.problem import Problem, own_shape
from gym_reml.learning import RULES, Episodes, LearningOptions, PoolLearner, replay
from gym_reml.learning.options import GRADIENT_RULES
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.meta_training import greedy_competition, meta_train
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.streams import many_streams
from gym_reml.tasks import TaskFamily, from_function, make_family
from gym_reml.tasks.base import Batch
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.env_helpers import Restless, play_vector, sample_actions, take_step, tiny_pool
from tests.support.replays import STEPS, episodes, everything, plain, small_pool
from tests.support.small_policies import RECIPE, family

every_rule = pytest.mark.parametrize("rule", RULES)
gradient_rules = pytest.mark.parametrize("rule", GRADIENT_RULES)


@dataclass(frozen=True)
class Steep(Sinusoid):
    """Adds 0 to the loss, but `steepness` squared to its derivative, in rows that a batch marks."""

    name: ClassVar[str] = "steep"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        plain = (outputs - batch.targets).square().mean(dim=(1, 2))
        steepness = batch.extras.get("steepness", torch.zeros_like(plain))
        mean = outputs.mean(dim=(1, 2))
        return plain + (mean - mean.detach()) * steepness * steepness

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        return TaskFamily.output_gradient(self, outputs, batch)


STEEP = Steep(shots=4, queries=6)
GOOD, BAD = [0, 2, 4], [1, 3]


def steep_episodes(steepness: float, rows: list[int]) -> Episodes:
    """Episodes in single precision, of which those of these rows are steep."""
    whole = episodes(family=STEEP).map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    whole.query[0].extras["steepness"] = torch.zeros(len(whole))
    whole.query[0].extras["steepness"][rows] = steepness
    return whole


def values(pool: LayerPool) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in everything(pool).items()}


def assert_close(pool: LayerPool, other: LayerPool) -> None:
    torch.testing.assert_close(everything(pool), everything(other), rtol=1e-6, atol=1e-7)


# -- meta-gradients that are not finite --------------------------------------------------------------------------------


@gradient_rules
@pytest.mark.parametrize(
    ("kind", "granularity"), [*((kind, None) for kind in LAYER_KINDS), *(("relu", r) for r in RATES)]
)
@pytest.mark.parametrize("adapt_stem", [True, False])
def test_one_exploding_gradient_leaves_the_others(
    rule: str, kind: str, granularity: str | None, adapt_stem: bool
) -> None:
    """At horizon 200, two such rows used to spoil 62 good ones."""
    pool = plain(small_pool(kind, granularity, adapt_stem))
    expected = pool.clone()
    own, other = (PoolLearner(each, STEEP, rule) for each in (pool, expected))
    whole = steep_episodes(1e30, BAD)
    for _ in range(3):
        loss = own.update(whole)
        assert loss == pytest.approx(other.update(whole.take(torch.tensor(GOOD))))
    assert (own.updates, own.used, own.dropped) == (3, 9, 6)
    assert_close(pool, expected)
    moments = own.state()["optimizer"]["state"]
    assert all(tensor.isfinite().all() for each in moments.values() for tensor in each.values())


@gradient_rules
def test_norms_and_statistics_follow_from_the_good_ones_alone(rule: str) -> None:
    pool = plain(small_pool("batch_norm", norm_steps=STEPS, statistics=True))
    expected, before = pool.clone(), pool.statistics["stem"].clone()
    own, other = (PoolLearner(each, STEEP, rule) for each in (pool, expected))
    whole = steep_episodes(1e30, BAD)
    own.update(whole)
    other.update(whole.take(torch.tensor(GOOD)))
    assert_close(pool, expected)
    assert not torch.equal(pool.statistics["stem"], before)


@gradient_rules
def test_weights_of_rows_are_asked_for_again_without_the_broken_ones(rule: str) -> None:
    """In a competition, layers with gradients that are not finite do not win."""
    asked: list[Tensor] = []

    def weigh(losses: Tensor) -> Tensor:
        asked.append(losses.clone())
        return torch.softmax(-losses, dim=0)

    pool = plain(small_pool("relu"))
    expected = pool.clone()
    own, other = (PoolLearner(each, STEEP, rule) for each in (pool, expected))
    whole, weights = steep_episodes(1e30, BAD), torch.full((STEPS,), 1.0 / STEPS)
    own.minimise(whole, weights, row_weights=weigh)
    assert len(asked) == 2
    assert torch.isinf(asked[1]).nonzero().flatten().tolist() == BAD
    other.minimise(whole.take(torch.tensor(GOOD)), weights, row_weights=lambda losses: torch.softmax(-losses, dim=0))
    assert_close(pool, expected)


@gradient_rules
@pytest.mark.parametrize("steepness", [1e11, 1e15, 1e18])
def test_long_gradients_are_clipped_and_not_thrown_away(rule: str, steepness: float) -> None:
    """Gradients whose squares overflow float32 give the same update as in double precision."""
    pool = plain(small_pool("tanh"))
    double = pool.clone()
    for part in (double.parameters, double.rates):
        part |= {name: tensor.double() for name, tensor in part.items()}
    whole = steep_episodes(steepness, BAD)
    own, other = (PoolLearner(each, STEEP, rule, LearningOptions(clip=0.5)) for each in (pool, double))
    own.update(whole)
    other.update(whole.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor))
    assert (own.updates, own.used, own.dropped) == (1, 5, 0)
    for name, tensor in pool.parameters.items():
        # Adam's first step has the length of its rate where there is a gradient at all.
        torch.testing.assert_close(tensor.double(), double.parameters[name], rtol=1e-3, atol=2e-4)


@gradient_rules
def test_nothing_left_changes_nothing(rule: str) -> None:
    pool = plain(small_pool("relu"))
    before = values(pool)
    own = PoolLearner(pool, STEEP, rule)
    with pytest.warns(UserWarning, match=r"learn='\w+': all 5 episodes so far were dropped"):
        assert np.isnan(own.update(steep_episodes(1e30, [*range(5)])))
    assert (own.updates, own.used, own.dropped) == (0, 0, 5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(pool).items())


@pytest.mark.parametrize("rule", ["in_place", "reptile"])
def test_fast_weights_too_large_to_be_averaged_are_left_out(rule: str) -> None:
    """Each gradient is finite, but their sum is not."""
    pool = plain(small_pool("tanh"))
    expected = pool.clone()
    whole = steep_episodes(0.0, [])
    whole.step_sizes[-1, BAD] = 1e38
    own, other = (PoolLearner(each, STEEP, rule) for each in (pool, expected))
    last = replay(pool, STEEP, whole)[1].positions[-1]["matrix"]
    assert last is not None
    assert last.isfinite().all()
    # The query loss of an absurd network is above the cap; here it may be as it is.
    for each in (own, other):
        each._fit = lambda losses: torch.ones(losses.shape[1], dtype=torch.bool)  # type: ignore[method-assign]
    own.update(whole)
    other.update(whole.take(torch.tensor(GOOD)))
    assert own.dropped == 2
    assert_close(pool, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("outer", OUTER_UPDATES)
@pytest.mark.parametrize("damage", [torch.inf, torch.nan])
def test_updates_of_policies_leave_them_out_too(outer: str, damage: float) -> None:
    many = family(shots=6, queries=6)
    shape = own_shape(RECIPE)
    problem = Problem(many, RECIPE, 40, 0)
    pool = shape.fresh(problem)
    mdp = shape.process(problem, pool, 10, horizon=1, step=0.5)
    whole = adapt_policies(mdp, (0.5,))
    good = torch.tensor([0, 1, 2, 4, 5, 6, 8, 9])
    expected = pool.clone()
    own, other = (OUTER_UPDATES[outer](each, many, 1e-2, None) for each in (pool, expected))
    broken = copy.deepcopy(whole)
    broken.query[-1].extras["weighted_advantage"][[3, 7]] = damage
    own(broken, 0.0)
    other(whole.take(good), 0.0)
    assert own.dropped == 2  # type: ignore[attr-defined]
    torch.testing.assert_close(pool.parameters, expected.parameters)
    assert not torch.equal(pool.parameters["head.matrix"], shape.fresh(problem).parameters["head.matrix"])
    all_broken = copy.deepcopy(whole)
    all_broken.query[-1].extras["weighted_advantage"][:] = damage
    fresh = OUTER_UPDATES[outer](pool, many, 1e-2, None)
    with pytest.warns(UserWarning, match="all 10 episodes so far were dropped"):
        fresh(all_broken, 0.0)
    torch.testing.assert_close(pool.parameters, expected.parameters)


# -- learning that is idle ---------------------------------------------------------------------------------------------


def tall(x: np.ndarray, height: np.ndarray) -> np.ndarray:
    return height * np.sin(x)


TALL = from_function(tall, {"height": (300, 600)}, shots=3, queries=4)


def warnings_of(work: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        work()
    return [str(each.message) for each in messages]


def learning(rule: str, size: int = 4, **arguments: Any) -> Any:
    given: dict[str, Any] = {
        "num_envs": 4,
        "horizon": 2,
        "learn": rule,
        "learn_kwargs": {"batch_size": size},
    } | arguments
    return gym.make_vec("NetBuild-v0", **given)


@every_rule
def test_a_pool_that_learns_nothing_says_so_once(rule: str) -> None:
    envs = learning(rule, family=TALL, pool=tiny_pool(), max_step=1e-3, min_step=1e-3)
    messages = warnings_of(lambda: play_vector(envs, sample_actions(envs.action_space, 12), seed=0))
    assert len(messages) == 1
    assert f"learn={rule!r}: all 4 episodes" in messages[0] or "all 8 episodes" in messages[0]
    assert "standardise=True" in messages[0], "the remedy"
    assert "10000" in messages[0], "the cap"
    own = envs.unwrapped.mdp.learner
    assert own.updates == own.used == 0
    assert own.dropped >= 16


@every_rule
@pytest.mark.parametrize("size", [4, 1])
def test_learning_as_it_should_be_says_nothing(rule: str, size: int) -> None:
    envs = learning(rule, size, pool=tiny_pool())
    assert not warnings_of(lambda: play_vector(envs, sample_actions(envs.action_space, 8), seed=0))
    assert envs.unwrapped.mdp.learner.used > 0


@dataclass(frozen=True)
class Strict(Sinusoid):
    """A cap that refuses every step that raises the support loss."""

    name: ClassVar[str] = "strict"
    cap: ClassVar[float] = 0.0


@every_rule
def test_every_step_refused_is_said_too(rule: str) -> None:
    envs = learning(rule, family=Strict(), pool=tiny_pool(), min_step=1e5, max_step=1e6)
    messages = warnings_of(lambda: play_vector(envs, sample_actions(envs.action_space, 12), seed=0))
    assert sum("every step of the 4 episodes so far was refused" in text for text in messages) == 1


def test_bootstraps_that_learn_nothing_say_so() -> None:
    messages = warnings_of(lambda: greedy_competition(tiny_pool(), TALL, iterations=3, tasks=3))
    assert len(messages) == 1
    assert "so the pool learns nothing" in messages[0]


@every_rule
def test_meta_training_that_learns_nothing_says_so(rule: str) -> None:
    pool = tiny_pool()
    mdp = TrainingMDP(4, TALL, pool, Objective(horizon=2), slots=1)
    mdp.seed(range(4), many_streams(0, 4, "train"))
    learner = PoolLearner(pool, TALL, rule)
    messages = warnings_of(lambda: meta_train(mdp, learner, lambda seen: np.full(len(seen), 1), iterations=3))
    assert len(messages) == 1
    assert "so the pool learns nothing" in messages[0]
    assert (learner.used, learner.dropped) == (0, 12)


# -- starting over -----------------------------------------------------------------------------------------------------


def run(envs: Any, episodes: int, seed: int = 5) -> dict[str, Tensor]:
    envs.reset(seed=seed)
    generator = np.random.default_rng(0)
    for _ in range(2 * episodes):
        envs.step({"layer": generator.integers(4, size=4), "step_size": generator.uniform(-1, 1, (4, 1)).astype("f4")})
    return values(envs.unwrapped.pool)


def parts(rule: str) -> LayerPool:
    """A pool with everything that the rule can learn."""
    if rule in GRADIENT_RULES:
        pool = tiny_pool(kind="batch_norm").with_rates("weight", 0.05)
        return pool.with_step_norms(2, statistics=True)
    return tiny_pool()


@every_rule
@pytest.mark.parametrize("size", [4, 6])
@pytest.mark.parametrize("fixed", [True, False])
def test_the_initial_pool_is_the_start(rule: str, size: int, fixed: bool) -> None:
    """Weights, rates, statistics, moments, waiting episodes, their order, counters and learning rates."""

    def make() -> Any:
        family = make_family("sinusoid", shots=3, queries=4) if fixed else Restless(shots=3, queries=4)
        given = {"pool": parts(rule), "family": family, "autoreset_mode": "SameStep", "action": "hybrid"}
        return learning(rule, size, **given)

    fresh, again = make(), make()
    expected = run(fresh, 5)
    run(again, 7, seed=8)
    own = again.unwrapped.mdp.learner
    assert own.updates
    own.scale_rates(0.25)
    again.step({"layer": np.ones(4, dtype=np.int64), "step_size": np.zeros((4, 1), np.float32)})
    again.reset(options={"pool": "initial"})
    assert (own.updates, own.used, own.dropped, own.stale) == (0, 0, 0, 0)
    found = run(again, 5)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert own.updates == fresh.unwrapped.mdp.learner.updates


def test_episodes_that_run_on_are_not_learned_from_after_starting_over() -> None:
    """Episodes that began before an update of the pool are left out."""
    envs = learning("maml", 1, pool=tiny_pool(), autoreset_mode="Disabled", action="hybrid")
    envs.reset(seed=0)
    action = {"layer": np.ones(4, dtype=np.int64), "step_size": np.zeros((4, 1), np.float32)}
    envs.step(action)
    envs.reset(options={"pool": "initial", "reset_mask": np.array([True, False, False, False])})
    envs.step(action)
    assert envs.unwrapped.mdp.learner.updates == 0
    envs.step(action)
    assert envs.unwrapped.mdp.learner.updates > 0, "the learner that started over"


# -- data that depend on the network -----------------------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("rows", [3, 4, 8])
def test_what_is_replayed_was_lived_under_the_present_pool(rule: str, rows: int) -> None:
    """With 3 environments and batches of 4, a third of the episodes waited for another pool."""
    losses: list[np.ndarray] = []
    sizes: list[int] = []

    class Watched(PoolLearner):
        def update(self, episodes: Episodes) -> float:
            found = replay(self.pool, self.family, episodes)[0].numpy()
            recorded = np.concatenate(losses[-2 * (len(episodes) // rows) :], axis=0).reshape(-1, 2, rows)
            np.testing.assert_allclose(found, recorded.swapaxes(0, 1).reshape(2, -1), rtol=1e-4, atol=1e-5)
            sizes.append(len(episodes))
            return super().update(episodes)

    family, pool = Restless(shots=3, queries=4), tiny_pool()
    learner = Watched(pool, family, rule, LearningOptions(batch_size=4))
    mdp = TrainingMDP(rows, family, pool, Objective(2), slots=2, learner=learner)
    mdp.seed(range(rows), many_streams(0, rows, "train"))
    generator = np.random.default_rng(0)
    assert mdp._history is not None
    original = mdp._history.hand_over

    def learn(rows: np.ndarray) -> None:
        losses.append(mdp.query_loss[None].copy())
        original(rows)

    mdp._history.hand_over = learn  # type: ignore[method-assign]
    for _ in range(6):
        mdp.reset()
        for _ in range(2):
            take_step(mdp, generator.integers(4, size=rows), generator.uniform(-1, 0, rows).astype(np.float32))
    expected = {3: [6, 6, 6], 4: [4] * 6, 8: [8] * 6}[rows]
    assert sizes == expected
    assert (learner.updates, learner.stale) == (len(expected), 0)


@pytest.mark.parametrize("name", ["restless", "navigation"])
@every_rule
def test_episodes_of_an_older_pool_are_left_out(rule: str, name: str) -> None:
    sizes: dict[str, Any] = {"shots": 3, "queries": 3}
    family = Restless(**sizes) if name == "restless" else make_family(name, steps=3, **sizes)
    pool = tiny_pool(
        in_features=family.in_features, out_features=family.out_features, constant_outputs=family.constant_outputs
    )
    given = {"family": family, "pool": pool, "autoreset_mode": "Disabled", "action": "hybrid", "horizon": 4}
    envs = learning(rule, 1, **given)
    own = envs.unwrapped.mdp.learner
    action = {"layer": np.ones(4, dtype=np.int64), "step_size": np.full((4, 1), -1, np.float32)}
    envs.reset(seed=0)

    def staggered() -> None:
        """One row ends at every step, after the first of them have been cut short."""
        for step in range(20):
            envs.step(action)
            envs.reset(options={"reset_mask": np.arange(4) == step % 4})

    messages = warnings_of(staggered)
    assert own.updates > 0
    assert own.stale > own.used
    assert len(messages) == 1
    assert "the pool changed while they ran" in messages[0]
    assert "larger batch_size" in messages[0]


def test_data_that_depend_on_the_network_are_used_once() -> None:
    family, pool = Restless(), tiny_pool()
    with pytest.raises(ValueError, match=r"^learn_kwargs: passes=2 must be 1 or None: the data of 'restless'"):
        PoolLearner(pool, family, "maml", LearningOptions(passes=2))
    envs = learning("maml", family=family, pool=pool)
    play_vector(envs, sample_actions(envs.action_space, 2), seed=0)
    assert envs.unwrapped.mdp.learner.updates == 1
    envs = learning("maml", pool=pool)
    play_vector(envs, sample_actions(envs.action_space, 2), seed=0)
    assert envs.unwrapped.mdp.learner.updates == 2, "other data are used twice"

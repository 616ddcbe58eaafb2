"""Baselines that search for a network for each task: BounceGrad's annealing, and the supervised router."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agents.rivals.bouncegrad import Annealing
from agents.rivals.router import LABEL_BATCH, Router, fit_router, label
from gym_reml.evaluation import MetaLearner, evaluate, rollout
from gym_reml.evaluation.controls import scores
from gym_reml.evaluation.plans import Planner, plan_learner
from gym_reml.learning import Episodes, replay
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.pool import LayerPool
from gym_reml.spaces import Decided
from gym_reml.streams import many_streams
from gym_reml.tasks import TaskFamily, from_function, make_family
from tests.support.env_helpers import Secretive

FAMILY = make_family("sinusoid")
ROWS = 24
Structures = NDArray[np.int64]


def pool_of(layers: int = 4, kind: str = "relu", seed: int = 0) -> LayerPool:
    """Layers that differ strongly, with learned step sizes."""
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=layers, kind=kind, seed=seed)
    pool.parameters["layers.matrix"] *= 2.0
    return pool.with_rates("scalar", 0.02)


def process(pool: LayerPool, count: int = ROWS, family: TaskFamily = FAMILY, seed: int = 0, **more: Any) -> TrainingMDP:
    mdp = TrainingMDP(count, family, pool, Objective(3), **more)
    mdp.seed(range(count), many_streams(seed, count, family.split))
    mdp.reset()
    return mdp


# -- annealing ------------------------------------------------------------------------------------------------------

FREE, CANDIDATES = 2, np.array([2, 3, 4])
"""Two slots behind an initial layer, three layers to choose from: nine structures."""


def support_losses(mdp: TrainingMDP, structures: Structures) -> NDArray[np.float64]:
    """Support losses after one step per appended layer, by stepping the process."""
    trial = process(mdp.pool, slots=mdp.slots, initial_layers=mdp.initial_layers)
    assert trial.support.inputs.equal(mdp.support.inputs)
    for layers in structures:
        trial.step(trial.decision.decide(ROWS, layer=layers))
    return trial.support_loss


def find(mdp: TrainingMDP, proposals: int, seed: int = 0, **more: Any) -> Structures:
    policy = Annealing(mdp.pool.layers, CANDIDATES, FREE, seed)
    generator = np.random.default_rng(seed)
    support, initial = mdp.support, mdp.initial_layers
    return policy.search(
        mdp.pool,
        mdp.family,
        support=support,
        initial_layers=initial,
        step_size=1.0,
        clip=mdp.clip,
        optimizer=mdp.optimizer,
        proposals=proposals,
        generator=generator,
        **more,
    )


@pytest.fixture(scope="module")
def mdp() -> TrainingMDP:
    return process(pool_of(), slots=3, initial_layers=(1,))


def test_at_temperature_0_the_support_loss_never_rises(mdp: TrainingMDP) -> None:
    # The first proposals of a longer search are those of a shorter one, as nothing is hotter at their time.
    losses = np.stack([support_losses(mdp, find(mdp, proposals, temperature=0.0)) for proposals in range(12)])
    assert (np.diff(losses, axis=0) <= 1e-6 * losses[:-1]).all()
    assert (losses[-1] < losses[0]).mean() > 0.8


def test_annealing_explores_but_keeps_the_best(mdp: TrainingMDP) -> None:
    hot, cold = (support_losses(mdp, find(mdp, 8, temperature=heat)) for heat in (1e9, 0.0))
    start = support_losses(mdp, find(mdp, 0))
    # The same proposals, but what is worse is accepted on the way, so later ones start elsewhere.
    assert (hot != cold).any()
    assert (hot <= start * (1 + 1e-6)).all()


def test_enough_proposals_find_the_best_structure(mdp: TrainingMDP) -> None:
    structures = [np.repeat(np.array(structure)[:, None], ROWS, axis=1) for structure in product(CANDIDATES, repeat=2)]
    losses = np.stack([support_losses(mdp, structure) for structure in structures])
    best = np.stack(structures)[losses.argmin(axis=0), :, np.arange(ROWS)].T
    assert len(set(map(tuple, best.T))) > 2, "not the same for every task"
    found = find(mdp, 300)
    assert np.isin(found, CANDIDATES).all()
    # Two that are nearly as good may stand in for each other: no single change leads from one to the other.
    assert (support_losses(mdp, found) <= 1.05 * losses.min(axis=0)).mean() >= 0.9
    assert (found == best).all(axis=0).mean() >= 0.7


def test_the_loss_that_search_sees_is_that_of_stepping(mdp: TrainingMDP) -> None:
    structure = find(mdp, 0)
    sizes = torch.ones(FREE, ROWS)
    trial = Episodes([mdp.support], [mdp.support], torch.from_numpy(structure), sizes, (1,), 3)
    replayed = replay(mdp.pool, mdp.family, trial)[0][-1]
    np.testing.assert_allclose(replayed.numpy(), support_losses(mdp, structure), rtol=1e-4)


def test_the_same_seed_finds_the_same(mdp: TrainingMDP) -> None:
    np.testing.assert_array_equal(find(mdp, 5, seed=1), find(mdp, 5, seed=1))
    assert (find(mdp, 0, seed=1) != find(mdp, 0, seed=2)).any()


def built(family: TaskFamily, policy: Annealing, pool: LayerPool) -> list[Structures]:
    """The layers that a learner with this policy appends in an evaluation."""
    appended: list[Structures] = []

    def watch(decided: Decided, generators: Any) -> Any:
        appended.append(decided.choices[:, 0])
        np.testing.assert_array_equal(decided.numbers, 0.0)
        return decided

    arguments = {"action": "box", "depth": 3, "horizon": 3, "initial_layers": [1]}
    evaluate(MetaLearner("x", policy, pool, arguments), family, steps=(0, 4), tasks=ROWS, intervene=watch)
    return appended


def test_as_a_policy_it_builds_what_it_found_whatever_the_queries() -> None:
    pool = pool_of()
    trails = []
    for secret in (0.0, 50.0):
        policy = Annealing(pool.layers, CANDIDATES, FREE, seed=4)
        assert isinstance(policy, Planner)
        trails.append(built(Secretive(secret=secret), policy, pool))
        np.testing.assert_array_equal(trails[-1][:FREE], policy.structures)
        np.testing.assert_array_equal(trails[-1][FREE:], np.zeros((2, ROWS)))
    np.testing.assert_array_equal(trails[0], trails[1])


def test_as_a_policy_it_beats_random_structures() -> None:
    pool = pool_of()
    searched, random = Annealing(pool.layers, CANDIDATES, FREE, 0), Annealing(pool.layers, CANDIDATES, FREE, 0)
    random.prepare = lambda mdp: None  # type: ignore[method-assign]
    random.structures = np.random.default_rng(0).choice(CANDIDATES, (FREE, 100))
    arguments = {"action": "box", "depth": 3, "horizon": 3, "initial_layers": [1]}
    losses = []
    for policy in (searched, random):
        *_, last = rollout(MetaLearner("x", policy, pool, arguments), FAMILY, seeds=range(100), steps=FREE)
        losses.append(last.info["support_loss"])
    assert (losses[0] <= losses[1] * (1 + 1e-6)).mean() > 0.75
    assert losses[0].mean() < losses[1].mean()


# -- the router -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial", [(), (1,)])
@pytest.mark.parametrize("free", [1, 2])
def test_labels_are_what_plans_of_these_compositions_score(initial: tuple[int, ...], free: int) -> None:
    pool, slots = pool_of(3, "residual"), len(initial) + free
    count = LABEL_BATCH + 4
    mdp = TrainingMDP(count, FAMILY, pool, Objective(3), slots=slots, initial_layers=initial)
    mdp.seed(range(count), many_streams(7, count, FAMILY.split))
    compositions = np.array(list(product(range(len(initial) + 1, 4), repeat=free)))
    observations, found = label(compositions, mdp, count)
    assert found.shape == (count, len(compositions))
    arguments: dict[str, Any] = {"depth": slots, "horizon": 3, "initial_layers": list(initial)}
    for composition, column in zip(compositions.tolist(), found.T, strict=True):
        plan = plan_learner("plan", pool, arguments, composition, 0.0)
        result = evaluate(plan, FAMILY, steps=(1, 2, 3), tasks=count, seed=7, split="train")
        np.testing.assert_allclose(column.numpy(), scores(result, plan, FAMILY), rtol=1e-4)
    first = next(rollout(plan, FAMILY, seeds=range(7, 7 + count), steps=0)).mdp.observe()
    np.testing.assert_allclose(observations.numpy(), first, rtol=1e-4, atol=1e-5)


def level(x: NDArray[np.float64], a: NDArray[np.float64]) -> NDArray[np.float64]:
    return a + 0.0 * x


def two_kinds() -> TaskFamily:
    """Lines far above and far below zero."""
    members = [from_function(level, {"a": bounds}) for bounds in ((2.5, 3.5), (-3.5, -2.5))]
    return make_family("mixture", members=members)


def levels_pool() -> LayerPool:
    """Layer 1 lifts to 3, layer 2 lowers to -3, layer 3 lifts to 30, whatever comes in; steps are tiny."""
    pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=3, kind="relu")
    pool.parameters["layers.matrix"] *= 0.01
    pool.parameters["head.matrix"].zero_()
    pool.parameters["head.matrix"][0], pool.parameters["head.matrix"][1] = 1.0, -1.0
    for layer, (unit, height) in enumerate([(0, 3.0), (1, 3.0), (0, 30.0)]):
        pool.parameters["layers.matrix"][layer, -1] = 0.0
        pool.parameters["layers.matrix"][layer, -1, unit] = height
    return pool.with_rates("scalar", 1e-4)


def best_of(router: Router, mdp: TrainingMDP) -> tuple[Structures, Structures]:
    """The router's choices for new tasks, and the best ones."""
    observations, found = label(router.compositions, mdp, 100)
    chosen = router.choose(observations.numpy())[0]
    return chosen, router.compositions[found.argmin(dim=1).numpy(), 0]


def taught(family: TaskFamily, seed: int = 0) -> tuple[Router, TrainingMDP]:
    mdp = process(levels_pool(), 32, family, slots=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return teach_router(mdp, seed), mdp


def teach_router(mdp: TrainingMDP, seed: int) -> Router:
    router = Router(mdp.observation_size, np.array([[1], [2], [3]]), 3)
    fit_router(router, mdp, 640, seed)
    return router


def test_the_router_learns_which_composition_fits_which_task() -> None:
    router, mdp = taught(two_kinds())
    chosen, best = best_of(router, mdp)
    # The last batch of those tasks is still there to see which kind they were.
    np.testing.assert_array_equal(best[-mdp.count :], mdp.tasks["member"] + 1)
    assert set(best.tolist()) == {1, 2}
    assert (chosen == best).mean() > 0.95


def test_the_router_learns_the_one_composition_that_is_always_best() -> None:
    router, mdp = taught(from_function(level, {"a": (2.5, 3.5)}))
    chosen, best = best_of(router, mdp)
    assert set(best.tolist()) == {1}
    assert (chosen == 1).mean() > 0.97
    again, _ = taught(from_function(level, {"a": (2.5, 3.5)}))
    assert all(one.equal(other) for one, other in zip(router.parameters(), again.parameters(), strict=True))


def test_the_router_builds_what_it_chose_at_first() -> None:
    compositions = np.array([[1, 3], [2, 2]])
    router = Router(5, compositions, 3)
    generator = np.random.default_rng(0)
    first = generator.normal(size=(6, 5)).astype(np.float32)
    chosen, state, layers = router.choose(first), None, []
    assert chosen.shape == (2, 6)
    for observation in (first, generator.normal(size=(6, 5)).astype(np.float32), first):
        actions, state = router.predict(observation, state)
        generators = [np.random.default_rng(row) for row in range(6)]
        encoding = router.encoding
        decoded = encoding.decode(actions, encoding.decision.all_allowed(6), generators=generators)
        np.testing.assert_array_equal(decoded.numbers, 0.0)
        layers.append(decoded.choices[:, 0])
    np.testing.assert_array_equal(layers[:2], chosen)
    np.testing.assert_array_equal(layers[2], 0)


def test_rows_of_a_batch_choose_for_themselves() -> None:
    router = Router(5, np.array([[1], [2]]), 2)
    rows = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    together = router.choose(rows)[0]
    assert set(together.tolist()) == {1, 2}
    assert together.tolist() == [int(router.choose(row[None])[0, 0]) for row in rows]

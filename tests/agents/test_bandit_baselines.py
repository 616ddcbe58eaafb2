"""Classical policies of bandits: indices known from the literature, choices by hand, and the table of returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.trials.baselines import baselines
from agents.trials.classical.bandits import UCB1, BanditPolicy, EpsilonGreedy, Gittins, RandomArm, Thompson, epsilon_for
from agents.trials.classical.gittins import gittins_indices
from agents.trials.classical.policies import nearest, take_apart
from agents.trials.rl2.recipes import Setting
from gym_reml.evaluation import evaluate_trials

# -- Gittins indices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discount", "successes", "failures", "index"),
    # Gittins, Glazebrook & Weber, "Multi-armed bandit allocation indices" (2011), tables for Beta(1 + s, 1 + f).
    [(0.9, 0, 0, 0.7029), (0.9, 0, 1, 0.5001), (0.9, 1, 0, 0.8001), (0.9, 1, 1, 0.6346), (0.99, 0, 0, 0.8699)],
)
def test_indices_are_those_of_the_literature(discount: float, successes: int, failures: int, index: float) -> None:
    assert gittins_indices(5, discount)[successes, failures] == pytest.approx(index, abs=1e-4)


def test_without_a_future_the_index_is_the_mean() -> None:
    indices = gittins_indices(6, 1e-9)
    for successes in range(7):
        for failures in range(7 - successes):
            mean = (1 + successes) / (2 + successes + failures)
            assert indices[successes, failures] == pytest.approx(mean, abs=1e-6)
    assert np.isnan(indices[4, 3])


def test_indices_rise_with_successes_and_exceed_the_mean() -> None:
    indices = gittins_indices(30, 0.97)
    known = ~np.isnan(indices)
    assert (np.diff(indices, axis=0)[known[1:]] > 0).all()
    assert (np.diff(indices, axis=1)[known[:, 1:]] < 0).all()
    successes, failures = np.nonzero(known)
    assert (indices[known] > (1 + successes) / (2 + successes + failures)).all()


def test_indices_are_kept_and_cannot_be_spoilt() -> None:
    assert gittins_indices(5, 0.5) is gittins_indices(5, 0.5)
    with pytest.raises(ValueError, match="read-only"):
        gittins_indices(5, 0.5)[0, 0] = 1.0


@pytest.mark.parametrize(
    ("pulls", "discount", "message"), [(-1, 0.9, "pulls=-1"), (5, 1.0, "discount=1.0"), (5, 0.0, "discount=0.0")]
)
def test_indices_of_nothing(pulls: int, discount: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gittins_indices(pulls, discount)


# -- choices --------------------------------------------------------------------------------------------------------


def observation(arms: int, pulled: list[int], paid: list[float]) -> NDArray[np.float32]:
    """What rows see that have pulled these arms."""
    rows = np.zeros((len(pulled), arms + 2), dtype=np.float32)
    rows[np.arange(len(pulled)), pulled] = 1.0
    rows[:, -2], rows[:, -1] = paid, 1.0
    return rows


def arms_after(policy: BanditPolicy, history: list[tuple[int, float]]) -> int:
    """What the policy pulls after these pulls, whoever chose them."""
    action, state = policy.predict(observation(policy.actions, [0], [0.0]))
    for arm, reward in history:
        action, state = policy.predict(observation(policy.actions, [arm], [reward]), state)
    return int(action[0])


def test_gittins_prefers_the_unknown_to_the_known_of_equal_mean() -> None:
    # Arm 0 is known to pay every other time; of arm 1 nothing is known.
    known = [(0, 1.0), (0, 0.0)] * 3
    assert arms_after(Gittins(2, 10), known) == 1
    # Greed sees no difference, and takes the first.
    assert arms_after(EpsilonGreedy(2, 0.0), known) == 0


def test_gittins_leaves_an_arm_as_its_index_says() -> None:
    table = gittins_indices(10, 0.9)
    assert table[1, 1] < table[0, 0]
    assert arms_after(Gittins(3, 10), [(0, 1.0)]) == 0
    assert arms_after(Gittins(3, 10), [(0, 1.0), (0, 0.0)]) == 1


def test_ucb1_takes_the_arm_of_the_highest_bound() -> None:
    # Bounds after 9 pulls: arm 0 6/10 + c sqrt(2 ln 10 / 9), arm 1 1/3 + c sqrt(2 ln 10 / 2), arm 2 1/2 + ....
    history = [(0, 1.0)] * 5 + [(0, 0.0)] * 3 + [(1, 0.0)]
    t = 2 * np.log(10)
    for c in (0.01, 0.1, 1.0):
        bounds = [6 / 10 + c * (t / 9) ** 0.5, 1 / 3 + c * (t / 2) ** 0.5, 1 / 2 + c * t**0.5]
        assert arms_after(UCB1(3, c), history) == int(np.argmax(bounds))
    assert {arms_after(UCB1(3, c), history) for c in (0.01, 1.0)} == {0, 2}


def test_thompson_draws_from_the_posterior() -> None:
    rows = 4000
    policy = Thompson(2, seed=1)
    start = np.ones(rows, dtype=np.bool_)
    _, state = policy.predict(observation(2, [0] * rows, [0.0] * rows), None, start)
    action, _ = policy.predict(observation(2, [0] * rows, [1.0] * rows), state)
    # P(X > Y) for X ~ Beta(2, 1) and Y uniform is E X = 2/3.
    assert (action == 0).mean() == pytest.approx(2 / 3, abs=4 * (2 / 9 / rows) ** 0.5)


def test_epsilon_is_the_share_of_any_arm() -> None:
    rows = 6000
    policy = EpsilonGreedy(3, 0.3, seed=2)
    _, state = policy.predict(observation(3, [0] * rows, [0.0] * rows))
    action, _ = policy.predict(observation(3, [2] * rows, [1.0] * rows), state)
    assert np.bincount(action) / rows == pytest.approx([0.1, 0.1, 0.8], abs=0.025)
    assert (epsilon_for(10), epsilon_for(90), epsilon_for(400)) == (epsilon_for(11), epsilon_for(100), epsilon_for(500))


def test_a_new_trial_forgets_and_other_rows_do_not() -> None:
    policy = EpsilonGreedy(2, 0.0)
    _, state = policy.predict(observation(2, [0, 0], [0.0, 0.0]))
    action, state = policy.predict(observation(2, [0, 0], [0.0, 0.0]), state)
    assert action.tolist() == [1, 1]
    action, state = policy.predict(observation(2, [0, 1], [0.0, 0.0]), state, np.array([True, False]))
    assert action.tolist() == [0, 0]
    assert state.memory.pulls.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomArm(0), "actions=0"),
        (lambda: Thompson(2, seed=-1), "seed=-1"),
        (lambda: Gittins(2, 1), "pulls=1"),
        (lambda: EpsilonGreedy(2, 1.5), "epsilon=1.5"),
        (lambda: take_apart(np.zeros((3, 4), dtype=np.float32), 5), "shape"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("policy", "message"), [(Gittins(5, 3), "pulls=3"), (Gittins(3, 10), "arms=3.*5 arms")])
def test_trials_of_another_size_are_refused(policy: BanditPolicy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_trials(policy, "BanditTrial-v0", 3, arms=5, episodes=10)


def test_the_nearest_length_is_so_in_ratio() -> None:
    assert [nearest(length, (10, 100, 500)) for length in (2, 31, 32, 223, 224)] == [10, 10, 100, 100, 500]


# -- the table ------------------------------------------------------------------------------------------------------

NAMES = ("random", "gittins", "thompson", "ucb1")
TABLE = {
    (10, 5): (5.0, 6.6, 5.7, 6.7),
    (10, 10): (5.1, 6.7, 5.5, 6.7),
    (10, 50): (5.0, 6.6, 5.1, 6.7),
    (100, 5): (49.9, 78.7, 74.6, 78.1),
    (100, 10): (50.3, 84.0, 77.1, 83.4),
    (100, 50): (50.3, 85.4, 64.7, 84.9),
    (500, 5): (248.8, 406.8, 401.3, 406.6),
}
"""Recomputed figures by pulls and arms, from samples of their own."""


def check_table(pulls: int, arms: int, trials: int) -> None:
    policies = baselines(Setting("bandit", pulls, arms))
    for name, expected in zip(NAMES, TABLE[pulls, arms], strict=True):
        total = evaluate_trials(policies[name], "BanditTrial-v0", trials, arms=arms, episodes=pulls).total
        # The table is a mean of a sample too (taken as of the same size), and it is rounded.
        tolerance = 3 * 2**0.5 * total.std() / trials**0.5 + 0.05
        assert total.mean() == pytest.approx(expected, abs=tolerance), name


@pytest.mark.parametrize("arms", [5, 10, 50])
def test_short_trials_pay_as_published(arms: int) -> None:
    check_table(10, arms, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(("pulls", "arms"), [key for key in TABLE if key[0] > 10])
def test_long_trials_pay_as_published(pulls: int, arms: int) -> None:
    check_table(pulls, arms, 1000)


@pytest.mark.parametrize("name", [*NAMES, "epsilon_greedy"])
def test_returns_are_a_function_of_the_seed(name: str) -> None:
    setting = Setting("bandit", 10, 5)

    def returns(seed: int) -> list[float]:
        policy = baselines(setting, seed)[name]
        first = evaluate_trials(policy, setting.env_id, 50, **setting.arguments).total.tolist()
        assert evaluate_trials(policy, setting.env_id, 50, **setting.arguments).total.tolist() == first
        return first

    assert returns(3) == returns(3)
    assert (returns(3) != returns(4)) == (name in ("random", "thompson"))

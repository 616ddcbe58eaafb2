"""Classical policies of random tabular processes: plans and beliefs by hand, and the table of returns."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.comparison.entrants import TABULAR
from agents.trials.baselines import baselines
from agents.trials.classical.belief import Belief
from agents.trials.classical.planning import action_values
from agents.trials.classical.tabular import (
    BEB,
    BONUSES,
    PSRL,
    Greedy,
    Myopic,
    Oracle,
    RandomAction,
    TabularPolicy,
    bonus_for,
)
from agents.trials.rl2.recipes import Setting
from gym_reml.evaluation import evaluate_trials

# -- planning -------------------------------------------------------------------------------------------------------


def test_one_step_is_worth_its_reward() -> None:
    rewards = np.array([[[1.0, 2.0], [3.0, -1.0]]])
    transitions = np.full((1, 2, 2, 2), 0.5)
    assert action_values(transitions, rewards, 1).tolist() == [rewards.tolist()]


def test_a_reward_is_given_up_for_a_better_one_to_come() -> None:
    # In state 0, action 0 pays 1 and stays; action 1 pays nothing and leads to state 1, which pays 5 and leads back.
    transitions = np.zeros((1, 2, 2, 2))
    transitions[0, 0, 0, 0] = transitions[0, 0, 1, 1] = transitions[0, 1, :, 0] = 1.0
    rewards = np.array([[[1.0, 0.0], [5.0, 5.0]]])
    values = action_values(transitions, rewards, 3)[:, 0]
    assert values[:, 0].tolist() == [[6.0, 6.0], [2.0, 5.0], [1.0, 0.0]]
    assert values[:, 1].tolist() == [[10.0, 10.0], [6.0, 6.0], [5.0, 5.0]]


def test_plans_are_the_best_of_all_policies() -> None:
    rng = np.random.default_rng(0)
    transitions, rewards = rng.dirichlet(np.ones(3), size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    values = action_values(transitions, rewards, 3)
    for row in range(4):
        best = np.full(3, -np.inf)
        # A policy has an action for each of three states at each of three steps.
        for policy in itertools.product(range(2), repeat=9):
            value = np.zeros(3)
            for step in (2, 1, 0):
                actions = policy[3 * step : 3 * step + 3]
                value = np.array([rewards[row, s, a] + transitions[row, s, a] @ value for s, a in enumerate(actions)])
            best = np.maximum(best, value)
        assert values[0, row].max(axis=1) == pytest.approx(best)


# -- beliefs --------------------------------------------------------------------------------------------------------


def test_posterior_means_by_hand() -> None:
    belief = Belief.empty(2, 2, 1)
    row = np.array([0])
    assert belief.mean_transitions(row).tolist() == [[[[0.5, 0.5]], [[0.5, 0.5]]]]
    assert belief.mean_rewards(row).tolist() == [[[1.0], [1.0]]]
    belief.arrivals[0, 0, 0, 1], belief.visits[0, 0, 0], belief.rewards[0, 0, 0] = 2.0, 3.0, 9.0
    assert belief.mean_transitions(row)[0, 0, 0].tolist() == [0.25, 0.75]
    assert belief.mean_rewards(row)[0, :, 0].tolist() == [2.5, 1.0]
    belief.clear(row)
    assert belief.mean_rewards(row).tolist() == [[[1.0], [1.0]]]


def test_draws_have_the_moments_of_the_posterior() -> None:
    belief = Belief.empty(1, 2, 1)
    belief.arrivals[0, 0, 0], belief.visits[0, 0, 0], belief.rewards[0, 0, 0] = (3.0, 1.0), 4.0, 14.0
    stream = np.random.default_rng(0)
    transitions, rewards = map(np.array, zip(*(belief.sample(0, stream) for _ in range(4000)), strict=True))
    # Beta(4, 2) has mean 2/3 and variance 2/63; the reward's posterior is Normal(15/5, 1/5).
    assert transitions[:, 0, 0, 0].mean() == pytest.approx(2 / 3, abs=4 * (2 / 63 / 4000) ** 0.5)
    assert transitions[:, 0, 0, 0].var() == pytest.approx(2 / 63, rel=0.15)
    assert rewards[:, 0, 0].mean() == pytest.approx(3.0, abs=4 * (0.2 / 4000) ** 0.5)
    assert rewards[:, 0, 0].var() == pytest.approx(0.2, rel=0.15)
    assert rewards[:, 1, 0].var() == pytest.approx(1.0, rel=0.15)


# -- choices --------------------------------------------------------------------------------------------------------


def observation(state: int, action: int, reward: float, done: bool, states: int, actions: int) -> NDArray[np.float32]:
    """What one row sees."""
    row = np.zeros(states + actions + 2, dtype=np.float32)
    row[state] = row[states + action] = 1.0
    row[-2:] = reward, done
    return row[None]


def test_greedy_repeats_what_paid_and_leaves_what_did_not() -> None:
    policy = Greedy(states=1, actions=3, steps=1)
    see: Any = lambda action, reward: observation(0, action, reward, True, 1, 3)  # noqa: E731
    action, state = policy.predict(see(0, 0.0))
    assert action.tolist() == [0], "of equal ones the first"
    action, state = policy.predict(see(0, -2.0), state)
    assert action.tolist() == [1], "the untried ones are believed to pay 1"
    action, state = policy.predict(see(1, 4.0), state)
    assert action.tolist() == [1]
    assert state.memory.belief.mean_rewards(np.array([0])).tolist() == [[[-0.5, 2.5, 1.0]]]


def test_a_bonus_explores_until_it_is_small() -> None:
    see: Any = lambda action, reward: observation(0, action, reward, True, 1, 2)  # noqa: E731
    for bonus, second in ((0.0, 0), (0.9, 0), (1.1, 1)):
        policy = BEB(bonus, states=1, actions=2, steps=1)
        _, state = policy.predict(see(0, 0.0))
        # Action 0 paid 2: its mean is 1.5 and its bonus half; action 1 is believed to pay 1.
        action, _ = policy.predict(see(0, 2.0), state)
        assert action.tolist() == [int(1.5 + bonus / 2 < 1.0 + bonus)] == [second]


def test_steps_lead_where_they_were_seen_to_lead() -> None:
    policy = Greedy(states=3, actions=2, steps=2)
    _, state = policy.predict(observation(0, 0, 0.0, True, 3, 2))
    action, state = policy.predict(observation(2, 0, 1.0, False, 3, 2), state)
    belief = state.memory.belief
    assert belief.arrivals[0, 0, 0].tolist() == [0.0, 0.0, 1.0]
    _, state = policy.predict(observation(0, int(action[0]), 5.0, True, 3, 2), state)
    assert belief.arrivals.sum() == 1.0, "the next episode's first state is no consequence"
    assert belief.visits[0, 2, action[0]] == 1.0
    assert belief.rewards[0, 2, action[0]] == 5.0
    _, state = policy.predict(observation(0, 0, 0.0, True, 3, 2), state, np.array([True]))
    assert belief.visits.sum() == 0.0


def test_plans_are_made_when_an_inner_episode_begins() -> None:
    policy = Greedy(states=1, actions=2, steps=3)
    action, state = policy.predict(observation(0, 0, 0.0, True, 1, 2))
    for _ in range(2):
        action, state = policy.predict(observation(0, int(action[0]), -9.0, False, 1, 2), state)
        assert action.tolist() == [0], "the plan is kept"
    action, state = policy.predict(observation(0, 0, -9.0, True, 1, 2), state)
    assert action.tolist() == [1]


def test_the_myopic_one_decides_anew_at_every_step_and_looks_no_step_ahead() -> None:
    policy = Myopic(0.5, states=2, actions=2, steps=3)
    # Action 0 leads from state 0, where it pays 1.5, to state 1, where everything pays -9; action 1 is untried.
    action, state = policy.predict(observation(0, 0, 0.0, True, 2, 2))
    for _ in range(3):
        action, state = policy.predict(observation(0, 0, 2.0, False, 2, 2), state)
        assert action.tolist() == [0], "mean 1.5 or more, bonus a quarter or less; the other 1 and a half"
        state.memory.belief.rewards[0, 1] = -90.0
    action, state = policy.predict(observation(1, 0, 2.0, False, 2, 2), state)
    assert action.tolist() == [0], "equally bad"
    action, state = policy.predict(observation(0, 0, -9.0, False, 2, 2), state)
    assert state.memory.belief.visits[0, 1].tolist() == [1.0, 0.0]
    state.memory.belief.rewards[0, 0, 0] = -9.0
    action, state = policy.predict(observation(0, 0, 0.0, False, 2, 2), state)
    assert action.tolist() == [1], "within the inner episode"
    with pytest.raises(ValueError, match="states=2"):
        policy.predict(observation(0, 0, 0.0, True, 3, 2))


def test_the_oracle_has_to_be_told() -> None:
    with pytest.raises(ValueError, match="inform"):
        Oracle().predict(observation(0, 0, 0.0, True, 10, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Greedy(states=0), "states=0"),
        (lambda: PSRL(steps=0), "steps=0"),
        (lambda: RandomAction(actions=0), "actions=0"),
        (lambda: BEB(-0.1), "bonus=-0.1"),
        (lambda: action_values(np.zeros((1, 2, 1, 2)), np.zeros((1, 2, 1)), 0), "horizon=0"),
        (lambda: action_values(np.zeros((1, 2, 1, 3)), np.zeros((1, 2, 1)), 1), "transitions"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- the table ------------------------------------------------------------------------------------------------------

PUBLISHED = ("random", "psrl", "greedy", "beb", "oracle")
TABLE = {
    10: (100.3, 133.0, 149.9, 152.0, 218.4),
    25: (250.0, 404.3, 425.5, 441.9, 546.3),
    50: (502.8, 902.9, 900.4, 962.6, 1092.9),
}
"""Recomputed figures by episodes of a trial, from samples of their own."""


def check_table(episodes: int, trials: int) -> None:
    policies = baselines(Setting("tabular", episodes))
    for name, expected in zip(PUBLISHED, TABLE[episodes], strict=True):
        total = evaluate_trials(policies[name], "TabularTrial-v0", trials, episodes=episodes).total
        # The table is a mean of a sample too (taken as of the same size), and it is rounded.
        tolerance = 3 * 2**0.5 * total.std() / trials**0.5 + 0.05
        assert total.mean() == pytest.approx(expected, abs=tolerance), name


def test_short_trials_pay_as_published() -> None:
    check_table(10, 500)


@pytest.mark.slow
@pytest.mark.parametrize("episodes", TABLE)
def test_long_trials_pay_as_published(episodes: int) -> None:
    check_table(episodes, 1000)


@pytest.mark.parametrize("name", [*PUBLISHED, "myopic"])
def test_returns_are_a_function_of_the_seed(name: str) -> None:
    setting = Setting("tabular", 3)

    def returns(seed: int) -> list[float]:
        policy = baselines(setting, seed)[name]
        first = evaluate_trials(policy, setting.env_id, 20, **setting.arguments).total.tolist()
        assert evaluate_trials(policy, setting.env_id, 20, **setting.arguments).total.tolist() == first
        return first

    assert returns(3) == returns(3)
    assert (returns(3) == returns(4)) != TABULAR[name].seeded


@pytest.mark.parametrize(("size", "message"), [({"steps": 5}, "steps=5"), ({"states": 5}, "states=5.*10 states")])
def test_trials_of_another_size_are_refused(size: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_trials(Greedy(**size), "TabularTrial-v0", 2)


def test_bonuses_follow_the_length_of_trials() -> None:
    for name in BONUSES:
        assert bonus_for(name, 10) < bonus_for(name, 25) < bonus_for(name, 50) == bonus_for(name, 200)


def test_only_the_oracle_is_told_anything() -> None:
    for policy in baselines(Setting("tabular", 10)).values():
        assert isinstance(policy, TabularPolicy)
        assert hasattr(policy, "inform") == (policy.name == "oracle")

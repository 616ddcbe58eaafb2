"""What `NetRule` is about; its contract is that of `test_net_tune`, by the table of variants."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from torch.nn import functional

from gym_reml.decisions.rule_optimizer import RuleOptimizer
from gym_reml.decisions.update_rules import OPERANDS, RULES, Group, Rule, operand_names
from gym_reml.sb3 import make_vec_env
from gym_reml.streams import row_streams
from tests.support.env_helpers import assert_same, play
from tests.support.tuning_helpers import SIZES, make_line, make_normed, points

pytestmark = pytest.mark.filterwarnings("error")
DATA: dict[str, Any] = {
    "train": points(20),
    "validation": points(30, 1),
    "test": points(10, 2),
    "module": make_normed,
    "batch_size": 5,
    "updates": 12,
}


def make(**arguments: Any) -> Any:
    return gym.make("NetRule-v0", **({"updates": 2} | arguments)).unwrapped


def native(count: int, **arguments: Any) -> Any:
    return gym.make_vec("NetRule-v0", count, autoreset_mode="Disabled", **({"updates": 2} | arguments))


def write(env: Any, rule: Rule, horizon: int = 3) -> list[Any]:
    """The outcomes of the steps that write a rule, in every row."""
    groups = rule.choices(horizon)
    rows = getattr(env, "num_envs", None)
    return [env.step(group if rows is None else np.repeat(group[None], rows, axis=0)) for group in groups]


@pytest.mark.parametrize(
    ("rule", "make_optimizer"),
    [
        (RULES["adam"], lambda parameters, rate: torch.optim.Adam(parameters, lr=rate)),
        (RULES["momentum"], lambda parameters, rate: torch.optim.SGD(parameters, lr=rate / 10, momentum=0.9)),
        (
            Rule((Group("g", "1e-2 w", "cosine", binary="+"),)),
            lambda parameters, rate: RuleOptimizer(
                parameters, Rule((Group("g", "1e-2 w", "cosine", binary="+"),)), rate, updates=12
            ),
        ),
    ],
    ids=["adam", "momentum", "decayed"],
)
def test_an_episode_is_the_runs_of_a_plain_loop(rule: Rule, make_optimizer: Any) -> None:
    rates = (0.01, 0.3)
    env = make(**DATA, rates=rates)
    env.reset(seed=3)
    initial = env.export()
    order = np.random.default_rng(int(row_streams(3, "train").query.integers(2**63)))
    order.integers(2**63)  # the weights' seed
    places = np.concatenate([order.permutation(20) for _ in range(3)])
    inputs, labels = (torch.from_numpy(array) for array in DATA["train"])
    held_out, truth = (torch.from_numpy(array) for array in DATA["validation"])
    accuracies, networks = [], []
    for rate in rates:
        env.reset(seed=3)
        network = env.export()
        optimizer = make_optimizer(network.parameters(), rate)
        for update in range(12):
            chosen = places[5 * update :][:5]
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
        with torch.no_grad():
            accuracies.append(float((network(held_out).argmax(1) == truth).float().mean()))
        networks.append(network)
    outcomes = write(env, rule)
    best = int(np.argmax(accuracies))
    with torch.no_grad():
        before = float((initial(held_out).argmax(1) == truth).float().mean())
        torch.testing.assert_close(env.export()(held_out), networks[best](held_out), rtol=1e-3, atol=1e-4)
    assert [outcome[1] for outcome in outcomes[:2]] == [0.0, 0.0]
    assert outcomes[2][1] == pytest.approx(accuracies[best] - before, abs=1e-6)
    assert outcomes[2][4]["rate"] == rates[best]
    assert env.rule() == rule


def test_several_data_sets_count_alike() -> None:
    env = make(family_kwargs=SIZES, tasks=3, updates=5, rates=(0.001, 0.1))
    env.reset(seed=1)
    *_, (*_, info) = write(env, RULES["rmsprop"])
    cohort, _ = env.tuning._cohorts[0]
    found = cohort.children.measure("validation")[1].reshape(3, 2)
    best = int(found.mean(axis=0).argmax())
    assert info["validation_accuracy"] == pytest.approx(found[:, best].mean())
    assert info["test_accuracy"] == pytest.approx(cohort.children.measure("test")[1].reshape(3, 2)[:, best].mean())
    assert info["rate"] == (0.001, 0.1)[best]


def test_nothing_depends_on_test_data() -> None:
    one, other = (make(**DATA | {"test": points(10, seed)}) for seed in (2, 9))
    one.action_space.seed(0)
    actions = [one.action_space.sample() for _ in range(4)]
    for mine, its in zip(play(one, actions, seed=0), play(other, actions, seed=0), strict=True):
        assert_same(mine[0], its[0])
        if len(mine) > 2:
            assert mine[1] == its[1]


def test_rows_with_different_rules_are_trained_by_their_own() -> None:
    rules = [*RULES.values()]
    envs = native(len(rules), **DATA)
    envs.reset(seed=[5] * len(rules))
    for step in range(3):
        outcome = envs.step(np.stack([rule.choices(3)[step] for rule in rules]))
    single = make(**DATA)
    for row, rule in enumerate(rules):
        assert envs.rule(row) == rule
        single.reset(seed=5)
        *_, (_, reward, _, _, info) = write(single, rule)
        assert outcome[1][row] == pytest.approx(reward, abs=1e-6)
        assert outcome[4]["train_loss"][row] == pytest.approx(info["train_loss"], rel=1e-3)


def test_a_rule_that_explodes_returns_nothing_and_is_counted() -> None:
    env = make(**DATA, rates=(0.1, 1e30))
    env.reset(seed=0)
    *_, (_, reward, _, _, info) = write(env, RULES["sgd"])
    assert (info["exploded"], info["diverged"], info["rate"]) == (0.5, False, 0.1)
    env.reset(seed=0)
    log = Rule((Group("g", "g", "exp", "exp", "^"), Group("r1", "r1", "exp", "exp", "^"), Group("r2", "r2", "exp")))
    *_, (observation, reward, terminated, _, info) = write(env, log)
    assert (reward, terminated, info["exploded"], info["diverged"]) == (0.0, True, 1.0, True)
    assert observation[-1] == 1.0


def test_groups_are_observed_as_they_are_decided() -> None:
    env = make(**DATA)
    observation, _ = env.reset(seed=0)
    size = env.decision.size
    assert not observation.any()
    for step, group in enumerate(RULES["addsign"].choices(3)):
        observation, *_ = env.step(group)
        own = observation[step * size :][:size]
        assert [int(own[part].argmax()) for part in env.decision.parts] == group.tolist()
        assert own.sum() == 5
        assert not observation[(step + 1) * size : 3 * size].any()


def test_results_that_are_not_there_yet_stand_for_g() -> None:
    env = make(**DATA)
    env.reset(seed=0)
    names = operand_names(3)
    taken = [names.index("r2"), names.index("r1"), 0, 0, 5]
    assert (len(names), env.action_space.nvec.tolist()) == (len(OPERANDS) + 2, [19, 19, 15, 15, 6])
    for expected in ("g", "g", "g"):
        env.step(np.array(taken))
        assert str(env.rule()) == expected
    assert [mask[0, -2:].tolist() for mask in env.tuning.allowed()[:2]] == [[True, True]] * 2


def test_further_steps_change_nothing() -> None:
    env = make(**DATA)
    env.reset(seed=0)
    *_, last = write(env, RULES["adam"])
    again = env.step(env.action_space.sample())
    assert again[1] == 0.0
    assert_same((again[0], again[2:]), (last[0], last[2:]))


def test_a_rule_begins_with_a_group() -> None:
    env = make(**DATA)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="has no rule yet"):
        env.rule()
    with pytest.raises(ValueError, match="row=1"):
        env.rule(1)


def test_what_is_drawn_shows_the_rule() -> None:
    env = make(**DATA, render_mode="ansi")
    env.reset(seed=0)
    assert "none yet" in env.render()
    *_, (*_, info) = write(env, RULES["addsign"])
    lines = env.render().splitlines()
    assert "d = (1 + sign(g) * sign(m)) * g" in lines
    assert f"validation accuracy {info['validation_accuracy']:.3g} at step size {info['rate']:g}" in lines


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tasks": 0}, "tasks=0"),
    ({"device": "meta"}, "device='meta': not available"),
    ({"rates": ()}, r"rates=\(\)"),
    ({"rates": 0.1}, r"rates=0\.1"),
    ({"rates": (0.1, -1.0)}, r"rates=\(0\.1, -1\.0\)"),
    ({"horizon": 0}, "horizon=0"),
    ({"updates": 0}, "updates=0"),
    ({"action": "discrete"}, "action='discrete'.*too many"),
    ({"family": "sinusoid"}, "family='sinusoid'.*'clusters'"),
    ({"module": make_line}, "module: Linear|module: maps"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_value_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        make(**arguments)


@pytest.mark.parametrize(("algorithm", "own"), [(PPO, {"batch_size": 12}), (A2C, {})])
def test_sb3_trains_on_it(algorithm: Any, own: dict[str, Any]) -> None:
    envs = make_vec_env("NetRule-v0", n_envs=4, seed=0, updates=2, family_kwargs=SIZES)
    algorithm("MlpPolicy", envs, n_steps=6, device="cpu", **own).learn(24)

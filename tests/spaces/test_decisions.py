"""Decisions by name, as flat vectors and in each encoding; custom encodings."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from gym_reml.spaces import ENCODINGS, ActionEncoding, Decided, Decision, DecisionBox, layer_and_step, make_encoding
from gym_reml.spaces.base import only_allowed, read_numbers
from gym_reml.spaces.decision import Masks
from tests.support.env_helpers import SMALL

DECISIONS = {
    "a layer and a step": layer_and_step(3),
    "two choices, three numbers": Decision((3, 4), 3, names=("loss", "augmentation", "rate", "momentum", "decay")),
    "numbers alone": Decision(numbers=2),
    "a choice alone": Decision((5,)),
    "choices alone": Decision((2, 1, 3)),
}
every_decision = pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)
every_encoding = pytest.mark.parametrize("name", ENCODINGS)
ROWS = 60


def generators(count: int = ROWS) -> list[np.random.Generator]:
    return [np.random.default_rng(row) for row in range(count)]


def anything(decision: Decision, seed: int = 0) -> Decided:
    rng = np.random.default_rng(seed)
    choices = rng.integers(decision.choices, size=(ROWS, len(decision.choices)))
    return Decided(choices, rng.uniform(-1.0, 1.0, (ROWS, decision.numbers)).astype(np.float32))


def some(decision: Decision, seed: int = 0) -> Masks:
    """Random masks, each with at least one option, which seldom is the first."""
    rng = np.random.default_rng(seed)
    masks = [rng.random((ROWS, options)) < 0.4 for options in decision.choices]
    for mask in masks:
        mask[np.arange(ROWS), rng.integers(mask.shape[1], size=ROWS)] = True
    return tuple(masks)


def samples(encoding: ActionEncoding) -> Any:
    space = batch_space(encoding.space, ROWS)
    space.seed(1)
    return space.sample()


def assert_equal(one: Decided, other: Decided) -> None:
    for name in Decided._fields:
        part, expected = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(part, expected)
        assert part.dtype == expected.dtype


# -- decisions -------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert Decision((2, 3), 1).names == ("choice_0", "choice_1", "number_0")
    decision = layer_and_step(8)
    assert (decision.choices, decision.numbers, decision.size) == ((9,), 1, 10)
    assert (decision.choice_names, decision.number_names) == (("layer",), ("step_size",))
    assert decision == Decision((9,), 1, names=("layer", "step_size")) != Decision((9,), 1)
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert hash(decision) == hash(layer_and_step(8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.numbers = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "something to decide"),
        ({"choices": (3, 0)}, "choices=0: must be a positive integer"),
        ({"choices": (2.5,)}, "choices=2.5"),
        ({"numbers": -1}, "numbers=-1: must be an integer that is not negative"),
        ({"choices": (3,), "names": ("a", "b")}, r"names=\('a', 'b'\): must be 1 different identifiers"),
        ({"choices": (3,), "numbers": 1, "names": ("a", "a")}, "must be 2 different identifiers"),
        ({"numbers": 1, "names": (1,)}, "identifiers"),
        ({"numbers": 1, "names": ("step size",)}, "identifiers"),
    ],
)
def test_invalid_decisions(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decision(**arguments)


def test_decided_by_name() -> None:
    decision = DECISIONS["two choices, three numbers"]
    decided = decision.decide(2, augmentation=np.array([3, 1]), momentum=0.5)
    assert_equal(
        decided, Decided(np.array([[0, 3], [0, 1]]), np.array([[0.0, 0.5, 0.0], [0.0, 0.5, 0.0]], dtype=np.float32))
    )
    changed = decision.changed(decided, loss=[2, 0], momentum=np.array([-1.0, 1.0]))
    assert decided.choices[:, 0].tolist() == [0, 0], "a copy"
    assert {name: values.tolist() for name, values in decision.columns(changed).items()} == {
        "loss": [2, 0],
        "augmentation": [3, 1],
        "rate": [0.0, 0.0],
        "momentum": [-1.0, 1.0],
        "decay": [0.0, 0.0],
    }
    with pytest.raises(ValueError, match="'layer' is not decided here; choices: 'loss', 'augmentation', 'rate'"):
        decision.decide(2, layer=1)
    with pytest.raises(ValueError, match="broadcast"):
        decision.decide(2, loss=[1, 2, 0])
    with pytest.raises(TypeError):
        decision.decide(2, loss=1.5)


def test_flat_decisions() -> None:
    decision = DECISIONS["two choices, three numbers"]
    decided = decision.decide(2, loss=[0, 2], augmentation=[3, 1], rate=0.25, decay=[-1.0, 1.0])
    flat = np.full((2, decision.size), 7.0, dtype=np.float32)
    decision.flatten(decided, flat)
    assert flat.tolist() == [
        [1, 0, 0, 0, 0, 0, 1, 0.25, 0, -1],
        [0, 0, 1, 0, 1, 0, 0, 0.25, 0, 1],
    ]


# -- encodings -------------------------------------------------------------------------------------------------------


@every_encoding
@every_decision
def test_round_trip(name: str, decision: Decision) -> None:
    encoding = make_encoding(name, decision, step_bins=7)
    decided = anything(decision)
    actions = encoding.encode(decided)
    assert batch_space(encoding.space, ROWS).contains(actions)
    found = encoding.decode(actions, decision.all_allowed(ROWS), generators=generators())
    np.testing.assert_array_equal(found.choices, decided.choices)
    assert (str(found.choices.dtype), str(found.numbers.dtype)) == ("int64", "float32")
    np.testing.assert_allclose(found.numbers, decided.numbers, atol=1 / 6 + 1e-6 if "discrete" in name else 0.0)
    assert_equal(encoding.decode(encoding.encode(found), decision.all_allowed(ROWS), generators=generators()), found)


@every_encoding
@every_decision
def test_every_sample_is_an_action_and_takes_what_is_allowed(name: str, decision: Decision) -> None:
    encoding = make_encoding(name, decision, step_bins=3)
    actions, allowed = samples(encoding), some(decision)
    decided = encoding.decode(actions, allowed, generators=generators())
    for options, mask in zip(decided.choices.T, allowed, strict=True):
        assert mask[np.arange(ROWS), options].all()
    assert (np.abs(decided.numbers) <= 1.0).all()
    free = encoding.decode(actions, decision.all_allowed(ROWS), generators=generators())
    np.testing.assert_array_equal(free.numbers, decided.numbers, err_msg="masks are of choices alone")
    for options, wanted, mask in zip(decided.choices.T, free.choices.T, allowed, strict=True):
        kept = mask[np.arange(ROWS), wanted]
        np.testing.assert_array_equal(options[kept], wanted[kept])
        if name != "box":
            np.testing.assert_array_equal(options[~kept], mask[~kept].argmax(axis=1))


@every_encoding
@every_decision
def test_a_batch_equals_its_rows_alone(name: str, decision: Decision) -> None:
    encoding = make_encoding(name, decision, step_bins=3)
    actions, allowed = samples(encoding), some(decision)
    if name == "box":
        actions = np.sign(actions)  # ties in every row
    together = encoding.decode(actions, allowed, generators=generators())
    for row, single in enumerate(iterate(batch_space(encoding.space, ROWS), actions)):
        batch = {key: value[None] for key, value in single.items()} if isinstance(single, dict) else single[None]
        masks = tuple(mask[[row]] for mask in allowed)
        alone = encoding.decode(batch, masks, generators=[np.random.default_rng(row)])
        assert_equal(alone, Decided(together.choices[[row]], together.numbers[[row]]))


@pytest.mark.parametrize("name", ["multidiscrete", "discrete", "hybrid"])
@every_decision
def test_masks_say_what_decoding_takes(name: str, decision: Decision) -> None:
    """An action is allowed by the mask if and only if decoding it does not depend on the mask."""
    encoding = make_encoding(name, decision, step_bins=3)
    allowed, everything = some(decision), decision.all_allowed(ROWS)
    info = encoding.info_mask(allowed, ROWS)
    encoding.space.seed(2)
    for row in range(ROWS):
        one = {key: value[row] for key, value in info.items()} if isinstance(info, dict) else info[row]
        action = encoding.space.sample(mask=encoding.sample_mask(one))
        batch = {key: value[None] for key, value in action.items()} if isinstance(action, dict) else np.array([action])
        masks = tuple(mask[[row]] for mask in allowed)
        found = encoding.decode(batch, masks, generators=generators(1))
        assert_equal(found, encoding.decode(batch, tuple(m[[row]] for m in everything), generators=generators(1)))
    mask = encoding.mask(allowed, ROWS)
    assert mask.dtype == np.bool_
    if name == "discrete":
        assert mask.shape == (ROWS, encoding.space.n)  # type: ignore[attr-defined]
        for number in range(mask.shape[1]):
            actions = np.full(ROWS, number)
            free = encoding.decode(actions, everything, generators=generators())
            kept = encoding.decode(actions, allowed, generators=generators())
            np.testing.assert_array_equal(mask[:, number], (free.choices == kept.choices).all(axis=1))
    else:
        open_bins = 3 * decision.numbers if name == "multidiscrete" else 0
        ones = [np.ones((ROWS, open_bins), dtype=np.bool_)]
        np.testing.assert_array_equal(mask, np.concatenate([*allowed, *ones], axis=1))


def test_digits_of_discrete_actions() -> None:
    encoding = make_encoding("discrete", Decision((2, 3), 1), step_bins=5)
    assert encoding.space == spaces.Discrete(2 * 3 * 5)
    decided = encoding.decode(np.array([0, 4, 5, 29]), encoding.decision.all_allowed(4), generators=generators(4))
    assert decided.choices.tolist() == [[0, 0], [0, 0], [0, 1], [1, 2]]
    assert decided.numbers[:, 0].tolist() == [-1.0, 1.0, -1.0, 1.0]
    with pytest.raises(ValueError, match=r"^action='discrete': \d+ combinations are too many"):
        make_encoding("discrete", Decision((2,), 20), step_bins=13)


def test_discrete_actions_have_more_digits_than_arrays_have_dimensions() -> None:
    encoding = make_encoding("discrete", Decision((3,), 101), step_bins=1)
    decided = encoding.decode(
        np.arange(3), (np.ones((3, 3), dtype=np.bool_),), generators=[np.random.default_rng(0)] * 3
    )
    np.testing.assert_array_equal(encoding.encode(decided), np.arange(3))
    assert decided.numbers.shape == (3, 101)


def test_step_sizes_of_every_position() -> None:
    decision = layer_and_step(3, 2)
    sizes = ("step_size_stem", "step_size_1", "step_size_2", "step_size_head")
    assert decision == Decision((4,), 4, names=("layer", *sizes))
    together = decision.decide(2, layer=1, step_size=[0.25, -0.5])
    np.testing.assert_array_equal(together.numbers, np.repeat([[0.25], [-0.5]], 4, axis=1).astype(np.float32))
    one = decision.changed(together, step_size_1=1.0)
    assert one.numbers[0].tolist() == [0.25, 1.0, 0.25, 0.25]
    for unknown in ("step", "step_size_", "step_size_3", "size"):
        with pytest.raises(ValueError, match=f"^{unknown!r} is not decided here; choices: 'layer', 'step_size_stem'"):
            decision.decide(2, **{unknown: 0.0})
    assert make_encoding("multidiscrete", decision, step_bins=5).space == spaces.MultiDiscrete([4, 5, 5, 5, 5])
    assert make_encoding("discrete", decision, step_bins=5).space == spaces.Discrete(4 * 5**4)
    hybrid = make_encoding("hybrid", decision).space
    assert isinstance(hybrid, spaces.Dict)
    assert set(hybrid) == set(decision.names)
    assert make_encoding("box", decision).space.shape == (8,)
    with pytest.raises(ValueError, match=r"^action='discrete': 334084 combinations are too many.*step_bins=17"):
        make_encoding("discrete", decision, step_bins=17)


def test_spaces_of_another_decision() -> None:
    decision = DECISIONS["two choices, three numbers"]
    box = make_encoding("box", decision).space
    assert isinstance(box, DecisionBox)
    assert box.decision == decision
    assert box == spaces.Box(-1.0, 1.0, (10,), np.float32)
    assert pickle.loads(pickle.dumps(box)).decision == decision
    assert make_encoding("multidiscrete", decision, step_bins=5).space == spaces.MultiDiscrete([3, 4, 5, 5, 5])
    hybrid = make_encoding("hybrid", decision)
    assert isinstance(hybrid.space, spaces.Dict)
    assert set(hybrid.space) == set(decision.names)
    with pytest.raises(ValueError, match="must be a dict of 'loss', 'augmentation', 'rate', 'momentum' and 'decay'"):
        hybrid.decode({"loss": np.zeros(1, int)}, decision.all_allowed(1), generators=generators(1))
    good = hybrid.encode(decision.decide(1))
    for broken, message in (
        ({"momentum": np.array([[np.nan]])}, "'momentum' NaN is no action"),
        ({"augmentation": np.array([4])}, "'augmentation' out of range, choices are 0 to below 4"),
    ):
        with pytest.raises(ValueError, match=message):
            hybrid.decode(good | broken, decision.all_allowed(1), generators=generators(1))


# -- from outside ----------------------------------------------------------------------------------------------------


class Sliders(ActionEncoding):
    """Box(-1, 1, (C + M,)): for each choice a slider over its options, then the numbers."""

    name = "sliders"

    def _make_space(self) -> spaces.Box:
        self.options = np.array(self.decision.choices)
        return spaces.Box(-1.0, 1.0, (len(self.decision.names),), np.float32)

    def decode(self, actions: Any, allowed: Masks, *, generators: Any) -> Decided:
        values = read_numbers(actions, (len(generators), len(self.decision.names)))
        sliders, numbers = np.split(values, [len(self.options)], axis=1)
        intervals = ((sliders + 1.0) / 2.0 * self.options).astype(np.int64)
        return Decided(only_allowed(np.minimum(intervals, self.options - 1), allowed), numbers)

    def encode(self, decided: Decided) -> Any:
        middles = (2.0 * decided.choices + 1.0) / self.options - 1.0
        return np.concatenate([middles, np.clip(decided.numbers, -1.0, 1.0)], axis=1).astype(np.float32)


def test_a_custom_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A custom encoding is a class and an entry of ENCODINGS."""
    monkeypatch.setitem(ENCODINGS, Sliders.name, Sliders)
    env: Any = gym.make("NetBuild-v0", action="sliders", **SMALL).unwrapped
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert "action_mask" not in env.reset(seed=0)[1]
    decided = env.decision.decide(1, layer=2, step_size=-1.0)
    _, _, _, _, info = env.step(env.action_encoding.encode(decided)[0])
    assert (info["layer"], info["step_size"]) == (2, pytest.approx(env.mdp.step_range[0]))
    envs = gym.make_vec("NetBuild-v0", num_envs=3, action="sliders", **SMALL)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    for decision in DECISIONS.values():
        if decision.choices:
            encoding = make_encoding("sliders", decision)
            read = encoding.decode(
                encoding.encode(anything(decision)), decision.all_allowed(ROWS), generators=generators()
            )
            assert_equal(read, anything(decision))

"""Action encodings: what an action means, which are open, and what is no action at all."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from hypothesis import given, settings
from hypothesis import strategies as st

from gym_reml.spaces import ENCODINGS, ActionEncoding, make_encoding

ALL = pytest.mark.parametrize("name", ENCODINGS)


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(seed + row) for row in range(count)]


def everything(count: int, layers: int) -> np.ndarray:
    return np.ones((count, layers + 1), dtype=np.bool_)


def some(count: int, layers: int, seed: int = 0) -> np.ndarray:
    """Random sets of allowed layers; 0 always is."""
    allowed = np.random.default_rng(seed).random((count, layers + 1)) < 0.5
    allowed[:, 0] = True
    return allowed


def stacked(encoding: ActionEncoding, singles: list[Any]) -> Any:
    """Single actions of the space as the batched decoder takes them."""
    if isinstance(encoding.space, spaces.Dict):
        return {key: np.stack([single[key] for single in singles]) for key in encoding.space}
    return np.stack(singles)


def flat(actions: Any) -> list[Any]:
    return [actions[key] for key in sorted(actions)] if isinstance(actions, dict) else [actions]


@ALL
@settings(max_examples=40, deadline=None)
@given(data=st.data(), layers=st.integers(1, 9), bins=st.integers(1, 15))
def test_round_trip(name: str, data: st.DataObject, layers: int, bins: int) -> None:
    encoding = make_encoding(name, layers, bins)
    count = data.draw(st.integers(1, 4))
    chosen = np.array(data.draw(st.lists(st.integers(0, layers), min_size=count, max_size=count)), dtype=np.int64)
    number = st.floats(-1, 1, width=32)
    steps = np.array(data.draw(st.lists(number, min_size=count, max_size=count)), dtype=np.float32)
    actions = encoding.encode(chosen, steps)
    assert batch_space(encoding.space, count).contains(actions)
    decoded, found = encoding.decode(actions, everything(count, layers), generators(count))
    np.testing.assert_array_equal(decoded, chosen)
    assert (str(decoded.dtype), str(found.dtype)) == ("int64", "float32")
    assert decoded.shape == found.shape == (count,)
    half_a_bin = (1.0 / (bins - 1) if bins > 1 else 1.0) if "discrete" in name else 0.0
    assert np.abs(found - steps).max() <= half_a_bin + 1e-6
    # What was decoded is written exactly: encoding again changes nothing more.
    again, same = encoding.decode(encoding.encode(decoded, found), everything(count, layers), generators(count))
    np.testing.assert_array_equal(again, decoded)
    np.testing.assert_array_equal(same, found)


@ALL
def test_steps_out_of_range_are_encoded_as_the_nearest(name: str) -> None:
    encoding = make_encoding(name, 3, 5)
    actions = encoding.encode(np.array([1, 2]), np.array([-7.0, 7.0], dtype=np.float32))
    assert batch_space(encoding.space, 2).contains(actions)
    np.testing.assert_array_equal(encoding.decode(actions, everything(2, 3), generators(2))[1], [-1.0, 1.0])


@ALL
def test_every_sample_of_the_space_is_an_action(name: str) -> None:
    encoding = make_encoding(name, 4, 7)
    encoding.space.seed(0)
    actions = stacked(encoding, [encoding.space.sample() for _ in range(200)])
    layers, steps = encoding.decode(actions, everything(200, 4), generators(200))
    assert set(layers) == set(range(5)), "each layer can be picked"
    assert np.abs(steps).max() <= 1
    assert len(set(steps.tolist())) == (7 if "discrete" in name else 200), "each bin can be picked"


@ALL
def test_a_batch_equals_its_rows_alone(name: str) -> None:
    encoding = make_encoding(name, 4, 7)
    space = batch_space(encoding.space, 20)
    space.seed(3)
    batch, allowed = space.sample(), some(20, 4)
    layers, steps = encoding.decode(batch, allowed, generators(20))
    for row, single in enumerate(iterate(space, batch)):
        alone = encoding.decode(stacked(encoding, [single]), allowed[[row]], generators(1, seed=row))
        assert (alone[0][0], alone[1][0]) == (layers[row], steps[row])
        written = flat(encoding.encode(layers[[row]], steps[[row]]))
        for part, whole in zip(written, flat(encoding.encode(layers, steps)), strict=True):
            np.testing.assert_array_equal(part[0], whole[row])


@ALL
def test_layers_that_are_not_allowed_are_never_picked(name: str) -> None:
    encoding = make_encoding(name, 5, 3)
    space = batch_space(encoding.space, 300)
    space.seed(4)
    allowed = some(300, 5)
    layers, _ = encoding.decode(space.sample(), allowed, generators(300))
    assert allowed[np.arange(300), layers].all()
    full = np.zeros((300, 6), dtype=np.bool_)
    full[:, 0] = True
    assert not encoding.decode(space.sample(), full, generators(300))[0].any()


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name != "box"])
def test_a_forbidden_layer_reads_as_none(name: str) -> None:
    encoding = make_encoding(name, 3, 5)
    allowed = np.array([[True, False, True, True]])
    layers, steps = encoding.decode(encoding.encode(np.array([1]), np.array([0.5], np.float32)), allowed, generators(1))
    assert (layers[0], steps[0]) == (0, 0.5), "the step stays"


def test_box_picks_the_largest_logit_that_is_allowed() -> None:
    actions = np.array([[0.1, 0.9, 0.8, 0.2, -0.3]] * 2, dtype=np.float32)
    allowed = np.array([[True, True, True, True], [True, False, True, True]])
    layers, steps = make_encoding("box", 3, 5).decode(actions, allowed, generators(2))
    assert layers.tolist() == [1, 2]
    np.testing.assert_allclose(steps, -0.3)


def test_ties_are_broken_by_the_rows_own_generator() -> None:
    encoding = make_encoding("box", 3, 5)
    # Clipping makes the tie: 5 and 9 are both 1. Layer 1 is not in it, and 3 is not allowed in the even rows.
    actions = np.tile(np.array([5.0, 0.5, 9.0, 1.0, 0.0], dtype=np.float32), (400, 1))
    allowed = everything(400, 3)
    allowed[::2, 3] = False
    layers, _ = encoding.decode(actions, allowed, generators(400))
    np.testing.assert_allclose(np.bincount(layers[::2], minlength=4) / 200, [1 / 2, 0, 1 / 2, 0], atol=0.12)
    np.testing.assert_allclose(np.bincount(layers[1::2], minlength=4) / 200, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.12)
    np.testing.assert_array_equal(encoding.decode(actions, allowed, generators(400))[0], layers)
    order = np.random.default_rng(0).permutation(400)
    shuffled = [np.random.default_rng(int(row)) for row in order]
    np.testing.assert_array_equal(encoding.decode(actions[order], allowed[order], shuffled)[0], layers[order])


@ALL
def test_generators_are_used_for_ties_alone(name: str) -> None:
    encoding = make_encoding(name, 3, 5)
    own = generators(2)
    actions = encoding.encode(np.array([0, 2]), np.zeros(2, np.float32))
    encoding.decode(actions, everything(2, 3), own)
    assert [rng.random() for rng in own] == [rng.random() for rng in generators(2)]


@pytest.mark.parametrize("name", ["multidiscrete", "discrete"])
def test_masks_agree_with_decoding(name: str) -> None:
    """A choice is open if and only if decoding takes it as it stands, for every choice there is."""
    encoding = make_encoding(name, 3, 4)
    for allowed in some(6, 3)[:, None]:
        (mask,) = encoding.mask(allowed)
        for layer in range(4):
            for number, step in enumerate(encoding.bins()):
                action = encoding.encode(np.array([layer]), np.array([step]))
                decoded = encoding.decode(action, allowed, generators(1))
                assert decoded[1][0] == step
                # MaskablePPO reads a MultiDiscrete mask as one mask a dimension, behind each other.
                choices = [int(action[0])] if name == "discrete" else [layer, 4 + number]
                assert mask[choices].all() == (decoded[0][0] == layer) == allowed[0, layer]


@ALL
def test_mask_shapes(name: str) -> None:
    encoding = make_encoding(name, 3, 4)
    space: Any = encoding.space
    if not isinstance(space, spaces.Box):
        if isinstance(space, spaces.Dict):
            space = space["layer"]
        choices = int(space.n if isinstance(space, spaces.Discrete) else space.nvec.sum())
        mask = encoding.mask(everything(5, 3))
        assert mask.shape == (5, choices)
        assert mask.dtype == np.bool_
        assert mask.all()
    else:
        with pytest.raises(ValueError, match=rf"action='{name}'.*'multidiscrete', 'discrete' and 'hybrid'"):
            encoding.mask(everything(5, 3))


@ALL
@pytest.mark.parametrize("bins", [1, 2, 3, 13])
def test_bins_are_even_and_symmetric(name: str, bins: int) -> None:
    offered = make_encoding(name, 1, bins).bins()
    assert offered.shape == (bins,)
    np.testing.assert_allclose(offered, -offered[::-1], atol=1e-7)
    assert np.abs(offered).max() == (1.0 if bins > 1 else 0.0)
    np.testing.assert_allclose(np.diff(offered), 2 / max(bins - 1, 1), atol=1e-6)


def replaced(actions: Any, change: Any) -> Any:
    """The batch with `change` applied to its (step) array."""
    return actions | {"step_size": change(actions["step_size"])} if isinstance(actions, dict) else change(actions)


BROKEN = {
    "too many rows": lambda array: np.concatenate([array, array]),
    "two dimensions more": lambda array: array[..., None, None],
    "text": lambda array: array.astype(str),
    "complex": lambda array: array.astype(complex),
    "nothing": lambda array: None,
    "ragged": lambda array: [[0, 0], [0]],
}


@ALL
@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_what_is_no_action_is_refused(name: str, change: Any) -> None:
    encoding = make_encoding(name, 3, 4)
    good = encoding.encode(np.array([1, 2]), np.zeros(2, np.float32))
    encoding.decode(good, everything(2, 3), generators(2))
    with pytest.raises(ValueError, match=r"^action"):
        encoding.decode(replaced(good, change), everything(2, 3), generators(2))


@pytest.mark.parametrize("name", ["box", "hybrid"])
def test_numbers(name: str) -> None:
    encoding = make_encoding(name, 3, 4)
    good = encoding.encode(np.array([1]), np.zeros(1, np.float32))

    def changed(value: float) -> Any:
        return replaced(good, lambda array: np.append(array[:, :-1].astype(float), [[value]], axis=1))

    with pytest.raises(ValueError, match=r"action=.*NaN"):
        encoding.decode(changed(np.nan), everything(1, 3), generators(1))
    for far, nearest in ((np.inf, 1.0), (-np.inf, -1.0), (1e300, 1.0), (3, 1.0)):
        layers, steps = encoding.decode(changed(far), everything(1, 3), generators(1))
        assert (layers[0], steps[0]) == (1, nearest)


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name != "box"])
@pytest.mark.parametrize("wrong", [-1, 1000])
def test_choices_out_of_range(name: str, wrong: int) -> None:
    encoding = make_encoding(name, 3, 4)
    actions = encoding.encode(np.array([0, 0]), np.zeros(2, np.float32))
    choices = actions["layer"] if isinstance(actions, dict) else actions
    choices[1] = wrong
    with pytest.raises(ValueError, match=r"(?s)action=.*out of range"):
        encoding.decode(actions, everything(2, 3), generators(2))


@pytest.mark.parametrize("name", ["multidiscrete", "discrete", "hybrid"])
def test_fractions_are_no_choices(name: str) -> None:
    encoding = make_encoding(name, 3, 4)
    actions = encoding.encode(np.array([1]), np.zeros(1, np.float32))
    wrong = actions | {"layer": np.array([1.5])} if isinstance(actions, dict) else actions + 0.5
    with pytest.raises(ValueError, match=r"action=.*integers"):
        encoding.decode(wrong, everything(1, 3), generators(1))


@pytest.mark.parametrize("wrong", [None, np.zeros(2), {}, {"layer": np.zeros(1, int)}, {"layer": 0, "step": 0}])
def test_hybrid_wants_both_parts(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"action=.*'layer' and 'step_size'"):
        make_encoding("hybrid", 3, 4).decode(wrong, everything(1, 3), generators(1))


def test_the_first_and_last_choices_are_in_range() -> None:
    discrete = make_encoding("discrete", 3, 4)
    layers, steps = discrete.decode(np.array([0, 15]), everything(2, 3), generators(2))
    assert (layers.tolist(), steps.tolist()) == ([0, 3], [-1.0, 1.0])
    with pytest.raises(ValueError, match="out of range"):
        discrete.decode(np.array([0, 16]), everything(2, 3), generators(2))
    with pytest.raises(ValueError, match="out of range"):
        make_encoding("multidiscrete", 3, 9).decode(np.array([[4, 0]]), everything(1, 3), generators(1))


@pytest.mark.parametrize("wrong", ["continuous", None, ["box"]])
def test_unknown_encoding(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"action=.*must be one of 'box', 'multidiscrete', 'discrete', 'hybrid'"):
        make_encoding(wrong, 3, 4)


@ALL
def test_encodings_pickle_and_show_themselves(name: str) -> None:
    encoding = make_encoding(name, 3, 4)
    assert encoding.name == name
    copy = pickle.loads(pickle.dumps(encoding))
    assert (repr(copy), copy.space) == (repr(encoding), encoding.space)
    assert "layers=3, step_bins=4" in repr(encoding)

"""Action encodings: decoding, masks, and invalid actions."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from hypothesis import given, settings
from hypothesis import strategies as st

from gym_reml.spaces import ENCODINGS, ActionEncoding, base, layer_and_step, make_encoding

ALL = pytest.mark.parametrize("name", ENCODINGS)


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(seed + row) for row in range(count)]


def everything(count: int, layers: int) -> np.ndarray:
    return np.ones((count, layers + 1), dtype=np.bool_)


def some(count: int, layers: int, seed: int = 0) -> np.ndarray:
    """Random masks of layers; 0 is always allowed."""
    allowed = np.random.default_rng(seed).random((count, layers + 1)) < 0.5
    allowed[:, 0] = True
    return allowed


def layer_encoding(name: Any, layers: int, step_bins: int) -> ActionEncoding:
    return make_encoding(name, layer_and_step(layers), step_bins=step_bins)


def encode(encoding: ActionEncoding, layers: np.ndarray, steps: np.ndarray) -> Any:
    return encoding.encode(encoding.decision.decide(len(layers), layer=layers, step_size=steps))


def decode(
    encoding: ActionEncoding, actions: Any, allowed: np.ndarray, own: list[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    decided = encoding.decode(actions, (allowed,), generators=own)
    return decided.choices[:, 0], decided.numbers[:, 0]


def stacked(encoding: ActionEncoding, singles: list[Any]) -> Any:
    """A list of single actions as one batch."""
    if isinstance(encoding.space, spaces.Dict):
        return {key: np.stack([single[key] for single in singles]) for key in encoding.space}
    return np.stack(singles)


def flat(actions: Any) -> list[Any]:
    return [actions[key] for key in sorted(actions)] if isinstance(actions, dict) else [actions]


@ALL
@settings(max_examples=40, deadline=None)
@given(data=st.data(), layers=st.integers(1, 9), bins=st.integers(1, 15))
def test_round_trip(name: str, data: st.DataObject, layers: int, bins: int) -> None:
    encoding = layer_encoding(name, layers, bins)
    count = data.draw(st.integers(1, 4))
    chosen = np.array(data.draw(st.lists(st.integers(0, layers), min_size=count, max_size=count)), dtype=np.int64)
    number = st.floats(-1, 1, width=32)
    steps = np.array(data.draw(st.lists(number, min_size=count, max_size=count)), dtype=np.float32)
    actions = encode(encoding, chosen, steps)
    assert batch_space(encoding.space, count).contains(actions)
    decoded, found = decode(encoding, actions, everything(count, layers), generators(count))
    np.testing.assert_array_equal(decoded, chosen)
    assert (str(decoded.dtype), str(found.dtype)) == ("int64", "float32")
    assert decoded.shape == found.shape == (count,)
    half_a_bin = (1.0 / (bins - 1) if bins > 1 else 1.0) if "discrete" in name else 0.0
    assert np.abs(found - steps).max() <= half_a_bin + 1e-6
    # What was decoded is written exactly: encoding again changes nothing more.
    again, same = decode(encoding, encode(encoding, decoded, found), everything(count, layers), generators(count))
    np.testing.assert_array_equal(again, decoded)
    np.testing.assert_array_equal(same, found)


@ALL
def test_steps_out_of_range_are_encoded_as_the_nearest(name: str) -> None:
    encoding = layer_encoding(name, 3, 5)
    actions = encode(encoding, np.array([1, 2]), np.array([-7.0, 7.0], dtype=np.float32))
    assert batch_space(encoding.space, 2).contains(actions)
    np.testing.assert_array_equal(decode(encoding, actions, everything(2, 3), generators(2))[1], [-1.0, 1.0])


@ALL
def test_every_sample_of_the_space_is_an_action(name: str) -> None:
    encoding = layer_encoding(name, 4, 7)
    encoding.space.seed(0)
    actions = stacked(encoding, [encoding.space.sample() for _ in range(200)])
    layers, steps = decode(encoding, actions, everything(200, 4), generators(200))
    assert set(layers) == set(range(5)), "each layer can be picked"
    assert np.abs(steps).max() <= 1
    assert len(set(steps.tolist())) == (7 if "discrete" in name else 200), "each bin can be picked"


@ALL
def test_a_batch_equals_its_rows_alone(name: str) -> None:
    encoding = layer_encoding(name, 4, 7)
    space = batch_space(encoding.space, 20)
    space.seed(3)
    batch, allowed = space.sample(), some(20, 4)
    layers, steps = decode(encoding, batch, allowed, generators(20))
    for row, single in enumerate(iterate(space, batch)):
        alone = decode(encoding, stacked(encoding, [single]), allowed[[row]], generators(1, seed=row))
        assert (alone[0][0], alone[1][0]) == (layers[row], steps[row])
        written = flat(encode(encoding, layers[[row]], steps[[row]]))
        for part, whole in zip(written, flat(encode(encoding, layers, steps)), strict=True):
            np.testing.assert_array_equal(part[0], whole[row])


@ALL
def test_layers_that_are_not_allowed_are_never_picked(name: str) -> None:
    encoding = layer_encoding(name, 5, 3)
    space = batch_space(encoding.space, 300)
    space.seed(4)
    allowed = some(300, 5)
    layers, _ = decode(encoding, space.sample(), allowed, generators(300))
    assert allowed[np.arange(300), layers].all()
    full = np.zeros((300, 6), dtype=np.bool_)
    full[:, 0] = True
    assert not decode(encoding, space.sample(), full, generators(300))[0].any()


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name != "box"])
def test_a_forbidden_layer_reads_as_none(name: str) -> None:
    encoding = layer_encoding(name, 3, 5)
    allowed = np.array([[True, False, True, True]])
    layers, steps = decode(
        encoding, encode(encoding, np.array([1]), np.array([0.5], np.float32)), allowed, generators(1)
    )
    assert (layers[0], steps[0]) == (0, 0.5), "the step stays"


def test_box_picks_the_largest_logit_that_is_allowed() -> None:
    actions = np.array([[0.1, 0.9, 0.8, 0.2, -0.3]] * 2, dtype=np.float32)
    allowed = np.array([[True, True, True, True], [True, False, True, True]])
    layers, steps = decode(layer_encoding("box", 3, 5), actions, allowed, generators(2))
    assert layers.tolist() == [1, 2]
    np.testing.assert_allclose(steps, -0.3)


def test_ties_are_broken_by_the_rows_own_generator() -> None:
    encoding = layer_encoding("box", 3, 5)
    # Clipping makes the tie: 5 and 9 are both 1. Layer 1 is not in it, and 3 is not allowed in the even rows.
    actions = np.tile(np.array([5.0, 0.5, 9.0, 1.0, 0.0], dtype=np.float32), (400, 1))
    allowed = everything(400, 3)
    allowed[::2, 3] = False
    layers, _ = decode(encoding, actions, allowed, generators(400))
    np.testing.assert_allclose(np.bincount(layers[::2], minlength=4) / 200, [1 / 2, 0, 1 / 2, 0], atol=0.12)
    np.testing.assert_allclose(np.bincount(layers[1::2], minlength=4) / 200, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.12)
    np.testing.assert_array_equal(decode(encoding, actions, allowed, generators(400))[0], layers)
    order = np.random.default_rng(0).permutation(400)
    shuffled = [np.random.default_rng(int(row)) for row in order]
    np.testing.assert_array_equal(decode(encoding, actions[order], allowed[order], shuffled)[0], layers[order])


@ALL
def test_generators_are_used_for_ties_alone(name: str) -> None:
    encoding = layer_encoding(name, 3, 5)
    own = generators(2)
    actions = encode(encoding, np.array([0, 2]), np.zeros(2, np.float32))
    decode(encoding, actions, everything(2, 3), own)
    assert [rng.random() for rng in own] == [rng.random() for rng in generators(2)]


@pytest.mark.parametrize("name", ["multidiscrete", "discrete"])
def test_masks_agree_with_decoding(name: str) -> None:
    """An action is allowed by the mask if and only if decoding leaves it unchanged."""
    encoding = layer_encoding(name, 3, 4)
    for allowed in some(6, 3)[:, None]:
        (mask,) = encoding.mask((allowed,), 1)
        for layer in range(4):
            for number, step in enumerate(encoding.bins()):
                action = encode(encoding, np.array([layer]), np.array([step]))
                decoded = decode(encoding, action, allowed, generators(1))
                assert decoded[1][0] == step
                # MaskablePPO reads a MultiDiscrete mask as one mask a dimension, behind each other.
                choices = [int(action[0])] if name == "discrete" else [layer, 4 + number]
                assert mask[choices].all() == (decoded[0][0] == layer) == allowed[0, layer]


@ALL
def test_mask_shapes(name: str) -> None:
    encoding = layer_encoding(name, 3, 4)
    space: Any = encoding.space
    if not isinstance(space, spaces.Box):
        if isinstance(space, spaces.Dict):
            space = space["layer"]
        choices = int(space.n if isinstance(space, spaces.Discrete) else space.nvec.sum())
        mask = encoding.mask((everything(5, 3),), 5)
        assert mask.shape == (5, choices)
        assert mask.dtype == np.bool_
        assert mask.all()
    else:
        with pytest.raises(ValueError, match=rf"action='{name}'.*'multidiscrete', 'discrete' and 'hybrid'"):
            encoding.mask((everything(5, 3),), 5)


@ALL
@pytest.mark.parametrize("bins", [1, 2, 3, 13])
def test_bins_are_even_and_symmetric(name: str, bins: int) -> None:
    offered = layer_encoding(name, 1, bins).bins()
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
def test_invalid_actions_are_refused(name: str, change: Any) -> None:
    encoding = layer_encoding(name, 3, 4)
    good = encode(encoding, np.array([1, 2]), np.zeros(2, np.float32))
    decode(encoding, good, everything(2, 3), generators(2))
    with pytest.raises(ValueError, match=r"^action"):
        decode(encoding, replaced(good, change), everything(2, 3), generators(2))


@pytest.mark.parametrize("name", ["box", "hybrid"])
def test_numbers(name: str) -> None:
    encoding = layer_encoding(name, 3, 4)
    good = encode(encoding, np.array([1]), np.zeros(1, np.float32))

    def changed(value: float) -> Any:
        return replaced(good, lambda array: np.append(array[:, :-1].astype(float), [[value]], axis=1))

    with pytest.raises(ValueError, match=r"action=.*NaN"):
        decode(encoding, changed(np.nan), everything(1, 3), generators(1))
    for far, nearest in ((np.inf, 1.0), (-np.inf, -1.0), (1e300, 1.0), (3, 1.0)):
        layers, steps = decode(encoding, changed(far), everything(1, 3), generators(1))
        assert (layers[0], steps[0]) == (1, nearest)


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name != "box"])
@pytest.mark.parametrize("wrong", [-1, 1000])
def test_choices_out_of_range(name: str, wrong: int) -> None:
    encoding = layer_encoding(name, 3, 4)
    actions = encode(encoding, np.array([0, 0]), np.zeros(2, np.float32))
    choices = actions["layer"] if isinstance(actions, dict) else actions
    choices[1] = wrong
    with pytest.raises(ValueError, match=r"(?s)action=.*out of range"):
        decode(encoding, actions, everything(2, 3), generators(2))


@pytest.mark.parametrize("name", ["multidiscrete", "discrete", "hybrid"])
def test_fractions_are_no_choices(name: str) -> None:
    encoding = layer_encoding(name, 3, 4)
    actions = encode(encoding, np.array([1]), np.zeros(1, np.float32))
    wrong = actions | {"layer": np.array([1.5])} if isinstance(actions, dict) else actions + 0.5
    with pytest.raises(ValueError, match=r"action=.*integers"):
        decode(encoding, wrong, everything(1, 3), generators(1))


@pytest.mark.parametrize("wrong", [None, np.zeros(2), {}, {"layer": np.zeros(1, int)}, {"layer": 0, "step": 0}])
def test_hybrid_wants_both_parts(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"action=.*'layer' and 'step_size'"):
        decode(layer_encoding("hybrid", 3, 4), wrong, everything(1, 3), generators(1))


def test_the_first_and_last_choices_are_in_range() -> None:
    discrete = layer_encoding("discrete", 3, 4)
    layers, steps = decode(discrete, np.array([0, 15]), everything(2, 3), generators(2))
    assert (layers.tolist(), steps.tolist()) == ([0, 3], [-1.0, 1.0])
    with pytest.raises(ValueError, match="out of range"):
        decode(discrete, np.array([0, 16]), everything(2, 3), generators(2))
    with pytest.raises(ValueError, match="out of range"):
        decode(layer_encoding("multidiscrete", 3, 9), np.array([[4, 0]]), everything(1, 3), generators(1))


@pytest.mark.parametrize("wrong", ["continuous", None, ["box"]])
def test_unknown_encoding(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"action=.*must be one of 'box', 'multidiscrete', 'discrete', 'hybrid'"):
        layer_encoding(wrong, 3, 4)


@ALL
def test_encodings_pickle_and_show_themselves(name: str) -> None:
    encoding = layer_encoding(name, 3, 4)
    assert encoding.name == name
    copy = pickle.loads(pickle.dumps(encoding))
    assert (repr(copy), copy.space) == (repr(encoding), encoding.space)
    assert f"{layer_and_step(3)}, step_bins=4" in repr(encoding)


# -- tensors ---------------------------------------------------------------------------------------------------------


def as_tensors(actions: Any) -> Any:
    if isinstance(actions, dict):
        return {name: torch.from_numpy(part) for name, part in actions.items()}
    return torch.from_numpy(actions)


@pytest.mark.parametrize("shared", [("cpu",), ()], ids=["cpu", "accelerator"])
@ALL
def test_tensors_are_decoded_as_arrays(name: str, shared: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """With ties, which are broken by the same random numbers, and masks."""
    monkeypatch.setattr(base, "SHARED", shared)
    encoding, count = layer_encoding(name, 5, 4), 64
    batch = batch_space(encoding.space, count)
    batch.seed(0)
    actions = batch.sample()
    if name == "box":
        actions[::2, :-1] = np.where(actions[::2, :-1] > 0, 2.0, -2.0)
    for allowed in (everything(count, 5), some(count, 5)):
        arrays = decode(encoding, actions, allowed, generators(count))
        tensors = decode(encoding, as_tensors(actions), allowed, generators(count))
        for one, other in zip(tensors, arrays, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "actions", "message"),
    [
        ("box", torch.full((2, 4), torch.nan), "NaN is no action"),
        ("box", torch.zeros(2, 5), r"has shape \(2, 5\), must have \(2, 4\)"),
        ("multidiscrete", torch.zeros(2, 2), "must be integers, found float32"),
        ("discrete", torch.tensor([0, 99]), "out of range"),
        ("hybrid", {"layer": torch.zeros(2, dtype=torch.int64)}, "must be a dict of 'layer' and 'step_size'"),
    ],
)
def test_wrong_tensors_are_refused_as_arrays_are(
    name: str, actions: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SHARED", ())
    with pytest.raises(ValueError, match=message):
        decode(layer_encoding(name, 2, 4), actions, everything(2, 2), generators(2))


def test_half_precision_and_gradients_are_read() -> None:
    box, bins = layer_encoding("box", 2, 4), layer_encoding("hybrid", 2, 4)
    actions = torch.tensor([[0.5, 1.0, -1.0, 0.25]], dtype=torch.bfloat16, requires_grad=True)
    for layers, numbers in (
        decode(box, actions, everything(1, 2), generators(1)),
        decode(bins, {"layer": torch.tensor([1]), "step_size": actions[:, 3]}, everything(1, 2), generators(1)),
    ):
        assert (layers.tolist(), numbers.tolist()) == ([1], [0.25])

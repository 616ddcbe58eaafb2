"""The registry of families, mixtures, users' arrays and formulas, and batches of data."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.tasks import FAMILIES, SPLITS, Batch, TaskFamily, from_arrays, from_classes, from_function, make_family
from gym_reml.tasks.custom import ArrayClassification, ArrayRegression
from gym_reml.tasks.functions.base import Regression1d
from gym_reml.tasks.functions.sinusoid import Sinusoid
from gym_reml.tasks.mixture import Mixture
from gym_reml.tasks.policies.base import PolicyFamily
from gym_reml.tasks.supervised import Classification, Regression
from tests.support.drawing import draw

Array = NDArray[np.float64]


# -- the registry --------------------------------------------------------------------------------------------------


def test_registry() -> None:
    assert all(kind.name == name for name, kind in FAMILIES.items())
    assert {"sinusoid", "linear", "quadratic", "step", "sawtooth", "mixture", "omniglot"} <= set(FAMILIES)
    assert {"navigation", "half_cheetah_direction", "half_cheetah_velocity", "ant_direction"} <= set(FAMILIES)
    assert all(issubclass(kind, Regression | Classification | Mixture | PolicyFamily) for kind in FAMILIES.values())
    assert all(kind.fixed_data != issubclass(kind, PolicyFamily) for kind in FAMILIES.values())


@pytest.mark.parametrize("wrong", ["cosine", None, 3, Sinusoid])
def test_unknown_family(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"(?s)^family=.*must be one of 'sinusoid', .*, or a TaskFamily"):
        make_family(wrong)


# -- mixtures ------------------------------------------------------------------------------------------------------


def test_columns_of_absent_members_exist() -> None:
    """Tasks have the same columns whichever member was drawn, so that rows can be exchanged."""
    family = make_family("mixture", members=["sinusoid", "quadratic"])
    singles = [draw(family, 1, seed=seed)[0] for seed in range(8)]
    assert {int(tasks["member"][0]) for tasks in singles} == {0, 1}
    shapes = [{name: (values.shape, values.dtype) for name, values in tasks.items()} for tasks in singles]
    assert all(shape == shapes[0] for shape in shapes)


def test_a_mixture_of_one_and_a_mixture_of_mixtures() -> None:
    alone = make_family("mixture", members=["linear"])
    nested = make_family("mixture", members=[alone, {"name": "mixture", "members": ["step", "sawtooth"]}])
    tasks, support, _ = draw(nested, 40)
    assert {nested.describe(tasks, row)["family"] for row in range(40)} == {"linear", "step", "sawtooth"}
    assert support.inputs.shape == (40, 5, 1)


def test_members_follow_the_mixture() -> None:
    family = make_family("mixture", members=[make_family("sinusoid", shots=9, split="test")], shots=2)
    for changed in (family, family.replace(split="validation", shots=7)):
        (member,) = changed.members  # type: ignore[attr-defined]
        assert (member.shots, member.queries, member.split) == (changed.shots, changed.queries, changed.split)


def classes(**arguments: Any) -> TaskFamily:
    return from_arrays(np.zeros((3, 60, 1)), np.tile(np.arange(60) % 2, (3, 1)), **arguments)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], r"members=\(\): a mixture needs at least one family"),
        ("sinusoid", r"members='sinusoid': must be a list"),
        (["sinusoid", "cosine"], r"family='cosine': must be one of"),
        ([{"shots": 3}], r"family=None: must be one of"),
        ([{"name": "linear", "slope": 1}], r"'linear' takes no 'slope'"),
        (["sinusoid", classes()], r"members: 'sinusoid' and 'array-classification' differ in out_features \(1 and 2\)"),
        (["linear", from_arrays(np.zeros((3, 60, 1)), np.zeros((3, 60, 1)))], r"members: .* differ in signal_size"),
    ],
)
def test_members_that_do_not_go_together(members: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_family("mixture", members=members)


def test_members_with_other_losses() -> None:
    class Absolute(Regression1d):
        ranges = {"level": (0.0, 1.0)}
        name = "absolute"

        @staticmethod
        def function(x: Array, parameters: dict[str, Any]) -> Array:
            return 0 * x + parameters["level"]

        def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
            return (outputs - batch.targets).abs().mean(dim=(1, 2))

    with pytest.raises(ValueError, match=r"members: 'linear' and 'absolute' have different losses"):
        make_family("mixture", members=["linear", Absolute()])


# -- the user's own arrays -----------------------------------------------------------------------------------------


def arrays(tasks: int = 10, points: int = 80, outputs: int = 2) -> tuple[Array, Array]:
    """Inputs that name their task and point, and targets that follow from them."""
    numbers = np.arange(tasks * points, dtype=float).reshape(tasks, points)
    x = np.stack([numbers, numbers % 7, -numbers], axis=2)
    return x, np.stack([numbers * (column + 1) for column in range(outputs)], axis=2)


def test_arrays_for_regression() -> None:
    x, y = arrays()
    family = from_arrays(x, y, shots=10, queries=30)
    assert isinstance(family, ArrayRegression)
    assert (family.in_features, family.out_features) == (3, 2)
    tasks, support, query = draw(family, 50)
    for row in range(50):
        number = family.describe(tasks, row)["task"]
        for batch in (support, query):
            points = batch.inputs[row, :, 0].long()
            assert (points // 80 == number).all(), "points of the task and of no other"
            assert len(set(points.tolist())) == len(points), "no point twice"
            torch.testing.assert_close(batch.targets[row], torch.stack([points * 1.0, points * 2.0], dim=1))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_arrays_for_classification(dtype: type) -> None:
    x = arrays()[0]
    family = from_arrays(x.tolist(), (np.arange(800).reshape(10, 80) % 4).astype(dtype), shots=10, queries=30)
    assert isinstance(family, ArrayClassification)
    assert family.out_features == 4
    _, support, query = draw(family, 5)
    for batch in (support, query):
        assert batch.targets.dtype == torch.int64
        assert torch.equal(batch.targets, batch.inputs[..., 0].long() % 4)


@pytest.mark.parametrize("tasks", [3, 4, 7, 10, 100])
def test_tasks_of_arrays_are_split_disjointly(tasks: int) -> None:
    x, y = arrays(tasks, points=3)
    shares = {}
    for split in SPLITS:
        family = from_arrays(x, y, shots=1, queries=2, split=split)
        shares[split] = set(draw(family, 40 * tasks)[0]["task"].tolist())
    assert sorted(number for share in shares.values() for number in share) == list(range(tasks)), "each in one split"
    if tasks >= 10:
        assert [len(share) / tasks for share in shares.values()] == [0.6, 0.2, 0.2]


def test_all_points_may_be_used() -> None:
    x, y = arrays(points=12)
    _, support, query = draw(from_arrays(x, y, shots=5, queries=7), 3)
    numbers = torch.cat([support.inputs, query.inputs], dim=1)[..., 0].long() % 12
    assert (numbers.sort(dim=1).values == torch.arange(12)).all()
    with pytest.raises(ValueError, match=r"shots=6, queries=7: together more than the 12 points of a task"):
        from_arrays(x, y, shots=6, queries=7)


X, Y = arrays()
LABELS = np.zeros((10, 80), dtype=int)


def changed(values: NDArray[Any], value: float) -> NDArray[Any]:
    return np.where(np.arange(values.size).reshape(values.shape) == 5, value, values)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (changed(X, np.nan), Y, r"^x: must be finite"),
        (X, changed(Y, np.inf), r"^y: must be finite"),
        (changed(X, 1e300), Y, r"^x: must be finite, as float32"),
        (X, changed(Y, 1e300), r"^y: must be finite, as float32"),
        (X, changed(LABELS, -1).astype(int), r"^y: classes must not be negative, found -1"),
        (X, LABELS * 0.5, r"^y \(10, 80\) float64: must be \(tasks, points, out_features\) numbers, or"),
        (X[..., 0], Y, r"^x \(10, 80\), y .*: must be"),
        (X, Y[:9], r"^x \(10, 80, 3\), y \(9, 80, 2\): must be"),
        (X, Y[:, :79], r"must be \(tasks, points, in_features\)"),
        (X, LABELS[:, :79], r"must be \(tasks, points, in_features\)"),
        (X[:2], Y[:2], r"^x holds 2 tasks: at least 3"),
        (X[:0], Y[:0], r"^x holds 0 tasks: at least 3"),
        (X[:0], LABELS[:0], r"^x holds 0 tasks: at least 3"),
        (X[..., :0], Y, r"must be \(tasks, points, in_features\)"),
        (X[:, :50], Y[:, :50], r"^shots=5, queries=50: together more than the 50 points"),
        ([["a"]], Y, r"^x: must be an array of numbers"),
        (X, [["a"], ["b"]], r"^y .*must be"),
        (X, [1, [2]], r"^y: must be an array"),
    ],
)
def test_bad_arrays(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays(x, y)


def test_unknown_argument_of_arrays() -> None:
    with pytest.raises(TypeError, match="ways"):
        from_arrays(X, Y, ways=3)


# -- the user's own formula ----------------------------------------------------------------------------------------


def wave(x: Array, height: Array, speed: Array) -> Array:
    return height * np.cos(speed * x)


def test_a_formula() -> None:
    family = from_function(wave, {"height": (1.0, 2.0), "speed": (0.5, 0.5)}, shots=3, split="test")
    family = pickle.loads(pickle.dumps(family)).replace(queries=9)
    tasks, support, query = draw(family, 50)
    assert (family.shots, family.queries, family.split, support.inputs.shape) == (3, 9, "test", (50, 3, 1))
    assert tasks["height"].min() >= 1
    assert tasks["height"].max() <= 2
    assert (tasks["speed"] == 0.5).all()
    height = torch.from_numpy(tasks["height"][:, None, None]).float()
    torch.testing.assert_close(query.targets, height * torch.cos(query.inputs / 2), rtol=1e-4, atol=1e-5)
    assert family.describe(tasks, 1) == {"family": "formula", "height": tasks["height"][1], "speed": 0.5}


def test_a_formula_without_x_is_a_constant() -> None:
    family = from_function(lambda x, level: level, {"level": (-3, 3)})
    tasks, support, _ = draw(family, 5)
    expected = torch.from_numpy(tasks["level"]).float()
    assert torch.equal(support.targets, expected[:, None, None].expand(5, 5, 1))


@pytest.mark.parametrize(
    ("formula", "parameters", "message"),
    [
        (wave, {"height": (2, 1), "speed": (0, 1)}, r"parameters\['height'\]=\(2, 1\): must be .*low <= high"),
        (wave, {"height": (0, np.inf)}, r"parameters\['height'\]=.*finite"),
        (wave, {"height": (np.nan, 1)}, r"parameters\['height'\]=.*finite"),
        (wave, {"height": (0, 1, 2)}, r"parameters\['height'\]=\(0, 1, 2\)"),
        (wave, {"height": 3}, r"parameters\['height'\]=3"),
        (wave, {"height": ("a", "b")}, r"parameters\['height'\]="),
        (wave, {}, r"parameters=\{\}: must name at least one"),
        (wave, [("height", (0, 1))], r"parameters=\[.*must name"),
        ("wave", {"height": (0, 1)}, r"formula='wave': must be callable"),
    ],
)
def test_bad_formulas(formula: Any, parameters: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_function(formula, parameters)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda x, a: np.log(x * 0 - 1), "not finite"),
        (lambda x, a: x[:, :2], "shape"),
        (lambda x, a: a[:, 0], "shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_formulas_that_give_nonsense(formula: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^formula: returned .*{message}|^formula: returned {message}"):
        draw(from_function(formula, {"a": (0, 1)}, shots=5), 5)


# -- whose memory it is --------------------------------------------------------------------------------------------


def shared(kind: str, dtype: type) -> tuple[Any, list[Any]]:
    """A family, and the caller's arrays that it was made of."""
    x: Array = np.random.default_rng(0).normal(size=(9, 40, 3)).astype(dtype)
    labels = np.arange(360).reshape(9, 40) % 3
    if kind == "regression":
        targets = x.copy()
        return from_arrays(x, targets, shots=5, queries=5), [x, targets]
    if kind == "classification":
        return from_arrays(x, labels, shots=5, queries=5), [x, labels]
    if kind == "replaced":
        fresh = x.copy()
        return from_arrays(x, x, shots=5, queries=5).replace(x=fresh), [x, fresh]
    numbers = np.arange(360) % 20
    if kind == "features":
        features = x.reshape(360, 3)
        return from_classes(features, numbers, ways=3, queries=3), [features, numbers]
    images: Array = (x.reshape(360, 1, 3) * 50 % 255).astype(np.uint8 if kind == "images" else dtype)
    return from_classes(images, numbers, ways=3, queries=3), [images, numbers]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["regression", "classification", "replaced", "features", "images", "float images"])
def test_families_own_their_arrays(kind: str, dtype: type) -> None:
    """Later changes of the caller's arrays do not change tasks, and the copies are read-only."""
    family, own = shared(kind, dtype)
    before = draw(family, 20)[1:]
    for array in own:
        array += 1
        array *= 7
    for one, other in zip(before, draw(family, 20)[1:], strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
    other_split = family.replace(split="test")
    for name in ("x", "y") if hasattr(family, "x") else ("examples", "labels"):
        with pytest.raises(ValueError, match="WRITEABLE"):
            getattr(family, name).setflags(write=True)
        assert np.shares_memory(getattr(family, name), getattr(other_split, name)), "one copy for all splits"


def test_families_own_their_ranges_members_and_classes() -> None:
    ranges: dict[str, Any] = {"height": [1.0, 2.0]}
    members: list[TaskFamily | str] = ["sinusoid", "linear"]
    bounds = [1.0, 2.0]
    classes: dict[str, Any] = {"train": [0, 1, 2], "test": [3, 4]}
    families: list[TaskFamily] = [
        from_function(lambda x, height: height * x, ranges),
        make_family("mixture", members=members),
        Mixture(members=[make_family("sinusoid"), make_family("linear")]),  # type: ignore[arg-type]
        make_family("sinusoid", amplitude=bounds),
        from_classes(np.arange(50.0)[:, None], np.arange(50) % 5, ways=2, queries=2, classes=classes),
    ]
    before = [draw(family, 9)[1] for family in families]
    ranges["height"][0] = 0.0
    ranges["more"] = (0, 1)
    members.clear()
    bounds[0] = 0.0
    classes["train"].append(3)
    for family, batch in zip(families, before, strict=True):
        for same in (family, family.replace()):
            assert torch.equal(draw(same, 9)[1].inputs, batch.inputs)
            assert torch.equal(draw(same, 9)[1].targets, batch.targets)


def test_formulas_that_write_to_what_they_are_given_move_neither_inputs_nor_tasks() -> None:
    def rude(x: Array, height: Array) -> Array:
        x *= height
        height += 1.0
        return x

    rude_tasks, rude_support, _ = draw(from_function(rude, {"height": (1, 2)}), 5)
    tasks, support, _ = draw(from_function(lambda x, height: x * height, {"height": (1, 2)}), 5)
    np.testing.assert_array_equal(rude_tasks["height"], tasks["height"])
    assert torch.equal(rude_support.inputs, support.inputs)
    assert torch.equal(rude_support.targets, support.targets)


# -- classes or numbers --------------------------------------------------------------------------------------------

KINDS = np.arange(800).reshape(10, 80) % 3
ONE_HOT = np.eye(3)[KINDS]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        *[(KINDS.astype(dtype)[..., None], r".*class numbers.*y\[\.\.\., 0\]") for dtype in (int, np.uint8, bool)],
        (ONE_HOT.astype(int), r".*class numbers.*y\.argmax\(axis=2\)"),
        (Y.astype(int), r".*for regression give floats, y\.astype\(float\)"),
        (KINDS.astype(str), r".*must be numbers; np\.unique\(y, return_inverse=True\)"),
        (KINDS.astype(object), r".*must be numbers; np\.unique"),
        (KINDS * 10**6, r": classes are numbered from 0, found 2000000 among 800 labels; np\.unique"),
    ],
)
def test_targets_that_may_be_either_are_refused(targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^y{message}"):
        from_arrays(X, targets, shots=5, queries=5)


@pytest.mark.parametrize("targets", [KINDS[..., None] * 1.0, (KINDS > 1)[..., None].astype(np.float32), ONE_HOT])
def test_floats_that_look_like_classes_are_regression_with_a_warning(targets: Any) -> None:
    with pytest.warns(UserWarning, match=r"^y: floats are targets of a regression, but these look like class numbers"):
        assert isinstance(from_arrays(X, targets, shots=5, queries=5), ArrayRegression)


@pytest.mark.parametrize("targets", [Y, Y[..., :1], KINDS[..., None] + 0.5, 0 * Y, -1.0 - KINDS[..., None]])
def test_other_floats_are_regression_without_one(targets: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(from_arrays(X, targets, shots=5, queries=5), ArrayRegression)


def test_true_and_false_are_two_classes() -> None:
    family = from_arrays(X, KINDS > 1, shots=5, queries=5)
    assert isinstance(family, ArrayClassification)
    assert family.out_features == 2


# -- standardising -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_arrays_are_standardised_by_the_training_tasks_alone(split: str) -> None:
    generator = np.random.default_rng(0)
    x, y = 300 + 7 * generator.normal(size=(10, 80, 3)), 500 + 90 * generator.normal(size=(10, 80, 2))
    x[..., 2] = 4.0
    family = from_arrays(x, y, shots=10, queries=30, standardise=True, split=split)
    assert isinstance(family, ArrayRegression)
    train = family.replace(split="train").members
    for values, given, varies in ((family.x, x, [True, True, False]), (family.y, y, [True, True])):
        np.testing.assert_allclose(values[train].mean(axis=(0, 1)), 0, atol=1e-5)
        np.testing.assert_allclose(values[train].std(axis=(0, 1)), varies, atol=1e-5)
        deviation = np.where(varies, given[train].std(axis=(0, 1)), 1)
        np.testing.assert_allclose(values, (given - given[train].mean(axis=(0, 1))) / deviation, atol=1e-4)
    classes = from_arrays(x, KINDS, shots=5, queries=5, standardise=True)
    np.testing.assert_array_equal(classes.y, KINDS)
    np.testing.assert_array_equal(classes.x, family.x)


@pytest.mark.parametrize("split", SPLITS)
def test_formulas_are_standardised_by_the_training_tasks_alone(split: str) -> None:
    def high(x: Array, height: Array) -> Array:
        return 400 + height * np.sin(x)

    plain, scaled = (
        from_function(high, {"height": (50, 100)}, standardise=wanted, split=split) for wanted in (False, True)
    )
    before, after = (draw(family, 2000)[2].targets.double() for family in (plain, scaled))
    assert abs(after.mean()) < 0.05
    assert abs(after.std() - 1) < 0.05
    shift, scale = scaled.__dict__["_scale"]
    torch.testing.assert_close(after, (before - shift) / scale, atol=1e-4, rtol=0)
    assert (shift, scale) == from_function(high, {"height": (50, 100)}, standardise=True).__dict__["_scale"]
    curve = scaled.curve(draw(scaled, 1)[0], 0)
    assert curve is not None
    assert np.abs(curve[1]).max() < 3
    flat = from_function(lambda x, level: 0 * x + 3, {"level": (0, 1)}, standardise=True)
    rounded = from_function(lambda x, level: np.full_like(x, 1e6 + 0.1), {"level": (0, 1)}, standardise=True)
    assert rounded.__dict__["_scale"][1] == 1.0, "not the deviation of rounding"
    assert not draw(flat, 2)[1].targets.any()
    with pytest.raises(ValueError, match=r"^standardise='yes': must be true or false"):
        from_function(high, {"height": (0, 1)}, standardise="yes")


# -- batches -------------------------------------------------------------------------------------------------------


def batch(rows: int, start: int = 0) -> Batch:
    numbers = torch.arange(start, start + rows, dtype=torch.float32)
    return Batch(numbers.reshape(-1, 1, 1).expand(-1, 2, 3).clone(), numbers.repeat(2, 1).T.long(), {"e": -numbers})


def ids(whole: Batch) -> list[float]:
    """The rows' numbers, after checking that all tensors agree on them."""
    numbers = whole.inputs[:, 0, 0]
    assert torch.equal(whole.inputs, numbers.reshape(-1, 1, 1).expand_as(whole.inputs))
    assert torch.equal(whole.targets, numbers.long().repeat(2, 1).T)
    assert torch.equal(whole.extras["e"], -numbers)
    return numbers.tolist()


def test_rows_assign_and_concatenate() -> None:
    first = batch(4)
    part = first.rows(torch.tensor([3, 1, 1]))
    assert ids(part) == [3, 1, 1]
    assert ids(first.rows(torch.tensor([True, False, False, True]))) == [0, 3]
    part.inputs[:] = 9
    assert ids(first) == [0, 1, 2, 3], "a copy"
    inputs = first.inputs
    first.assign(torch.tensor([2, 0]), batch(2, start=10))
    assert ids(first) == [11, 1, 10, 3]
    assert first.inputs is inputs, "in place"
    assert ids(Batch.concatenate([first, batch(1, start=7), batch(2)])) == [11, 1, 10, 3, 7, 0, 1]
    doubled = first.map(lambda tensor: tensor * 2)
    assert ids(doubled) == [22, 2, 20, 6]

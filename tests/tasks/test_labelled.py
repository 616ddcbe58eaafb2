"""N-way K-shot tasks of the user's own labelled examples."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gym_reml.tasks import SPLITS, from_classes
from gym_reml.tasks.images.classes import ClassFamily
from gym_reml.tasks.images.labelled import LabelledClasses
from tests.support.drawing import draw

Array = NDArray[Any]
NAMES = np.array([f"kind {number}" for number in range(20)])
SIZES = 9 + np.arange(20) % 4
"""Examples of each class: not equally many."""


def data(seed: int = 0) -> tuple[Array, Array]:
    """Features (class, number within it), in mixed order, and the classes' names."""
    numbers = np.repeat(np.arange(20), SIZES)
    within = np.concatenate([np.arange(size) for size in SIZES])
    order = np.random.default_rng(seed).permutation(len(numbers))
    return np.stack([numbers, within], axis=1)[order].astype(float), NAMES[numbers[order]]


@pytest.mark.parametrize("kind", ["features", "grey", "colour", "floats"])
@pytest.mark.parametrize("split", SPLITS)
def test_every_task_has_as_many_of_each_class_and_no_example_twice(kind: str, split: str) -> None:
    features, labels = data()
    shapes = {"features": (2,), "grey": (5, 8), "colour": (9, 7, 3), "floats": (30, 28)}
    examples = features
    if kind != "features":
        examples = np.zeros((len(features), *shapes[kind]), np.float32 if kind == "floats" else np.uint8)
        # Which class and which example it is stands in the first two pixels of the last row.
        examples.reshape(len(features), -1)[:, -2:] = features
    family = from_classes(examples, labels, ways=3, shots=2, queries=9, split=split)
    assert isinstance(family, ClassFamily)
    assert (family.in_features, family.out_features) == (int(np.prod(shapes[kind])), 3)
    assert family.image_shape == (shapes[kind] if kind in ("grey", "floats") else None)
    tasks, support, query = draw(family, 60)
    scale = 255 if kind in ("grey", "colour") else 1
    seen = []
    for batch, each in ((support, 2), (query, 3)):
        assert batch.inputs.dtype == torch.float32
        assert torch.equal(batch.targets, torch.arange(3).repeat_interleave(each).repeat(60, 1))
        inputs = batch.inputs.numpy()
        if kind == "colour":
            inputs = inputs.reshape(60, -1, *family.input_shape).transpose(0, 1, 3, 4, 2).reshape(60, 3 * each, -1)
        seen.append(np.rint(inputs[..., -2:] * scale).astype(int).reshape(60, 3, each, 2))
    for row in range(60):
        words = family.describe(tasks, row)
        assert words["family"] == "labelled-classes"
        for way in range(3):
            points = np.concatenate([part[row, way] for part in seen])
            assert {NAMES[number] for number in points[:, 0]} == {words["classes"][way]}
            assert len({tuple(point) for point in points}) == 5
        assert len(set(words["classes"])) == 3


def test_splits_have_no_class_in_common_and_are_fixed() -> None:
    family = from_classes(*data(), ways=3)
    assert family.classes is not None
    assert [len(family.classes[split]) for split in SPLITS] == [12, 4, 4]
    assert sorted(name for split in SPLITS for name in family.classes[split]) == sorted(NAMES)
    # Pinned: a split that moves between versions would let pools be tested on what they were trained on.
    assert family.classes["test"] == ("kind 0", "kind 1", "kind 11", "kind 17")
    assert from_classes(*data(seed=1), ways=3).classes == family.classes
    for split in SPLITS:
        tasks, support, _ = draw(family.replace(split=split), 100)
        drawn = {NAMES[int(number)] for number in support.inputs[..., 0].ravel()}
        assert drawn == set(family.classes[split])
        assert tasks["class"].max() == len(drawn) - 1


def test_families_made_of_one_keep_its_splits() -> None:
    family = from_classes(*data(), ways=6, shots=1, queries=6)
    assert family.classes is not None
    assert [len(family.classes[split]) for split in SPLITS] == [8, 6, 6], "at least `ways`"
    fewer = family.replace(ways=2, queries=4, split="test")
    assert fewer.classes == family.classes
    assert pickle.loads(pickle.dumps(fewer)).classes == family.classes
    assert fewer.classes != from_classes(*data(), ways=2).classes


def test_splits_of_ones_own() -> None:
    given: dict[str, Any] = {"train": NAMES[:10], "test": list(NAMES[10:13])}
    family = from_classes(*data(), ways=3, classes=given, split="test")
    assert {name for row in range(30) for name in family.describe(draw(family, 30)[0], row)["classes"]} == set(
        NAMES[10:13]
    )
    with pytest.raises(ValueError, match=r"^ways=3: the 'validation' split has 0 classes"):
        family.replace(split="validation")


def test_integers_columns_lists_and_data_frames_are_labels_too() -> None:
    features, labels = data()
    numbers = np.searchsorted(np.sort(NAMES), labels)
    for given in (numbers, numbers.astype(np.uint8), numbers[:, None], numbers.tolist()):
        family = from_classes(features, given, ways=3)
        assert isinstance(family.describe(draw(family, 1)[0], 0)["classes"][0], int)
    for text in (labels.tolist(), labels.astype(object), labels[:, None]):
        assert from_classes(features, text, ways=3).fingerprint == from_classes(features, labels, ways=3).fingerprint


def test_queries_left_out_are_as_many_as_there_are() -> None:
    assert from_classes(*data(), ways=3, shots=2).queries == 3 * 7
    features, labels = np.zeros((15 * 30, 2)), np.arange(15 * 30) % 15
    assert from_classes(features, labels, ways=5).queries == 5 * 15


def test_larger_tasks_extend_smaller_ones_and_rows_are_their_own() -> None:
    small, large = (from_classes(*data(), ways=3, shots=s, queries=q) for s, q in ((1, 6), (4, 9)))
    for name, count in (("support", 1), ("query", 2)):
        np.testing.assert_array_equal(draw(small, 5)[0][name], draw(large, 5)[0][name][..., :count])
    whole = draw(large, 5, seed=3)
    for row in range(5):
        alone = draw(large, 1, seed=3 + row)
        assert torch.equal(alone[1].inputs[0], whole[1].inputs[row])


def test_the_signal_of_images_is_the_mean_image_and_its_roughness() -> None:
    images = np.random.default_rng(0).integers(0, 256, (180, 14, 21, 3), dtype=np.uint8)
    for given, scale in ((images, 255), (images.astype(np.float32), 1)):
        family = from_classes(given, np.arange(180) % 18, ways=3, shots=2, queries=3)
        _, support, _ = draw(family, 4)
        signal = family.support_signal(torch.zeros(4, 6, 3), support)
        assert signal.shape == (4, family.signal_size) == (4, 50)
        pixels = support.inputs.reshape(4, 6, 3, 14, 21).movedim(2, 4)
        shown = pixels.mean(dim=4)
        patches = torch.nn.functional.avg_pool2d(shown.mean(dim=1), (2, 3)).flatten(1)
        torch.testing.assert_close(signal[:, :49], patches)
        down, across = pixels.diff(dim=2).abs(), pixels.diff(dim=3).abs()
        rough = (down.sum(dim=(1, 2, 3, 4)) + across.sum(dim=(1, 2, 3, 4))) / (down[0].numel() + across[0].numel())
        torch.testing.assert_close(signal[:, 49], rough, rtol=1e-4, atol=1e-5 * 255 / scale)
    assert draw(from_classes(*data(), ways=3), 2)[1].extras == {}


def test_a_task_that_is_asked_for() -> None:
    family = from_classes(*data(), ways=3, shots=2, queries=9)
    env = gym.make("NetBuild-v0", family=family, width=6, layers=2)
    sizes = family.class_sizes
    # The largest and the smallest classes: examples are drawn from these.
    wanted = np.argsort(sizes)[[0, -1, 5]]
    env.reset(seed=0, options={"task": {"class": wanted}})
    mdp = env.unwrapped.mdp  # type: ignore[attr-defined]
    np.testing.assert_array_equal(mdp.tasks["class"], [wanted])
    assert (mdp.tasks["support"] < sizes[wanted][:, None]).all()
    for wrong in ([0, 0, 1], [0, 1, 12], [-1, 0, 1]):
        with pytest.raises(ValueError, match="options: task"):
            env.reset(options={"task": {"class": wrong}})


@pytest.mark.parametrize("shape", [(3,), (6, 5), (40, 33), (8, 8, 3), (1, 1)])
def test_environments_play_and_draw_them(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    examples = generator.integers(0, 256, (180, *shape), dtype=np.uint8)
    family = from_classes(examples, np.arange(180) % 18, ways=3, shots=2, queries=3)
    envs = gym.make_vec("NetBuild-v0", num_envs=3, family=family, width=6, layers=2, render_mode="rgb_array")
    envs.reset(seed=0)
    _, reward, *_, infos = envs.step(envs.action_space.sample())
    assert np.isfinite(reward).all()
    assert ((infos["query_accuracy"] >= 0) & (infos["query_accuracy"] <= 1)).all()
    assert envs.render() is not None


def test_standardised_by_the_training_classes_alone() -> None:
    features, labels = data()
    features = 1000 + 50 * features
    family = from_classes(features, labels, ways=3, standardise=True)
    assert family.classes is not None
    known = np.isin(family.labels, family.classes["train"])
    np.testing.assert_allclose(family.examples[known].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(family.examples[known].std(axis=0), 1, atol=1e-5)
    # Held-out classes have no part in it: whatever they are, training tasks stay.
    changed = features.copy()
    changed[np.isin(labels, family.classes["test"])] *= 10
    assert torch.equal(
        draw(from_classes(changed, labels, ways=3, standardise=True), 5)[1].inputs, draw(family, 5)[1].inputs
    )
    images = np.random.default_rng(0).integers(0, 256, (180, 6, 5, 3), dtype=np.uint8)
    coloured = from_classes(images, np.arange(180) % 18, ways=3, standardise=True)
    assert coloured.classes is not None
    known = np.isin(coloured.labels, coloured.classes["train"])
    np.testing.assert_allclose(coloured.examples[known].mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(coloured.examples[known].std(axis=(0, 1, 2)), 1, atol=1e-4)


X, LABELS = data()


@pytest.mark.parametrize(
    ("examples", "labels", "arguments", "message"),
    [
        (X, LABELS, {"ways": 7}, r"^labels: 20 classes are too few for ways=7: .* 7 different ones each, 21 together"),
        (X, LABELS, {"ways": 1}, "^ways=1: must be an integer from 2"),
        (
            X,
            LABELS,
            {"ways": 3, "shots": 8, "queries": 6},
            r"^shots=8 and queries=6 need 8 \+ 2 .* class 'kind 0' has 9",
        ),
        (X, LABELS, {"ways": 3, "queries": 7}, "^queries=7: must be a multiple of ways=3"),
        (X, LABELS, {"split": "dev"}, "^split='dev'"),
        (X, LABELS[:-1], {}, r"^labels: \d+ of them for \d+ examples"),
        (X, LABELS, {"shots": 2.5}, r"^shots=2\.5: must be a positive integer"),
        (X, LABELS, {"shots": "3"}, "^shots='3': must be a positive integer"),
        (X, LABELS, {"ways": 3.0}, r"^ways=3\.0: must be a positive integer"),
        (
            X,
            LABELS,
            {"classes": {"test": NAMES[:5]}, "split": "test", "standardise": True},
            "^standardise=True: uses statistics of the training classes",
        ),
        (X, None, {}, "^labels=None: must be the class of every example"),
        (X, LABELS == "kind 1", {}, "^labels: 2 classes are too few"),
        (X, X[:, 0] + 0.5, {}, r"^labels \(.*float64: must be \(examples,\) integers or text"),
        (
            X,
            np.eye(20)[X[:, 0].astype(int)].astype(int),
            {},
            r"^labels \(.*of one-hot rows take labels.argmax\(axis=1\)",
        ),
        (X, [None] * len(X), {}, r"^labels .*must be"),
        (X[:, 0], LABELS, {}, r"^examples \(.*: must be \(examples, features\)"),
        (np.zeros((len(X), 3, 8, 8)), LABELS, {}, r"^examples .*at most 4 channels, the last axis"),
        (np.zeros((len(X), 8, 8), np.int64), LABELS, {}, "^examples: images of int64: must be uint8, .* or floats"),
        (np.full_like(X, np.nan), LABELS, {}, "^examples: must be finite"),
        ([["a"]], ["b"], {}, "^examples: must be an array of numbers"),
        (X, LABELS, {"size": 8}, "^size=8: for folders of pictures only"),
        (X, LABELS, {"classes": [1]}, r"^classes=\[1\]: must be a dict from 'train'"),
        (X, LABELS, {"classes": {"dev": ["kind 1"]}}, r"^classes=.*: must be a dict from 'train'"),
        (X, LABELS, {"classes": {"train": "kind 1"}}, r"^classes: 'train' is 'kind 1', must be a list"),
        (
            X,
            LABELS,
            {"classes": {"train": ["kind 1", "kin"]}},
            r"^classes: 'train' names 'kin', which no example is of",
        ),
        (X, LABELS, {"classes": {"train": NAMES[:6], "test": NAMES[5:9]}}, "^classes: 'kind 5' in more than one split"),
        (X, LABELS, {"classes": {"train": NAMES[:4]}}, "^ways=5: the 'train' split has 4 classes"),
    ],
)
def test_invalid_examples_raise(examples: Any, labels: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_classes(examples, labels, **arguments)


# -- folders of pictures -------------------------------------------------------------------------------------------


def write_pictures(folder: Path, mode: str = "L", size: tuple[int, int] = (6, 4)) -> Path:
    image = pytest.importorskip("PIL.Image", reason="reading pictures needs Pillow")
    for number in range(9):
        kind = folder / f"kind{number}"
        kind.mkdir(parents=True)
        for example in range(4):
            colour: Any = 20 * number + example
            image.new(mode, size, colour if mode == "L" else (colour, 0, 255)).save(kind / f"{example}.png")
        (kind / "notes.txt").write_text("no picture", encoding="utf-8")
    return folder


def test_a_folder_for_every_class(tmp_path: Path) -> None:
    family = from_classes(write_pictures(tmp_path), ways=2, shots=1, queries=4)
    assert isinstance(family, LabelledClasses)
    assert family.image_shape == (4, 6)
    tasks, support, _ = draw(family, 20)
    for row in range(20):
        for way, name in enumerate(family.describe(tasks, row)["classes"]):
            value = int((support.inputs[row, way, 0] * 255).round())
            assert name == f"kind{value // 20}"
    assert from_classes(str(tmp_path), ways=2, size=3).image_shape == (3, 3)
    assert from_classes(tmp_path, ways=2, size=(5, 2)).image_shape == (5, 2)


def test_inputs_have_their_channels_first() -> None:
    images = np.random.default_rng(0).integers(256, size=(20 * 3, 5, 4, 3), dtype=np.uint8)
    labels = np.repeat(np.arange(20), 3)
    for examples, scale in ((images, 255), (images.astype(np.float32), 1)):
        family = from_classes(examples, labels, ways=2, shots=1, queries=2)
        assert family.input_shape == (3, 5, 4)
        tasks, support, _ = draw(family)
        inputs = support.inputs.reshape(-1, *family.input_shape).numpy() * scale
        labelled = family.pick(tasks, tasks["support"], []).reshape(-1, 5, 4, 3)
        assert np.allclose(inputs.transpose(0, 2, 3, 1), labelled)
    assert from_classes(images[..., 0], labels, ways=2).input_shape == (1, 5, 4)
    assert from_classes(images[..., 0, 0], labels, ways=2).input_shape == (5,)


def test_folders_in_colour_and_of_different_sizes(tmp_path: Path) -> None:
    coloured = from_classes(write_pictures(tmp_path, "RGB"), ways=2)
    assert coloured.example_shape == (4, 6, 3)
    assert draw(coloured, 1)[1].inputs.reshape(-1, 3, 24)[0, 1:, 0].tolist() == [0, 1]
    image = pytest.importorskip("PIL.Image")
    image.new("L", (7, 7), 3).save(tmp_path / "kind3" / "9.png")
    with pytest.raises(ValueError, match=r"9\.png: has 7 x 7 pixels, .* has 4 x 6; size=\(height, width\) brings"):
        from_classes(tmp_path, ways=2)
    assert from_classes(tmp_path, ways=2, size=5).example_shape == (5, 5, 3)


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        from_classes(tmp_path / "nowhere")
    pytest.importorskip("PIL.Image", reason="reading pictures needs Pillow")
    with pytest.raises(ValueError, match="must hold a folder for every class, with pictures in it"):
        from_classes(tmp_path)
    write_pictures(tmp_path)
    with pytest.raises(ValueError, match="labels: not for a folder"):
        from_classes(tmp_path, [1, 2])
    for size in (0, (3,), (3, 2.5)):
        with pytest.raises(ValueError, match=r"^size=.*: must be a number of pixels, or \(height, width\)"):
            from_classes(tmp_path, size=size)  # type: ignore[arg-type]
    (tmp_path / "kind3" / "8.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"8\.png: cannot be read"):
        from_classes(tmp_path, ways=2)


NUMBERS = X[:, 0].astype(int)


@pytest.mark.parametrize(
    "labels",
    [NUMBERS.astype(object), NUMBERS.astype(float), NUMBERS.tolist(), NUMBERS[:, None], torch.from_numpy(NUMBERS)],
    ids=["objects", "floats", "list", "column", "tensor"],
)
def test_whole_numbers_are_labels_however_they_come(labels: Any) -> None:
    family, like = (from_classes(X, given, ways=3) for given in (labels, NUMBERS))
    assert family.fingerprint == like.fingerprint


@pytest.mark.parametrize("labels", [LABELS.astype(object), LABELS.tolist()], ids=["objects", "list"])
def test_text_is_labels_however_it_comes(labels: Any) -> None:
    assert from_classes(X, labels, ways=3).fingerprint == from_classes(X, LABELS, ways=3).fingerprint


def test_tensors_that_learn_are_examples_too() -> None:
    examples = torch.tensor(X, requires_grad=True)
    assert from_classes(examples, LABELS, ways=3).fingerprint == from_classes(X, LABELS, ways=3).fingerprint


def test_classes_that_no_split_has_do_not_make_query_sets_small() -> None:
    rare = np.concatenate([LABELS, ["rare"]])
    classes = {"train": list(NAMES[:8]), "test": list(NAMES[8:14])}
    family = from_classes(np.concatenate([X, X[:1]]), rare, ways=3, shots=2, classes=classes)
    assert family.queries == 3 * (9 - 2)

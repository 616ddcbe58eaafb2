"""Distributions of data sets: parts, label noise, splits that share nothing, pictures of collections."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gym_reml.tasks.data_sets.base import DataSet, Examples, read_examples
from gym_reml.tasks.data_sets.glyphs import Glyphs
from gym_reml.tasks.data_sets.pictures import Pictures, _places, _shrunk
from gym_reml.tasks.data_sets.registry import make_data_sets
from gym_reml.tasks.data_sets.synthetic import Clusters
from gym_reml.tasks.data_sets.variation import flip_labels
from gym_reml.tasks.images.collections import Collection, read_collection
from tests.support.omniglot_archive import write_archives


def drawn(family: Any, seed: int = 0, **task: Any) -> DataSet:
    generator = np.random.default_rng(seed)
    data: DataSet = family.data(family.draw(generator) | task, generator)
    return data


def test_clusters_are_as_their_task_says() -> None:
    family = Clusters(held_out=50)
    task: dict[str, Any] = {"examples": 30, "width": 8, "batch_size": 4, "label_noise": 0.0, "input_scale": 1.0}
    data, wide = (drawn(family, **task | {"input_scale": scale}) for scale in (1.0, 10.0))
    assert [len(part) for part in data.parts.values()] == [30, 50, 50]
    assert (data.batch_size, data.outputs, data.input_shape) == (4, 10, (20,))
    torch.testing.assert_close(wide.test.inputs if wide.test else None, data.test.inputs * 10 if data.test else None)
    # Points of one class are nearer to one another than to others: 60 of them per class suffice to tell.
    many = drawn(Clusters(centres=1, classes=3), **task | {"examples": 200}).train
    middles = torch.stack([many.inputs[many.targets == label].mean(0) for label in range(3)])
    assert (torch.cdist(many.inputs, middles).argmin(1) == many.targets).float().mean() > 0.95


def test_only_training_labels_are_noisy() -> None:
    clean, noisy = (drawn(Clusters(), label_noise=share) for share in (0.0, 0.5))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert torch.equal(clean.validation.targets, noisy.validation.targets)
    labels = torch.zeros(4000, dtype=torch.int64)
    flipped = flip_labels(labels, 0.4, np.arange(10), np.random.default_rng(0))
    # A tenth of the labels that are drawn anew stay what they were.
    assert float((flipped != 0).float().mean()) == pytest.approx(0.36, abs=0.03)
    assert torch.equal(flip_labels(labels, 0.0, np.arange(10), np.random.default_rng(0)), labels)


@pytest.mark.parametrize("name", ["clusters", "digits"])
def test_only_training_examples_are_imbalanced(name: str) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    data = drawn(make_data_sets(name, held_out=200), imbalance=20.0, examples=300, label_noise=0.0)
    counts = {part: np.sort(np.bincount(examples.targets, minlength=10)) for part, examples in data.parts.items()}
    shares = 20.0 ** (np.arange(10) / 9)
    np.testing.assert_allclose(counts["train"], 300 * shares / shares.sum(), atol=20)
    assert counts["train"][-1] > 6 * max(counts["train"][0], 1)
    assert min(counts["validation"][0], counts["test"][0]) >= 8
    # Which classes are rare is random.
    rarest = set()
    for seed in range(8):
        labels = drawn(Clusters(), seed, imbalance=50.0, examples=300, label_noise=0.0).train.targets
        rarest.add(int(torch.bincount(labels, minlength=10).argmin()))
    assert len(rarest) > 3


def test_tasks_vary_in_all_that_they_may() -> None:
    family, generator = Clusters(imbalances=(1.0, 10.0)), np.random.default_rng(0)
    tasks = [family.draw(generator) for _ in range(60)]
    for name, values in (
        ("examples", family.examples),
        ("width", family.widths),
        ("batch_size", family.batch_sizes),
        ("label_noise", family.label_noises),
        ("imbalance", family.imbalances),
        ("input_scale", family.input_scales),
    ):
        assert {task[name] for task in tasks} == set(values)


def test_pictures_are_small_parts_of_a_collection_that_splits_do_not_share() -> None:
    pytest.importorskip("sklearn")
    read, seen = read_collection("digits"), {}
    for split in ("train", "validation", "test"):
        family = make_data_sets("digits", split=split, side=4)
        data = drawn(family, label_noise=0.0)
        assert (data.outputs, data.input_shape) == (10, (1, 4, 4))
        for name, part in data.parts.items():
            assert 0.0 <= float(part.inputs.min()) < float(part.inputs.max()) <= 1.0, name
        seen[split] = set(_places(len(read.labels), split).tolist())
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == len(read.labels)
    whole = drawn(make_data_sets("digits"), label_noise=0.0)
    pool = {image.tobytes(): label for image, label in zip(read.images, read.labels.tolist(), strict=True)}
    for part in whole.parts.values():
        for image, label in zip(part.inputs, part.targets.tolist(), strict=True):
            assert pool[np.rint(image.numpy() * 255).astype(np.uint8).tobytes()] == label
    with pytest.raises(ValueError, match=r"examples=\(5000,\).*'digits' has"):
        make_data_sets("digits", examples=(5000,))


def test_images_are_shrunk_by_averaging() -> None:
    images = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    read = Collection("four", images, np.zeros(1, dtype=np.int64), ("only",))
    expected = images.reshape(2, 2, 2, 2).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(_shrunk(read, 2)[0, 0].numpy(), expected, rtol=1e-6)
    assert _shrunk(read, None).shape == _shrunk(read, 9).shape == (1, 1, 4, 4)


def test_real_collections_can_be_trained_on() -> None:
    root = Path(os.environ.get("GYM_REML_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    for name, channels in (("fashion_mnist", 1), ("sign_digits", 3)):
        if not (root / name).is_dir():
            pytest.skip("needs folders fashion_mnist and sign_digits in GYM_REML_DATA or ../shared/data")
        family = make_data_sets(name, root=str(root))
        assert isinstance(family, Pictures)
        assert drawn(family).input_shape == (channels, 14, 14)
        for split in ("train", "validation", "test"):
            data = drawn(make_data_sets(name, root=str(root), split=split, unseen=5, held_out=60), imbalance=10.0)
            assert not set(data.train.targets.tolist()) & set(data.validation.targets.tolist())


def test_glyphs_are_elsewhere_in_every_drawing() -> None:
    calm, moved = (drawn(Glyphs(), shift=shift, turn=0.0) for shift in (0.0, 0.2))
    assert [len(part) for part in calm.parts.values()] == [25, 50, 50]
    assert (calm.outputs, calm.batch_size, calm.input_shape) == (5, 25, (1, 16, 16))
    for part in calm.parts.values():
        assert 0.0 == float(part.inputs.min()) < float(part.inputs.max()) == 1.0
        assert np.bincount(part.targets).tolist() == [len(part) // 5] * 5
    for data, best in ((calm, (0.9, 1.0)), (moved, (0.3, 0.8))):
        # The nearest training drawing knows a glyph that is where it was.
        nearest = torch.cdist(data.validation.inputs.flatten(1), data.train.inputs.flatten(1)).argmin(1)
        share = float((data.train.targets[nearest] == data.validation.targets).float().mean())
        assert best[0] <= share <= best[1]
    assert not torch.equal(drawn(Glyphs(), shift=0.0, turn=20.0).train.inputs, calm.train.inputs)


def test_characters_are_those_of_the_few_shot_family(tmp_path: Path) -> None:
    root = str(write_archives(tmp_path, {"Alpha": 14, "Beta_(old)": 12, "Gamma": 9}))
    seen: dict[str, set[int]] = {}
    for split in ("train", "validation", "test"):
        family: Any = make_data_sets("omniglot", root=root, split=split, ways=2, shots=3, held_out=4, side=28)
        generator = np.random.default_rng(0)
        task = family.draw(generator)
        data = family.data(task, generator)
        assert [len(part) for part in data.parts.values()] == [6, 8, 8]
        assert data.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
        every = torch.cat([part.inputs for part in data.parts.values()]).flatten(1)
        assert len(every.unique(dim=0)) == 22
        drawings = torch.from_numpy(family.family.characters.images.copy()).float().reshape(-1, 20, 784) / 255
        for label, character in enumerate(task["character"].tolist()):
            for part in data.parts.values():
                own = part.inputs[part.targets == label].flatten(1)
                assert float(torch.cdist(own, drawings[character]).amin(1).max()) < 1e-2
        seen[split] = {int(one) for seed in range(9) for one in family.draw(np.random.default_rng(seed))["character"]}
    assert len(set().union(*seen.values())) == sum(map(len, seen.values()))
    small = drawn(make_data_sets("omniglot", root=root, ways=2))
    assert small.input_shape == (1, 14, 14)


def test_examples_are_read_in_the_types_that_training_needs() -> None:
    labels = read_examples("train", (np.zeros((3, 2, 2)), np.array([0, 1, 2], dtype=np.uint8)))
    assert (labels.inputs.dtype, labels.targets.dtype, labels.inputs.shape) == (torch.float32, torch.int64, (3, 2, 2))
    numbers = read_examples("train", ([1.0, 2.0], [0.5, 1.5]))
    assert (numbers.inputs.shape, numbers.targets.shape, numbers.targets.dtype) == ((2, 1), (2, 1), torch.float32)
    part = numbers.at([1])
    assert isinstance(part, Examples)
    assert len(part) == 1


@pytest.mark.parametrize(
    ("name", "argument", "value", "what"),
    [
        ("glyphs", "shifts", 0.2, "numbers from 0 to 1"),
        ("glyphs", "turns", (200.0,), "numbers from 0 to 180"),
        ("clusters", "widths", 8, "positive integers"),
        ("clusters", "examples", (2.5,), "positive integers"),
        ("clusters", "label_noises", "no", "shares from 0 to 1"),
        ("clusters", "imbalances", (), "numbers from 1"),
        ("clusters", "input_scales", 1.0, "positive numbers"),
    ],
)
def test_values_that_vary_must_be_sequences(name: str, argument: str, value: Any, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{argument}={value!r}: must be a sequence of {what}')}$"):
        make_data_sets(name, **{argument: value})


@pytest.mark.parametrize(
    ("name", "imbalance", "expected"),
    [
        ("clusters", 1.0, [0, 7, 4, 0, 6, 3, 0, 8, 2, 9]),
        ("clusters", 10.0, [8, 2, 8, 5, 2, 7, 9, 1, 6, 5]),
        ("digits", 1.0, [1, 2, 5, 0, 7, 8, 4, 2, 4, 1]),
        ("digits", 10.0, [4, 7, 5, 0, 1, 3, 6, 3, 2, 6]),
    ],
)
def test_a_seed_draws_what_it_drew_for_published_results(name: str, imbalance: float, expected: list[int]) -> None:
    pytest.importorskip("sklearn")
    data = drawn(make_data_sets(name, held_out=20), imbalance=imbalance, label_noise=0.4, examples=20)
    assert data.train.targets[:10].tolist() == expected


@pytest.mark.parametrize("imbalance", [1.0, 20.0])
def test_unseen_classes_are_those_of_validation_and_test_alone(imbalance: float) -> None:
    pytest.importorskip("sklearn")
    task: dict[str, Any] = {"imbalance": imbalance, "label_noise": 0.5, "examples": 150}
    held_out = set()
    for name in ("clusters", "digits"):
        for seed in range(4):
            data = drawn(make_data_sets(name, unseen=4, held_out=60), seed, **task)
            assert [len(part) for part in data.parts.values()] == [150, 60, 60]
            assert data.outputs == 10
            assert data.test is not None
            seen, tested = set(data.train.targets.tolist()), set(data.validation.targets.tolist())
            assert len(tested) == 4
            assert set(data.test.targets.tolist()) == tested
            assert len(seen) == 6, "noise has classes of the training part alone"
            assert not seen & tested
            held_out.add((name, *sorted(tested)))
    assert len(held_out) > 5, "drawn anew for each task"
    # No image is in two parts, and every label is that of its image.
    read = read_collection("digits")
    pool = {image.tobytes(): label for image, label in zip(read.images, read.labels.tolist(), strict=True)}
    whole = drawn(make_data_sets("digits", unseen=4, held_out=60), **task | {"label_noise": 0.0})
    inputs = torch.cat([part.inputs for part in whole.parts.values()])
    images = [np.rint(image.numpy() * 255).astype(np.uint8).tobytes() for image in inputs]
    assert [pool[image] for image in images] == torch.cat([part.targets for part in whole.parts.values()]).tolist()
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("name", ["clusters", "digits"])
def test_the_classes_that_are_left_are_imbalanced(name: str) -> None:
    pytest.importorskip("sklearn")
    family = make_data_sets(name, unseen=5, held_out=60)
    data = drawn(family, imbalance=20.0, examples=200, label_noise=0.0)
    counts = np.sort(np.bincount(data.train.targets, minlength=10))
    shares = 20.0 ** (np.arange(5) / 4)
    assert counts[:5].tolist() == [0] * 5
    np.testing.assert_allclose(counts[5:], 200 * shares / shares.sum(), atol=20)
    assert np.sort(np.bincount(data.validation.targets, minlength=10))[5] >= 4, "as frequent as one another"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("clusters", {"unseen": 1}, "unseen=1: must be 0, or an integer from 2 to 8, because there are 10 classes"),
        ("clusters", {"unseen": 9}, "unseen=9: must be 0, or an integer from 2 to 8"),
        ("clusters", {"unseen": -1}, "unseen=-1: must be 0"),
        ("clusters", {"unseen": True}, "unseen=True: must be 0"),
        ("clusters", {"unseen": 2.0}, "unseen=2.0: must be 0"),
        ("clusters", {"unseen": 2, "classes": 3}, "unseen=2: must be 0, because there are 3 classes"),
        ("digits", {"unseen": 9}, "unseen=9: must be 0, or an integer from 2 to 8"),
        ("digits", {"unseen": 5, "split": "test"}, "unseen=5, held_out=100: a data set would need 200 images of 5 c"),
        ("digits", {"unseen": 8, "examples": (400,)}, r"unseen=8, examples=\(400,\): a .* 400 images of 2 classes"),
    ],
)
def test_classes_that_cannot_be_left_out_are_named(name: str, arguments: dict[str, Any], message: str) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=f"^{message}"):
        make_data_sets(name, **arguments)

"""Few-shot tasks of labelled images by name, and mixtures of their domains."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gym_reml.tasks import SPLITS, make_family
from gym_reml.tasks.images.collections import COLLECTIONS, read_collection
from gym_reml.tasks.images.few_shot import CollectionClasses
from gym_reml.tasks.mixture import Mixture
from tests.support.collection_files import write_collections
from tests.support.drawing import draw

SHAPES = {"fashion_mnist": (1, 28, 28), "sign_digits": (3, 32, 32), "digits": (1, 8, 8)}
EVERY = pytest.mark.parametrize("name", SHAPES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_collections(tmp_path_factory.mktemp("collections")))


def make(name: str, root: str, **arguments: Any) -> CollectionClasses:
    if name == "digits":
        pytest.importorskip("sklearn", reason="digits are part of scikit-learn")
    family = make_family(name, **({"root": root, "shots": 1, "queries": 12} | arguments))
    assert isinstance(family, CollectionClasses)
    return family


@EVERY
def test_tasks_are_images_of_the_collection(name: str, root: str) -> None:
    family, collection = make(name, root, shots=2), read_collection(name, root=root)
    assert family.input_shape == SHAPES[name] == collection.images.shape[1:]
    tasks, support, query = draw(family, 4)
    known = {image.tobytes(): collection.classes[label] for image, label in zip(*images_of(collection), strict=True)}
    for batch, each in ((support, 2), (query, 4)):
        pixels = np.rint(batch.inputs.numpy() * 255).astype(np.uint8)
        for row in range(4):
            names = family.describe(tasks, row)["classes"]
            assert [known[image.tobytes()] for image in pixels[row]] == [name for name in names for _ in range(each)]


def images_of(collection: Any) -> tuple[Any, Any]:
    return collection.images.reshape(len(collection.images), -1), collection.labels


@EVERY
def test_classes_keep_their_split_whatever_the_ways(name: str, root: str) -> None:
    found = [make(name, root, ways=ways).labelled.classes for ways in (2, 3)]
    assert found[0] == found[1]
    assert found[0] is not None
    assert {split: len(found[0][split]) for split in SPLITS} == {"train": 4, "validation": 3, "test": 3}
    assert set().union(*found[0].values()) == set(COLLECTIONS[name].classes)
    with pytest.raises(ValueError, match="ways=4: the 'test' split has 3 classes"):
        make(name, root, ways=4, split="test")


def test_the_split_is_fixed(root: str) -> None:
    """Pinned: a split that moves between versions would let pools be tested on what they were trained on."""
    digits, garments = make("sign_digits", root).labelled.classes, make("fashion_mnist", root).labelled.classes
    assert digits == {"train": ("0", "2", "5", "9"), "validation": ("1", "7", "8"), "test": ("3", "4", "6")}
    assert garments == {
        "train": ("Ankle boot", "Bag", "Sandal", "Trouser"),
        "validation": ("Coat", "Pullover", "Sneaker"),
        "test": ("Dress", "Shirt", "T-shirt/top"),
    }


def test_grey_and_resized(root: str) -> None:
    pillow = pytest.importorskip("PIL.Image")
    colour, grey = make("sign_digits", root), make("sign_digits", root, grey=True)
    small = make("sign_digits", root, grey=True, size=28)
    assert [family.input_shape for family in (colour, grey, small)] == [(3, 32, 32), (1, 32, 32), (1, 28, 28)]
    for image, ours, shrunk in zip(*(family.labelled.examples for family in (colour, grey, small)), strict=True):
        theirs = pillow.fromarray(image).convert("L")
        np.testing.assert_array_equal(ours, np.asarray(theirs))
        np.testing.assert_array_equal(shrunk, np.asarray(theirs.resize((28, 28), pillow.Resampling.BILINEAR)))
    assert make("sign_digits", root, size=16).input_shape == (3, 16, 16)
    assert make("fashion_mnist", root, grey=True).fingerprint != make("fashion_mnist", root).fingerprint
    same = make("fashion_mnist", root, size=28)
    np.testing.assert_array_equal(same.labelled.examples, make("fashion_mnist", root).labelled.examples)


def test_a_family_is_as_small_as_its_arguments(root: str, tmp_path: Path) -> None:
    family = make("fashion_mnist", root)
    assert len(pickle.dumps(family)) < 2000
    elsewhere = make("fashion_mnist", str(write_collections(tmp_path)))
    assert elsewhere.fingerprint == family.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grey": 1}, "grey=1: must be true or false"),
        ({"download": "yes"}, "download='yes': must be true or false"),
        ({"size": 0}, "size=0: must be a number of pixels"),
        ({"size": (28, 28)}, "size="),
        ({"queries": 10}, "queries=10: must be a multiple of ways=3"),
        ({"shots": 21}, "need 21 . 4 different examples"),
        ({"domains": ["inverted"]}, "'fashion_mnist' takes no 'domains'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str, root: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("fashion_mnist", root, **arguments)


def test_missing_files_are_noticed_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no sign_digits in"):
        make("sign_digits", str(tmp_path))


def test_domains_mix(root: str, archives: Path) -> None:
    """Members get the mixture's sizes from the start: 50 queries, their own default, are no multiple of three."""
    characters = {"name": "omniglot", "root": str(archives), "rotations": True, "ways": 3}
    members = [
        characters,
        characters | {"domains": ("inverted",)},
        {"name": "fashion_mnist", "root": root},
        {"name": "sign_digits", "root": root, "grey": True, "size": 28},
    ]
    family = make_family("mixture", members=members, shots=2, queries=12, split="validation")
    assert isinstance(family, Mixture)
    assert family.input_shape == (1, 28, 28)
    tasks, support, query = draw(family, 40)
    assert support.inputs.shape == (40, 6, 784)
    assert query.inputs.shape == (40, 12, 784)
    assert set(tasks["member"]) == {0, 1, 2, 3}
    for row in range(40):
        words, member = family.describe(tasks, row), family.members[tasks["member"][row]]
        assert words["family"] == member.name
        if isinstance(member, CollectionClasses):
            assert member.labelled.classes is not None
            assert set(words["classes"]) <= set(member.labelled.classes["validation"])
    with pytest.raises(ValueError, match=r"differ in input_shape \(\(1, 28, 28\) and \(3, 32, 32\)\)"):
        make_family("mixture", members=[members[2], {"name": "sign_digits", "root": root}], shots=2, queries=12)

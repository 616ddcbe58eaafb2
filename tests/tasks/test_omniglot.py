"""Omniglot: the splits, and the tasks drawn from them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="reading Omniglot needs Pillow")

from gym_reml.tasks.base import SPLITS, Batch, Tasks
from gym_reml.tasks.images import archives as omniglot_data
from gym_reml.tasks.images.omniglot import DOMAINS, PERMUTATION, Omniglot
from tests.support.omniglot_archive import ALPHABETS, write_archive, write_whole

Make = Callable[..., Omniglot]


pytestmark = pytest.mark.usefixtures("no_omniglot_environment")


@pytest.fixture
def make(archives: Path) -> Make:
    return functools.partial(Omniglot, root=str(archives))


def generators(seeds: range) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def forward(inputs: torch.Tensor) -> torch.Tensor:
    raise AssertionError("images do not depend on the network")


def sample(family: Omniglot, rows: range) -> tuple[Tasks, Batch, Batch]:
    tasks = family.draw(generators(rows))
    support = family.support(tasks, forward, generators(range(100 + rows.start, 100 + rows.stop)))
    return tasks, support, family.query(tasks, forward, generators(range(200 + rows.start, 200 + rows.stop)))


def names_of(family: Omniglot, split: str) -> set[tuple[str, str]]:
    characters = family.characters
    return {characters.names[index] for index in characters.members[family.split_by][split]}


# Splitting


@pytest.mark.parametrize("split_by", ["character", "alphabet"])
def test_splits_are_disjoint_and_complete(make: Make, split_by: str) -> None:
    family = make(split_by=split_by)
    splits = [names_of(family, split) for split in SPLITS]
    assert all(splits)
    assert sum(map(len, splits)) == len(set().union(*splits)) == sum(ALPHABETS.values())
    if split_by == "alphabet":
        alphabets = [{alphabet for alphabet, _ in split} for split in splits]
        assert sum(map(len, alphabets)) == len(ALPHABETS)


def test_split_is_fixed() -> None:
    """Pinned: a split that moves between versions would let pools be tested on what they were trained on."""
    names = [(alphabet, f"character{number:02d}") for alphabet in "ABCDEFGH" for number in range(1, 31)]
    by_character = omniglot_data.split_by_character(names)
    assert [len(by_character[split]) for split in SPLITS] == [159, 20, 61]
    assert by_character["validation"][:5].tolist() == [14, 43, 55, 63, 69]
    backwards = omniglot_data.split_by_character(names[::-1])
    for split in SPLITS:
        assert {names[i] for i in by_character[split]} == {names[::-1][i] for i in backwards[split]}
    by_alphabet = omniglot_data.split_by_alphabet(names)
    assert {split: sorted({names[i][0] for i in by_alphabet[split]}) for split in SPLITS} == {
        "train": ["B", "D", "E", "F", "G"],
        "validation": ["C"],
        "test": ["A", "H"],
    }


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Archives that are taken for the whole data set."""
    background = {"Armenian": 2, "Braille": 2, "Cyrillic": 2, "Futurama": 1, "Greek": 1, "Hebrew": 1, "Latin": 3}
    evaluation = {"Gurmukhi": 43, "Keble": 1, "Tibetan": 1}
    sizes = write_whole(tmp_path / "omniglot_full", background, evaluation)
    monkeypatch.setattr(omniglot_data, "WHOLE_SIZES", sizes)
    return tmp_path


def test_published_splits(whole: Path) -> None:
    for root in (whole, whole / "omniglot_full"):
        vinyals = {split: names_of(Omniglot(root=str(root), split_by="vinyals"), split) for split in SPLITS}
        assert {alphabet for alphabet, _ in vinyals["validation"]} == {"Armenian", "Hebrew"}
        assert {alphabet for alphabet, _ in vinyals["test"]} == {"Gurmukhi", "Keble", "Tibetan"}
        assert {character for alphabet, character in vinyals["test"] if alphabet == "Gurmukhi"} == {
            f"character{number}" for number in (42, 43)
        }
        lake = {split: names_of(Omniglot(root=str(root), split_by="lake"), split) for split in SPLITS}
        assert {alphabet for alphabet, _ in lake["test"]} == {"Gurmukhi", "Keble", "Tibetan"}
        assert len({alphabet for alphabet, _ in lake["validation"]}) == 5
        assert not {alphabet for alphabet, _ in lake["validation"]} & {alphabet for alphabet, _ in lake["train"]}
    sample(Omniglot(root=str(whole), split_by="vinyals", split="validation", shots=1, ways=2, queries=4), range(3))
    every = Omniglot(root=str(whole), whole=True)
    assert sum(len(names_of(every, split)) for split in SPLITS) == len(every.characters.names) == 57
    assert every.fingerprint == Omniglot(root=str(whole / "omniglot_full")).fingerprint


def test_published_splits_are_of_the_whole_data_set(whole: Path, archives: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"images_background\.zip and images_evaluation\.zip.*download=True"):
        Omniglot(root=str(archives), split_by="vinyals")
    (whole / "omniglot_full" / "images_evaluation.zip").unlink()
    with pytest.raises(FileNotFoundError, match="download=True to fetch both"):
        Omniglot(root=str(whole), split_by="lake")
    write_archive(whole / "omniglot_full" / "images_evaluation.zip", {"Keble": 2}, ["Keble"])
    family = Omniglot(root=str(whole), split_by="lake", ways=2, queries=4)
    with pytest.raises(ValueError, match=r"split_by='lake': .* whole data set alone, .*evaluation\.zip 45 characters"):
        family.draw(generators(range(2)))


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("split_by", ["character", "alphabet"])
def test_tasks_come_from_their_split(make: Make, split_by: str, rotations: bool) -> None:
    for split in SPLITS:
        family = make(split=split, split_by=split_by, rotations=rotations, ways=2, queries=20)
        if split == "validation" and split_by == "character" and not rotations:
            continue  # One class alone.
        tasks = family.draw(generators(range(60)))
        drawn = {family.characters.names[index] for index in np.unique(tasks["character"])}
        assert drawn == names_of(family, split)
        assert set(np.unique(tasks["turns"])) == (set(range(4)) if rotations else {0})


# Drawing


def test_classes_and_drawings_do_not_repeat(make: Make) -> None:
    family = make(shots=8, queries=60, rotations=True)
    tasks, support, query = sample(family, range(50))
    classes = tasks["character"] * 4 + tasks["turns"]
    assert all(len(set(row)) == 5 for row in classes.tolist())
    together = np.sort(np.concatenate([tasks["support"], tasks["query"]], axis=-1), axis=-1)
    np.testing.assert_array_equal(together, np.broadcast_to(np.arange(20), (50, 5, 20)))
    for row in range(50):
        pixels = {image.tobytes() for image in query.inputs[row].numpy()}
        assert not pixels & {image.tobytes() for image in support.inputs[row].numpy()}


def test_shapes_types_and_content(make: Make) -> None:
    family = make(shots=2, queries=20)
    tasks, support, query = sample(family, range(3))
    assert (family.in_features, family.out_features) == (784, 5)
    assert support.inputs.shape == (3, 10, 784)
    assert query.inputs.shape == (3, 20, 784)
    assert support.inputs.dtype == query.inputs.dtype == torch.float32
    assert support.inputs.min() == 0
    assert support.inputs.max() == 1
    assert support.targets.dtype == torch.int64
    assert support.targets.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]] * 3
    assert torch.equal(query.targets, torch.arange(5).repeat_interleave(4).repeat(3, 1))
    store = family.characters.images
    for batch, name in ((support, "support"), (query, "query")):
        for row in range(3):
            expected = [
                store[tasks["character"][row, way], drawing] for way in range(5) for drawing in tasks[name][row, way]
            ]
            np.testing.assert_array_equal(
                batch.inputs[row].numpy(), np.array(expected, dtype=np.float32) / np.float32(255)
            )
    outputs = torch.randn(3, 20, 5)
    assert family.loss(outputs, query).shape == (3,)


def test_batches_do_not_share_memory_with_the_store(make: Make) -> None:
    family = make()
    before = family.characters.images.copy()
    _, support, query = sample(family, range(2))
    support.inputs.fill_(7)
    query.inputs.fill_(7)
    np.testing.assert_array_equal(family.characters.images, before)


@pytest.mark.parametrize("options", [{}, {"shifts": 2, "rotations": True, "domains": tuple(DOMAINS)}])
def test_rows_are_independent(make: Make, options: dict[str, Any]) -> None:
    family = make(shots=2, **options)
    tasks, support, query = sample(family, range(6))
    for row in range(6):
        own_tasks, own_support, own_query = sample(family, range(row, row + 1))
        for name, values in own_tasks.items():
            np.testing.assert_array_equal(values[0], tasks[name][row])
        for own, batch in ((own_support, support), (own_query, query)):
            assert torch.equal(own.inputs[0], batch.inputs[row])
            assert torch.equal(own.targets[0], batch.targets[row])
        assert torch.equal(own_support.extras["signal"][0], support.extras["signal"][row])
    assert not torch.equal(support.inputs[0], support.inputs[1])


def test_larger_tasks_extend_smaller_ones(make: Make) -> None:
    small, large = (make(shots=s, queries=q).draw(generators(range(9))) for s, q in ((1, 25), (5, 50)))
    np.testing.assert_array_equal(small["character"], large["character"])
    np.testing.assert_array_equal(small["support"], large["support"][..., :1])
    np.testing.assert_array_equal(small["query"], large["query"][..., :5])


def test_classes_are_drawn_evenly(make: Make) -> None:
    family = make(rotations=True)
    tasks = family.draw(generators(range(1200)))
    members = family.characters.members["character"]["train"]
    counts = np.zeros((len(family.characters.names), 4))
    np.add.at(counts, (tasks["character"], tasks["turns"]), 1)
    expected = 1200 * 5 / (4 * len(members))
    assert np.abs(counts[members] / expected - 1).max() < 0.4
    first = np.bincount(tasks["character"][:, 0], minlength=len(counts))[members]
    assert np.abs(first * len(members) / 1200 - 1).max() < 0.4


# What is done to the images


def test_rotations_turn_whole_classes(make: Make) -> None:
    family = make(rotations=True)
    tasks, support, _ = sample(family, range(20))
    assert len(np.unique(tasks["turns"])) == 4
    store = family.characters.images.reshape(-1, 20, 28, 28)
    images = support.inputs.numpy().reshape(20, 5, 5, 28, 28)
    for row, way, shot in np.ndindex(20, 5, 5):
        image = store[tasks["character"][row, way], tasks["support"][row, way, shot]]
        for _ in range(tasks["turns"][row, way]):
            image = image.T[::-1]
        np.testing.assert_array_equal(images[row, way, shot], np.float32(image) / np.float32(255))


def test_shifts_move_each_image_by_its_own_offset(make: Make) -> None:
    tasks, plain, plain_query = sample(make(), range(20))
    shifted_tasks, moved, moved_query = sample(make(shifts=2), range(20))
    np.testing.assert_array_equal(tasks["support"], shifted_tasks["support"])
    seen = set()
    for before, after in ((plain, moved), (plain_query, moved_query)):
        for source, result in zip(
            before.inputs.view(-1, 28, 28).numpy(), after.inputs.view(-1, 28, 28).numpy(), strict=True
        ):
            framed = np.pad(source, 2)
            matches = [
                (down, right)
                for down in range(5)
                for right in range(5)
                if np.array_equal(framed[down : down + 28, right : right + 28], result)
            ]
            assert len(matches) == 1
            seen.add(matches[0])
    assert len(seen) == 25


EXPECTED_DOMAINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda image: image,
    "inverted": lambda image: 1 - image,
    "permuted": lambda image: image.ravel()[PERMUTATION].reshape(28, 28),
    "transposed": lambda image: image.T,
    "contrast": lambda image: 96 / 255 + image / 4,
}


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains(make: Make, domain: str) -> None:
    _, plain, plain_query = sample(make(shifts=2), range(2))
    _, changed, changed_query = sample(make(shifts=2, domains=(domain,)), range(2))
    for before, after in ((plain, changed), (plain_query, changed_query)):
        expected = np.stack([EXPECTED_DOMAINS[domain](image) for image in before.inputs.view(-1, 28, 28).numpy()])
        np.testing.assert_allclose(after.inputs.view(-1, 28, 28).numpy(), expected, atol=1 / 255)
        assert torch.equal(before.targets, after.targets)


def test_one_domain_per_task_drawn_evenly(make: Make) -> None:
    family = make(domains=["inverted", "identity"], shots=1)
    tasks, support, query = sample(family, range(400))
    counts = np.bincount(tasks["domain"])
    assert abs(counts[0] - 200) < 50
    assert counts.sum() == 400
    inverted = torch.from_numpy(tasks["domain"] == 0)
    for batch in (support, query):
        assert torch.equal(batch.inputs.mean(dim=2).min(dim=1).values > 0.5, inverted)
        assert torch.equal(batch.inputs.mean(dim=2).max(dim=1).values > 0.5, inverted)


def test_the_permutation_is_fixed() -> None:
    """Pinned: pools trained on permuted images would be useless under another permutation."""
    assert sorted(PERMUTATION) == list(range(784))
    assert PERMUTATION[:5].tolist() == [251, 577, 541, 52, 431]


# The signal


def signal_of(family: Omniglot, tasks: Tasks) -> torch.Tensor:
    batch = family.support(tasks, forward, generators(range(len(tasks["domain"]))))
    signal = family.support_signal(torch.randn(len(tasks["domain"]), batch.inputs.shape[1], family.ways), batch)
    assert signal.shape == (len(tasks["domain"]), family.signal_size)
    assert signal.dtype == torch.float32
    return signal


def test_signal_ignores_labels_order_and_number(make: Make) -> None:
    family = make(shots=4, rotations=True, domains=tuple(DOMAINS))
    tasks = family.draw(generators(range(10)))
    signal = signal_of(family, tasks)
    order = np.array([3, 0, 4, 1, 2])
    relabelled = tasks | {name: tasks[name][:, order] for name in ("character", "turns", "support")}
    assert torch.equal(signal_of(family, relabelled), signal)
    assert torch.equal(signal_of(family, tasks | {"support": tasks["support"][..., ::-1]}), signal)
    assert torch.equal(signal_of(family, tasks | {"support": tasks["support"].repeat(3, axis=-1)}), signal)
    assert torch.equal(signal_of(family, tasks | {"query": tasks["query"][..., :1]}), signal)
    assert not torch.equal(signal[0], signal[1])


def test_signal_is_the_mean_image_and_its_roughness(make: Make) -> None:
    _tasks, support, _ = sample(make(shifts=1), range(4))
    images = support.inputs.view(4, -1, 28, 28)
    patches = torch.nn.functional.avg_pool2d(images.mean(dim=1), 4).flatten(1)
    torch.testing.assert_close(support.extras["signal"][:, :49], patches)
    rough = (images.diff(dim=2).abs().mean(dim=(1, 2, 3)) + images.diff(dim=3).abs().mean(dim=(1, 2, 3))) / 2
    torch.testing.assert_close(support.extras["signal"][:, 49], rough)


def test_signal_tells_permuted_images(make: Make) -> None:
    rough = [
        sample(make(domains=(domain,)), range(20))[1].extras["signal"][:, -1] for domain in ("identity", "permuted")
    ]
    assert rough[0].max() < rough[1].min()


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": 11}, r"shots=11 and queries=50 need 11 \+ 10 .* 20"),
        ({"shots": 1, "queries": 100}, r"shots=1 and queries=100 need 1 \+ 20 .* 20"),
        ({"queries": 51}, "queries=51: must be a multiple of ways=5"),
        ({"queries": 3}, "queries=3: must be a multiple of ways=5"),
        ({"ways": 1}, "ways=1"),
        ({"ways": True}, "ways=True"),
        ({"ways": 2.0}, "ways=2.0"),
        ({"shifts": -1}, "shifts=-1"),
        ({"shifts": 15}, "shifts=15: must be an integer from 0 to 14"),
        ({"rotations": 4}, "rotations=4"),
        ({"download": "no"}, "download='no'"),
        ({"split_by": "word"}, "split_by='word'.*'character', 'alphabet', 'vinyals', 'lake'"),
        ({"domains": ()}, "domains=\\(\\)"),
        ({"domains": ["identity", "blurred"]}, "blurred.*'inverted'"),
        ({"split": "dev"}, "split='dev'"),
        ({"shots": 0}, "shots=0"),
    ],
)
def test_arguments_are_checked(make: Make, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_too_many_ways(make: Make) -> None:
    with pytest.raises(ValueError, match=r"ways=5: the 'test' split by character has 4 classes \(4 of 16"):
        make(split="test").draw(generators(range(1)))
    make(split="test", rotations=True, ways=10).draw(generators(range(1)))


def test_all_drawings_can_be_used(make: Make) -> None:
    sample(make(shots=10, queries=50), range(1))


def test_json_pickle_and_copies(make: Make, archives: Path) -> None:
    family = make(domains=["identity", "permuted"], shifts=1)
    _, support, query = sample(family, range(2))
    specification = json.loads(json.dumps(dataclasses.asdict(family)))
    assert "_archives" not in specification
    data = pickle.dumps(family)
    assert len(data) < 2000
    for other in (Omniglot(**specification), pickle.loads(data), copy.deepcopy(family), family.replace(shots=5)):
        assert other == family
        assert hash(other) == hash(family)
        _, other_support, other_query = sample(other, range(2))
        assert torch.equal(other_support.inputs, support.inputs)
        assert torch.equal(other_query.inputs, query.inputs)
    assert Omniglot(root=archives).root == str(archives)  # type: ignore[arg-type]
    assert make(domains="inverted").domains == ("inverted",)


def test_describe(make: Make) -> None:
    family = make(rotations=True, domains=["identity", "inverted"])
    tasks = family.draw(generators(range(4)))
    for row in range(4):
        words = json.loads(json.dumps(family.describe(tasks, row)))
        assert words["family"] == "omniglot"
        assert words["domain"] == family.domains[tasks["domain"][row]]
        for way, character in enumerate(words["characters"]):
            expected = family.characters.names[tasks["character"][row, way]]
            assert (character["alphabet"], character["character"]) == expected
            assert character["rotation"] == 90 * tasks["turns"][row, way]

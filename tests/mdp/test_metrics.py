"""Metrics against scikit-learn and plain loops, and by hand."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch

from gym_reml.mdp import metrics as module
from gym_reml.mdp.child_training import CrossEntropy
from gym_reml.mdp.metrics import METRICS, RETRIEVAL, confusion, recall_at

CLASSES = 5


@pytest.mark.parametrize("name", [name for name in METRICS if name not in RETRIEVAL])
def test_a_metric_is_scikit_learns(name: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    # Few examples, so that classes are missing among labels, among predictions, and among both.
    labels, predicted = generator.integers(CLASSES, size=(2, 40, 6))
    outputs = torch.nn.functional.one_hot(torch.from_numpy(predicted), CLASSES).float()
    found = CrossEntropy(name).metric(outputs, torch.from_numpy(labels)).numpy()
    for row in range(40):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of predicted classes that have no examples
            if name == "macro_f1":
                expected = metrics.f1_score(labels[row], predicted[row], average="macro")
            else:
                expected = getattr(metrics, f"{name}_score")(labels[row], predicted[row])
        assert found[row] == pytest.approx(expected, abs=1e-6)


def test_by_hand() -> None:
    counts = torch.tensor([[[3.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    labels, predicted = torch.tensor([[0, 0, 0, 0, 1, 1]]), torch.tensor([[0, 0, 0, 1, 0, 1]])
    torch.testing.assert_close(confusion(predicted, labels, 3), counts)
    outputs = torch.nn.functional.one_hot(predicted, 3).float()
    assert float(METRICS["accuracy"](outputs, labels)) == pytest.approx(4 / 6)
    assert float(METRICS["balanced_accuracy"](outputs, labels)) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert float(METRICS["macro_f1"](outputs, labels)) == pytest.approx((6 / 8 + 2 / 4) / 2)
    # Of the three others with the output of the first, two have its label, and so on.
    near = [2 / 3, 2 / 3, 2 / 3, 0 / 1, 0 / 3, 0 / 1]
    assert float(METRICS["recall_at_1"](outputs, labels)) == pytest.approx(sum(near) / 6)
    with pytest.raises(ValueError, match=r"metric='recall'.*'macro_f1'"):
        CrossEntropy("recall")


def plain_recall(k: int, outputs: np.ndarray, labels: np.ndarray) -> float:
    """By loops over the examples of one classifier, and over all ways to choose among those that are equally near."""
    hits = []
    for query in range(len(labels)):
        others = [other for other in range(len(labels)) if other != query]
        distances = {other: float(np.sqrt(((outputs[query] - outputs[other]) ** 2).sum())) for other in others}
        last = sorted(distances.values())[k - 1]
        nearer = [other for other in others if distances[other] < last]
        tied = [other for other in others if distances[other] == last]
        ways = [(*nearer, *chosen) for chosen in itertools.combinations(tied, k - len(nearer))]
        hits.append(np.mean([any(labels[other] == labels[query] for other in way) for way in ways]))
    return float(np.mean(hits))


@pytest.mark.parametrize("pairs", [1, 100, 10**6])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_recall_is_that_of_a_loop(k: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", pairs)
    generator = np.random.default_rng(0)
    outputs, labels = (
        generator.standard_normal((4, 20, 3)).astype(np.float32),
        generator.integers(CLASSES, size=(4, 20)),
    )
    outputs[1] = np.round(outputs[1])  # many are equally near
    outputs[2] += 1e4  # far from 0, and near each other
    outputs[3] = 0.0
    found = recall_at(k, torch.from_numpy(outputs), torch.from_numpy(labels)).numpy()
    expected = [plain_recall(k, *row) for row in zip(outputs, labels, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    order = generator.permutation(20)
    again = recall_at(k, torch.from_numpy(outputs[:, order]), torch.from_numpy(labels[:, order]))
    np.testing.assert_allclose(again, found, rtol=1e-6)


@pytest.mark.parametrize("name", RETRIEVAL)
def test_recall_is_that_of_the_neighbours_of_scikit_learn(name: str) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    k = int(name.rpartition("_")[2])
    generator = np.random.default_rng(1)
    outputs, labels = generator.standard_normal((3, 200, 8)).astype(np.float32), generator.integers(7, size=(3, 200))
    found = CrossEntropy(name).metric(torch.from_numpy(outputs), torch.from_numpy(labels))
    for row in range(3):
        # Of themselves, examples are not asked for.
        near = neighbors.NearestNeighbors(n_neighbors=k).fit(outputs[row]).kneighbors(return_distance=False)
        expected = (labels[row][near] == labels[row][:, None]).any(axis=1).mean()
        assert float(found[row]) == pytest.approx(expected, abs=1e-6)


def test_recall_grows_with_k_up_to_all_others() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(5, 12, 2, generator=generator), torch.randint(4, (5, 12), generator=generator)
    outputs[1:3] = outputs[1:3].round()
    outputs[2, :3] = torch.nan
    found = torch.stack([recall_at(k, outputs, labels) for k in range(1, 15)])
    assert (found.diff(dim=0) >= -1e-6).all()
    assert (found[10] > found[0]).all()
    # Everyone finds all others: what is left are labels that nobody else has.
    shared = torch.stack([torch.stack([(row == label).sum() > 1 for label in row]) for row in labels]).float().mean(1)
    torch.testing.assert_close(found[10:, [0, 1, 3, 4]], shared[[0, 1, 3, 4]].expand(4, 4))


def test_recall_at_1_on_a_line_and_where_there_is_no_distance() -> None:
    line = torch.tensor([0.0, 1.0, 3.0, 4.5, 9.0])
    labels = torch.tensor([[0, 0, 1, 1, 1]])
    assert float(recall_at(1, line[None, :, None], labels)) == 1.0
    assert float(recall_at(1, line[None, :, None], torch.tensor([[0, 1, 0, 1, 1]]))) == pytest.approx(1 / 5)
    for broken in (torch.nan, torch.inf):
        outputs = torch.where(line == 3.0, broken, line)[None, :, None]
        # 4.5 is nearest to 1, and 9 to 4.5.
        assert float(recall_at(1, outputs, labels)) == pytest.approx(3 / 5)
        assert float(recall_at(1, torch.full_like(outputs, broken), labels)) == 0.0
        # The broken one finds nobody, and nobody finds it; the four others find one of their label.
        assert float(recall_at(8, outputs, labels)) == pytest.approx(4 / 5)
        assert float(recall_at(2, torch.full_like(outputs, broken), labels)) == 0.0
    for k in (1, 4):
        assert float(recall_at(k, torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.int64))) == 0.0

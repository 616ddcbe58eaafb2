"""Metrics against scikit-learn and plain loops, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from gym_reml.mdp import metrics as module
from gym_reml.mdp.child_training import CrossEntropy
from gym_reml.mdp.metrics import METRICS, confusion, recall_at_1

CLASSES = 5


@pytest.mark.parametrize("name", [name for name in METRICS if name != "recall_at_1"])
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


def plain_recall(outputs: np.ndarray, labels: np.ndarray) -> float:
    """By loops over the examples of one classifier."""
    hits = []
    for query in range(len(labels)):
        others = [other for other in range(len(labels)) if other != query]
        distances = {other: float(np.sqrt(((outputs[query] - outputs[other]) ** 2).sum())) for other in others}
        nearest = [other for other in others if distances[other] == min(distances.values())]
        hits.append(np.mean([labels[other] == labels[query] for other in nearest]) if nearest else 0.0)
    return float(np.mean(hits))


@pytest.mark.parametrize("pairs", [1, 200, 10**6])
def test_recall_at_1_is_that_of_a_loop(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", pairs)
    generator = np.random.default_rng(0)
    outputs, labels = (
        generator.standard_normal((4, 30, 3)).astype(np.float32),
        generator.integers(CLASSES, size=(4, 30)),
    )
    outputs[1] = np.round(outputs[1])  # many are equally near
    outputs[2] += 1e4  # far from 0, and near each other
    outputs[3] = 0.0
    found = recall_at_1(torch.from_numpy(outputs), torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(found, [plain_recall(*row) for row in zip(outputs, labels, strict=True)], rtol=1e-6)
    order = generator.permutation(30)
    again = recall_at_1(torch.from_numpy(outputs[:, order]), torch.from_numpy(labels[:, order]))
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_recall_at_1_on_a_line_and_where_there_is_no_distance() -> None:
    line = torch.tensor([0.0, 1.0, 3.0, 4.5, 9.0])
    labels = torch.tensor([[0, 0, 1, 1, 1]])
    assert float(recall_at_1(line[None, :, None], labels)) == 1.0
    assert float(recall_at_1(line[None, :, None], torch.tensor([[0, 1, 0, 1, 1]]))) == pytest.approx(1 / 5)
    for broken in (torch.nan, torch.inf):
        outputs = torch.where(line == 3.0, broken, line)[None, :, None]
        # 4.5 is nearest to 1, and 9 to 4.5.
        assert float(recall_at_1(outputs, labels)) == pytest.approx(3 / 5)
        assert float(recall_at_1(torch.full_like(outputs, broken), labels)) == 0.0
    assert float(recall_at_1(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.int64))) == 0.0

"""Metrics against scikit-learn, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from gym_reml.mdp.child_training import CrossEntropy
from gym_reml.mdp.metrics import METRICS, confusion

CLASSES = 5


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_scikit_learns(name: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    # Few examples, so that classes are missing among labels, among predictions, and among both.
    labels, predicted = generator.integers(CLASSES, size=(2, 40, 6))
    outputs = torch.nn.functional.one_hot(torch.from_numpy(predicted), CLASSES).float()
    found = CrossEntropy(name).metric(outputs, torch.from_numpy(labels)).numpy()
    counts = confusion(torch.from_numpy(predicted), torch.from_numpy(labels), CLASSES)
    np.testing.assert_allclose(METRICS[name](counts), found)
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
    assert float(METRICS["accuracy"](counts)) == pytest.approx(4 / 6)
    assert float(METRICS["balanced_accuracy"](counts)) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert float(METRICS["macro_f1"](counts)) == pytest.approx((6 / 8 + 2 / 4) / 2)
    with pytest.raises(ValueError, match=r"metric='recall'.*'macro_f1'"):
        CrossEntropy("recall")

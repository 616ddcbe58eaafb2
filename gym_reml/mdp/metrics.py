"""Metrics of classifiers: functions of predicted and true labels, for n classifiers at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many examples of each class (second axis) were taken for which (third), (n, classes, classes) float32.

    Args:
        predicted, labels: (n, b) int64.
        classes: their number.
    """
    places = labels * classes + predicted
    counts = torch.zeros(len(places), classes * classes, dtype=torch.float32, device=places.device)
    return counts.scatter_add_(1, places, torch.ones_like(places, dtype=torch.float32)).unflatten(1, (classes, classes))


def recalls(counts: Tensor) -> Tensor:
    """The share of each class that was recognised, (n, classes), from confusions; 0 for classes without examples."""
    return counts.diagonal(dim1=1, dim2=2) / counts.sum(dim=2).clamp(min=1.0)


def accuracy(counts: Tensor) -> Tensor:
    """The share of examples that were recognised, (n,), from confusions (n, classes, classes)."""
    return counts.diagonal(dim1=1, dim2=2).sum(dim=1) / counts.sum(dim=(1, 2))


def balanced_accuracy(counts: Tensor) -> Tensor:
    """The mean of the recalls of all classes that have examples, (n,)."""
    return recalls(counts).sum(dim=1) / (counts.sum(dim=2) > 0).sum(dim=1)


def macro_f1(counts: Tensor) -> Tensor:
    """The mean of the F1 scores of all classes that have examples or were predicted, (n,)."""
    hits = 2.0 * counts.diagonal(dim1=1, dim2=2)
    total = counts.sum(dim=1) + counts.sum(dim=2)
    return (hits / total.clamp(min=1.0)).sum(dim=1) / (total > 0).sum(dim=1)


METRICS: dict[str, Callable[[Tensor], Tensor]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}
"""Metrics (n,) of confusions (n, classes, classes), by name; larger is better."""

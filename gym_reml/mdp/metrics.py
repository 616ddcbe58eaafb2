"""Metrics of classifiers: functions of outputs and true labels, for n classifiers at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

PAIRS = 2**18
"""Pairs of examples that are compared at a time."""


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


def _confusion_of(outputs: Tensor, labels: Tensor) -> Tensor:
    return confusion(outputs.argmax(dim=2), labels, outputs.shape[2])


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The share of examples that were recognised."""
    # Without the counts, which take longer.
    return (outputs.argmax(dim=2) == labels).float().mean(dim=1)


def balanced_accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean of the recalls of all classes that have examples."""
    counts = _confusion_of(outputs, labels)
    return recalls(counts).sum(dim=1) / (counts.sum(dim=2) > 0).sum(dim=1)


def macro_f1(outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean of the F1 scores of all classes that have examples or were predicted."""
    counts = _confusion_of(outputs, labels)
    hits = 2.0 * counts.diagonal(dim1=1, dim2=2)
    total = counts.sum(dim=1) + counts.sum(dim=2)
    return (hits / total.clamp(min=1.0)).sum(dim=1) / (total > 0).sum(dim=1)


def recall_at(k: int, outputs: Tensor, labels: Tensor) -> Tensor:
    """The share of examples that have one with the same label among their k nearest neighbours.

    The outputs are taken as an embedding, in which distances are Euclidean. Where several are equally near and not all
    of them are among the k, those that are count as drawn at random: what counts is the probability that one of the k
    has the label, so the order of the examples does not matter. Examples whose distances are not finite are no
    neighbours, and have none; where there are fewer than k neighbours, all are meant. This is Recall@k of image
    retrieval (Jegou et al. 2011; Song et al. 2016, arXiv:1511.06452), where every example is a query once.

    Args:
        k: number of neighbours, at least 1.
        outputs: (n, b, dimensions).
        labels: (n, b) int64.
    """
    size = outputs.shape[1]
    # Of an example that has a NaN, all others are infinitely far.
    outputs = torch.where(outputs.isfinite().all(dim=2, keepdim=True), outputs, torch.inf)
    found = []
    # A part of the queries at a time, against all examples.
    for queries in torch.arange(size, device=outputs.device).split(max(1, PAIRS // (len(outputs) * size))):
        # By products of matrices, distances would be inexact, and equal ones different.
        distances = torch.cdist(outputs[:, queries], outputs, compute_mode="donot_use_mm_for_euclid_dist")
        distances[:, queries - queries[0], queries] = torch.inf
        # The least of all takes half of the time of the k least.
        nearest = distances.min(dim=2, keepdim=True) if k == 1 else distances.topk(min(k, size), largest=False)
        least, places = nearest.values, nearest.indices
        last = least[..., -1:]
        same = labels[:, queries, None] == labels[:, None]
        hit = (same.gather(2, places) & (least < last)).any(dim=2).float()
        tied = distances == last
        count, right = tied.sum(dim=2), (tied & same).sum(dim=2)
        left = (k - (least < last).sum(dim=2)) * last[..., 0].isfinite()
        # The tied ones are drawn one after the other.
        for drawn in range(k):
            chance = right / (count - drawn).clamp(min=1)
            hit = hit + (1.0 - hit) * torch.where(drawn < left, chance, 0.0)
        found.append(hit)
    return torch.cat(found, dim=1).mean(dim=1)


RETRIEVAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f"recall_at_{k}": partial(recall_at, k) for k in (1, 2, 4, 8)
}
"""Metrics of embeddings, which are the outputs; they have a meaning for classes that were not trained on, too."""

METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    **RETRIEVAL,
}
"""Metrics (n,) of outputs (n, b, classes) and labels (n, b) int64, by name; finite, and larger is better."""

"""Losses for classification with parameters, each row of networks with its own, as changes of cross-entropy."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional


class Loss(ABC):
    """One way to change cross-entropy by a parameter, or by one for each pair of classes.

    The loss of an example with logits z and one-hot label y is

        weights(...) * link(- sum_c targets(y)_c * log softmax(logits(z))_c)

    A loss is the four functions below, each of which leaves things as they are unless it is overridden. Losses are
    combined by applying the functions of one after those of another, and multiplying their weights. So a loss of your
    own is a few lines:

        class Temperature(Loss):
            name, low, high, start, move = "temperature", 0.5, 2.0, 1.0, 0.1

            def logits(self, logits, value, shares):
                return logits / value[:, None, None]

    In the functions, n are networks, b examples and C classes. `value` is (n,), or (n, C, C) where `by_pair` is true.
    `shares` (n, C) are those of the classes in each network's training part.

    Attributes:
        name: of the loss, an identifier.
        low, high: smallest and largest value of the parameter.
        start: the value of plain cross-entropy, or where an episode begins; by pair, the value on the diagonal, beside
            zeros.
        move: by how much one decision moves the parameter at most.
        by_pair: whether there is a parameter for each pair of classes.
    """

    name: ClassVar[str]
    low: ClassVar[float]
    high: ClassVar[float]
    start: ClassVar[float] = 0.0
    move: ClassVar[float]
    by_pair: ClassVar[bool] = False

    def logits(self, logits: Tensor, value: Tensor, shares: Tensor) -> Tensor:
        """Logits (n, b, C) in place of these."""
        return logits

    def targets(self, targets: Tensor, value: Tensor) -> Tensor:
        """Targets (n, b, C) in place of these, which begin as one-hot labels."""
        return targets

    def link(self, losses: Tensor) -> Tensor:
        """Losses of examples (n, b) in place of these."""
        return losses

    def weights(self, confidence: Tensor, labels: Tensor, value: Tensor, shares: Tensor) -> Tensor | None:
        """Weights (n, b) of examples; None for 1.

        Args:
            confidence: (n, b), the probability of the label, differentiable.
            labels: (n, b) int64.
            value: of the parameter.
            shares: of the classes.
        """
        return None


class LogitAdjustment(Loss):
    """Logits plus tau times the log shares of the classes (Menon et al. 2021, arXiv:2007.07314)."""

    name, low, high, move = "logit_adjustment", 0.0, 2.0, 0.25

    def logits(self, logits: Tensor, value: Tensor, shares: Tensor) -> Tensor:
        return logits + (value[:, None] * shares.log())[:, None]


class Focal(Loss):
    """Weights (1 - confidence)^gamma (Lin et al. 2017, arXiv:1708.02002)."""

    name, low, high, move = "focal", 0.0, 3.0, 0.5

    def weights(self, confidence: Tensor, labels: Tensor, value: Tensor, shares: Tensor) -> Tensor | None:
        # Kept away from 0, where small powers have infinite derivatives.
        return (1.0 - confidence).clamp(min=1e-6) ** value[:, None]


class Smoothing(Loss):
    """Targets (1 - eps) * y + eps / C, label smoothing (Szegedy et al. 2016, arXiv:1512.00567)."""

    name, low, high, move = "smoothing", 0.0, 0.6, 0.1

    def targets(self, targets: Tensor, value: Tensor) -> Tensor:
        share = value[:, None, None]
        return (1.0 - share) * targets + share / targets.shape[2]


class Trust(Loss):
    """Weights confidence^q without derivative: less trust in labels that the network finds unlikely.

    The gradient is that of generalised cross-entropy, (1 - confidence^q) / q (Zhang and Sabuncu 2018,
    arXiv:1805.07836).
    """

    name, low, high, move = "trust", 0.0, 1.0, 0.25

    def weights(self, confidence: Tensor, labels: Tensor, value: Tensor, shares: Tensor) -> Tensor | None:
        return confidence.detach() ** value[:, None]


class ClassWeights(Loss):
    """Weights share^-power of the label's class, times a factor that makes their mean over the training part 1."""

    name, low, high, move = "class_weights", 0.0, 1.0, 0.25

    def weights(self, confidence: Tensor, labels: Tensor, value: Tensor, shares: Tensor) -> Tensor | None:
        weights = shares ** -value[:, None]
        weights = weights / (weights * shares).sum(dim=1, keepdim=True)
        return weights.gather(1, labels)


class ClassCorrelation(Loss):
    """-log sigmoid(y^T Phi log f), of probabilities f: Phi (C, C) is the parameter, first the identity.

    The classification loss of Adaptive Loss Alignment (Huang et al. 2019, arXiv:1905.05895). At the identity it is
    log(1 + exp(cross-entropy)).
    """

    name, low, high, start, move, by_pair = "class_correlation", -1.0, 2.0, 1.0, 0.1, True

    def targets(self, targets: Tensor, value: Tensor) -> Tensor:
        return torch.bmm(targets, value)

    def link(self, losses: Tensor) -> Tensor:
        return functional.softplus(losses)


LOSSES: dict[str, Loss] = {
    loss.name: loss for loss in (LogitAdjustment(), Focal(), Smoothing(), Trust(), ClassWeights(), ClassCorrelation())
}
"""Every loss by its name."""


def find_losses(losses: Any) -> tuple[Loss, ...]:
    """The losses of these names; a `Loss` stands for itself.

    Raises:
        ValueError: no losses, an unknown name, or a name twice.
    """
    choices = ", ".join(map(repr, LOSSES))
    if isinstance(losses, str) or not isinstance(losses, Sequence) or not losses:
        raise ValueError(f"losses={losses!r}: must be a sequence of some of {choices}, or of Loss")
    for loss in losses:
        if not isinstance(loss, Loss) and (not isinstance(loss, str) or loss not in LOSSES):
            raise ValueError(f"losses: {loss!r} must be one of {choices}, or a Loss")
    found = tuple(loss if isinstance(loss, Loss) else LOSSES[loss] for loss in losses)
    names = [loss.name for loss in found]
    if len(set(names)) < len(names):
        raise ValueError(f"losses={losses!r}: must have different names")
    return found


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """The shares of the classes among labels (N,), (classes,) float32; a class without examples counts as with one."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).float()
    return counts / counts.sum()


def combined_loss(
    losses: Sequence[Loss], outputs: Tensor, labels: Tensor, values: Mapping[str, Tensor], shares: Tensor
) -> Tensor:
    """Mean losses (n,) of n networks, differentiable.

    Args:
        losses: applied in this order; none for cross-entropy.
        outputs: logits (n, b, C).
        labels: (n, b) int64.
        values: of the parameters by name of the loss, (n,) or (n, C, C).
        shares: of the classes in the training parts, (n, C).
    """
    logits = outputs
    targets = functional.one_hot(labels, outputs.shape[2]).to(outputs.dtype)
    for loss in losses:
        logits = loss.logits(logits, values[loss.name], shares)
        targets = loss.targets(targets, values[loss.name])
    log_probabilities = functional.log_softmax(logits, dim=2)
    each = -(targets * log_probabilities).sum(dim=2)
    confidence = log_probabilities.gather(2, labels[..., None])[..., 0].exp()
    for loss in losses:
        each = loss.link(each)
    for loss in losses:
        weights = loss.weights(confidence, labels, values[loss.name], shares)
        each = each if weights is None else weights * each
    return each.mean(dim=1)

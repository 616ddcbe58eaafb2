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

        weights(...) * link(- sum_c targets(y)_c * log softmax(logits(z))_c) + added(z, ...)

    A loss is the five functions below, each of which leaves things as they are unless it is overridden. Losses are
    combined by applying the functions of one after those of another, multiplying their weights, and summing what they
    add. So a loss of your own is a few lines:

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

    def added(self, outputs: Tensor, labels: Tensor, value: Tensor) -> Tensor | None:
        """Losses (n, b) that are added to those of the examples, neither linked nor weighted; None for 0.

        Args:
            outputs: of the networks, (n, b, C), as they are.
            labels: (n, b) int64.
            value: of the parameter.
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


class Classification(Loss):
    """A weight of cross-entropy beside losses that are added to it."""

    name, low, high, start, move = "classification", 0.0, 1.0, 1.0, 0.25

    def weights(self, confidence: Tensor, labels: Tensor, value: Tensor, shares: Tensor) -> Tensor | None:
        return value[:, None].expand_as(confidence)


class Triplet(Loss):
    """Adds weight * log(1 + exp(p - q)) of distances between outputs in the minibatch.

    p is that to the farthest example with the same label, q that to the nearest with another one. The soft-margin
    batch-hard triplet loss (Hermans et al. 2017, arXiv:1703.07737). Examples without one or the other add nothing.
    """

    name, low, high, move = "triplet", 0.0, 2.0, 0.25

    def distances(self, outputs: Tensor) -> Tensor:
        """Euclidean distances (n, b, b) between outputs (n, b, C)."""
        squares = (outputs[:, :, None] - outputs[:, None]).square().sum(dim=3)
        # Kept away from 0, where the root has an infinite derivative.
        return squares.clamp(min=1e-12).sqrt()

    def added(self, outputs: Tensor, labels: Tensor, value: Tensor) -> Tensor | None:
        distances, same = self.distances(outputs), labels[:, :, None] == labels[:, None]
        itself = torch.eye(labels.shape[1], dtype=torch.bool, device=labels.device)
        farthest = distances.masked_fill(~same | itself, -torch.inf).amax(dim=2)
        nearest = distances.masked_fill(same, torch.inf).amin(dim=2)
        return value[:, None] * functional.softplus(farthest - nearest)


class CosineTriplet(Triplet):
    """The same by cosine distances, 1 - cos, which do not depend on how long outputs are."""

    name = "cosine_triplet"

    def distances(self, outputs: Tensor) -> Tensor:
        """Cosine distances (n, b, b) between outputs (n, b, C)."""
        directions = functional.normalize(outputs, dim=2)
        return 1.0 - torch.bmm(directions, directions.transpose(1, 2))


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
    loss.name: loss
    for loss in (
        *(LogitAdjustment(), Focal(), Smoothing(), Trust(), ClassWeights()),
        *(Classification(), Triplet(), CosineTriplet()),
        ClassCorrelation(),
    )
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
    for loss in losses:
        added = loss.added(outputs, labels, values[loss.name])
        each = each if added is None else each + added
    return each.mean(dim=1)

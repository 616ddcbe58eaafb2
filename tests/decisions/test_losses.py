"""Losses against torch's functions and closed forms, their gradients, and their rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gym_reml.decisions.losses import LOSSES, Loss, class_shares, combined_loss, find_losses

ROWS, EXAMPLES, CLASSES = 3, 7, 4
VALUES: dict[str, Tensor] = {
    "logit_adjustment": torch.tensor([0.0, 0.5, 1.5]),
    "focal": torch.tensor([0.0, 1.0, 2.5]),
    "smoothing": torch.tensor([0.0, 0.1, 0.4]),
    "trust": torch.tensor([0.0, 0.3, 1.0]),
    "class_weights": torch.tensor([0.0, 0.5, 1.0]),
    "classification": torch.tensor([0.0, 0.25, 1.0]),
    "triplet": torch.tensor([0.0, 0.5, 1.5]),
    "cosine_triplet": torch.tensor([0.0, 1.0, 2.0]),
    "class_correlation": torch.eye(CLASSES) + 0.3 * torch.randn(ROWS, CLASSES, CLASSES, generator=torch.manual_seed(1)),
}


def problem() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = 2.0 * torch.randn(ROWS, EXAMPLES, CLASSES, generator=generator)
    labels = torch.randint(CLASSES, (ROWS, EXAMPLES), generator=generator)
    shares = torch.rand(ROWS, CLASSES, generator=generator) + 0.1
    return outputs.requires_grad_(), labels, shares / shares.sum(dim=1, keepdim=True)


def in_words(name: str, outputs: Tensor, labels: Tensor, value: Tensor, shares: Tensor) -> Tensor:
    """The loss of one row by torch's functions, or written out."""
    each = functional.cross_entropy(outputs, labels, reduction="none")
    confidence = outputs.softmax(1)[torch.arange(len(labels)), labels]
    if name == "logit_adjustment":
        return functional.cross_entropy(outputs + value * shares.log(), labels)
    if name == "focal":
        return ((1 - confidence) ** value * each).mean()
    if name == "smoothing":
        return functional.cross_entropy(outputs, labels, label_smoothing=float(value))
    if name == "trust":
        return (confidence.detach() ** value * each).mean()
    if name == "class_weights":
        weights = shares**-value / (shares ** (1 - value)).sum()
        return functional.cross_entropy(outputs, labels, weight=weights, reduction="none").mean()
    if name == "classification":
        return value * each.mean()
    if name.endswith("triplet"):
        return each.mean() + value * triplets(name, outputs, labels)
    assert name == "class_correlation"
    aligned = torch.stack([value[label] @ outputs.log_softmax(1)[place] for place, label in enumerate(labels)])
    return -functional.logsigmoid(aligned).mean()


def triplets(name: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean over the examples of one row of their hardest triplets, by loops."""
    total = torch.zeros(())
    for place in range(len(labels)):
        distances = {
            other: (outputs[place] - outputs[other]).norm()
            if name == "triplet"
            else 1 - functional.cosine_similarity(outputs[place], outputs[other], dim=0)
            for other in range(len(labels))
            if other != place
        }
        positives = [distance for other, distance in distances.items() if labels[other] == labels[place]]
        negatives = [distance for other, distance in distances.items() if labels[other] != labels[place]]
        if positives and negatives:
            total = total + (max(positives) - min(negatives)).exp().log1p()
    return total / len(labels)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_closed_form(name: str) -> None:
    outputs, labels, shares = problem()
    found = combined_loss([LOSSES[name]], outputs, labels, VALUES, shares)
    rows = range(ROWS)
    expected = torch.stack([in_words(name, outputs[i], labels[i], VALUES[name][i], shares[i]) for i in rows])
    torch.testing.assert_close(found, expected)
    mine, theirs = (torch.autograd.grad(losses.sum(), outputs)[0] for losses in (found, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_each_begins_as_cross_entropy(name: str) -> None:
    outputs, labels, shares = problem()
    loss = LOSSES[name]
    value = loss.start * (torch.eye(CLASSES).expand(ROWS, -1, -1) if loss.by_pair else torch.ones(ROWS))
    found = combined_loss([loss], outputs, labels, {name: value}, shares)
    plain = functional.cross_entropy(outputs.transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(found, (plain.exp().log1p() if loss.by_pair else plain).mean(dim=1))
    assert loss.low <= loss.start <= loss.high


def test_trust_has_the_gradient_of_generalised_cross_entropy() -> None:
    outputs, labels, shares = problem()
    q = torch.tensor([0.2, 0.7, 1.0])
    trusted = combined_loss([LOSSES["trust"]], outputs, labels, {"trust": q}, shares)
    confidence = outputs.softmax(2).gather(2, labels[..., None])[..., 0]
    generalised = ((1 - confidence ** q[:, None]) / q[:, None]).mean(dim=1)
    mine, theirs = (torch.autograd.grad(losses.sum(), outputs)[0] for losses in (trusted, generalised))
    torch.testing.assert_close(mine, theirs)


def test_all_together_row_by_row_and_finite_where_networks_are_certain() -> None:
    outputs, labels, shares = problem()
    losses = find_losses(list(LOSSES))
    whole = combined_loss(losses, outputs, labels, VALUES, shares)
    for row in range(ROWS):
        one = slice(row, row + 1)
        own = {name: value[one] for name, value in VALUES.items()}
        torch.testing.assert_close(combined_loss(losses, outputs[one], labels[one], own, shares[one])[0], whole[row])
    for scale in (1e4, -1e4):
        certain = scale * functional.one_hot(labels, CLASSES).float()
        certain.requires_grad_()
        loss = combined_loss(losses[:-1], certain, labels, VALUES | {"focal": torch.full((ROWS,), 0.5)}, shares)
        assert torch.autograd.grad(loss.sum(), certain)[0].isfinite().all()


@pytest.mark.parametrize("name", ["triplet", "cosine_triplet"])
def test_triplets_of_one_class_or_of_equal_outputs(name: str) -> None:
    outputs, _, shares = problem()
    # Of one class there are no triplets; in the second row no pair of a class, in the third all outputs are equal.
    labels = torch.tensor([[1] * 4, [0, 1, 2, 3], [0, 0, 1, 1]])
    outputs = torch.stack([outputs[0, :4], outputs[1, :4], torch.zeros(4, CLASSES)]).detach().requires_grad_()
    losses, ones = find_losses(["classification", name]), torch.ones(ROWS)
    found = combined_loss(losses, outputs, labels, {"classification": 0 * ones, name: ones}, shares)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, math.log(2.0)]))
    gradient = torch.autograd.grad(found.sum(), outputs)[0]
    assert gradient.isfinite().all()
    assert not gradient[:2].any()


def test_classes_without_examples_count_as_with_one() -> None:
    torch.testing.assert_close(class_shares(torch.tensor([0, 0, 0, 2]), 3), torch.tensor([0.6, 0.2, 0.2]))


class Temperature(Loss):
    name, low, high, start, move = "temperature", 0.5, 2.0, 1.0, 0.1

    def logits(self, logits: Tensor, value: Tensor, shares: Tensor) -> Tensor:
        return logits / value[:, None, None]


def test_a_loss_of_ones_own() -> None:
    outputs, labels, shares = problem()
    losses = find_losses([Temperature(), "smoothing"])
    half = {"temperature": torch.full((ROWS,), 0.5), "smoothing": torch.full((ROWS,), 0.2)}
    expected = combined_loss([LOSSES["smoothing"]], 2 * outputs, labels, half, shares)
    torch.testing.assert_close(combined_loss(losses, outputs, labels, half, shares), expected)
    for wrong in ((), "focal", ["focal", "focal"], ["hinge"], [3], None):
        with pytest.raises(ValueError, match="losses"):
            find_losses(wrong)

"""The process of loss alignment: an agent changes the parameters of the loss of networks under training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gym_reml.checks import is_number
from gym_reml.decisions.losses import Loss, class_shares, combined_loss, find_losses
from gym_reml.mdp.child_training import Criterion, CrossEntropy, Progress
from gym_reml.mdp.metrics import confusion, recalls
from gym_reml.mdp.runs import Axis, MakeNetwork, RunProcess
from gym_reml.spaces.decision import Decided, Decision
from gym_reml.tasks.data_sets.base import DataSet, DataSets

REWARDS = ("gain", "sign")
SPREAD = ("least_recall", "recall_deviation", "confidence", "entropy")
"""Statistics of all classes together."""
MEMORY = 0.8
"""Share of a moving average that is kept at each decision."""
LEAST_LOG = -20.0


class LossProcess(RunProcess):
    """n runs of training, side by side, with an agent at the parameters of their losses.

    Each decision moves the parameters of the loss that the next minibatches are trained by (Huang et al. 2019,
    arXiv:1905.05895). Classes are counted by rank: 0 is the one with the most training examples.

    Attributes:
        losses: whose parameters are decided.
        classes: their number, C.
        step_size: of all updates.
    """

    title = "Loss"

    def __init__(
        self,
        count: int,
        data_sets: DataSets,
        *,
        losses: Sequence[str | Loss],
        metric: str,
        reward: str,
        module: MakeNetwork | None,
        optimizer: str,
        step_size: float,
        horizon: int,
        updates: int,
        device: torch.device,
    ) -> None:
        """Creates the runs; see `RunProcess`.

        Raises:
            ValueError: an invalid value; the message names the argument of the environment.
        """
        self.losses = find_losses(losses)
        if reward not in REWARDS:
            raise ValueError(f"reward={reward!r}: must be one of {', '.join(map(repr, REWARDS))}")
        if not is_number(step_size) or not 0 < step_size < math.inf:
            raise ValueError(f"step_size={step_size!r}: must be a positive number")
        self.step_size, self._signed = float(step_size), reward == "sign"

        def criterion(data: DataSet) -> Criterion:
            if data.train.targets.is_floating_point():
                raise ValueError("train: its targets are numbers; the losses are for labels, which are integers")
            if data.outputs < 2:
                raise ValueError("train: has one class; must have several")
            self.classes = data.outputs
            return CrossEntropy(metric)

        super().__init__(
            count,
            data_sets,
            module=module,
            optimizer=optimizer,
            criterion=criterion,
            horizon=horizon,
            updates=updates,
            device=device,
        )
        self._lay_out_parameters()
        classes = self.classes
        self._confused = any(loss.by_pair for loss in self.losses)
        self._shares = np.full((count, classes), 1.0 / classes, dtype=np.float32)
        self._ranks = np.tile(np.arange(classes), (count, 1))
        self._statistics, self._averages, self._relative = np.zeros((3, count, len(SPREAD) + classes))
        self._confusions = np.zeros((count, classes * classes))

    def _lay_out_parameters(self) -> None:
        names: list[str] = []
        axes: dict[str, Axis] = {}
        low: list[float] = []
        high: list[float] = []
        start: list[float] = []
        move: list[float] = []
        for loss in self.losses:
            pairs = [f"{loss.name}_{one}_{other}" for one in range(self.classes) for other in range(self.classes)]
            own = pairs if loss.by_pair else [loss.name]
            starts = loss.start * np.eye(self.classes).flatten() if loss.by_pair else np.array([loss.start])
            names += own
            axes |= dict.fromkeys(own, Axis(loss.low, loss.high))
            low += [loss.low] * len(own)
            high += [loss.high] * len(own)
            move += [loss.move] * len(own)
            start += starts.tolist()
        self._low, self._high, self._first, self._move = map(np.array, (low, high, start, move))
        self._parameters = np.tile(self._first, (self.count, 1))
        classes = self.classes
        own_parts = {
            "statistics": len(SPREAD) + classes,
            "relative": len(SPREAD) + classes,
            "imbalance": 1,
            "parameters": len(names),
        }
        if any(loss.by_pair for loss in self.losses):
            own_parts["confusions"] = classes * classes
        self._lay_out(Decision(numbers=len(names), names=tuple(names)), axes, own_parts)

    def _begin(self, row: int, data: DataSet) -> None:
        if data.outputs != self.classes:
            raise ValueError(
                f"family: has tasks of {self.classes} and of {data.outputs} classes; their number must not depend on "
                "the task"
            )
        self._shares[row] = class_shares(data.train.targets, self.classes).numpy()
        self._ranks[row] = np.argsort(-self._shares[row], kind="stable")

    def _start(self, rows: NDArray[np.int64]) -> None:
        self._parameters[rows] = self._first
        self._averages[rows] = np.nan
        self._name_values()

    def _name_values(self) -> None:
        self.values = dict(zip(self.decision.names, self._parameters.T.copy(), strict=True))

    def _train(self, decided: Decided) -> Progress:
        moved = self._parameters + self._move * decided.numbers
        self._parameters = np.clip(moved, self._low, self._high)
        self._name_values()
        values, shares = self._loss_values(), torch.from_numpy(self._shares).to(self.device)

        def loss(outputs: Tensor, targets: Tensor, rows: list[int]) -> Tensor:
            own = {name: value[rows] for name, value in values.items()}
            return combined_loss(self.losses, outputs, targets, own, shares[rows])

        step_sizes = np.full(self.count, self.step_size)
        return self.children.update(self.updates, step_sizes, loss=loss, by_groups=False)

    def _loss_values(self) -> dict[str, Tensor]:
        """The parameters as the losses take them: of pairs of classes by label, no longer by rank."""
        parameters, values, first = self._parameters.astype(np.float32), {}, 0
        for loss in self.losses:
            if not loss.by_pair:
                values[loss.name] = torch.from_numpy(parameters[:, first].copy()).to(self.device)
                first += 1
                continue
            size = self.classes**2
            by_rank = parameters[:, first : first + size].reshape(-1, self.classes, self.classes)
            by_label = np.empty_like(by_rank)
            rows = np.arange(self.count)[:, None, None]
            by_label[rows, self._ranks[:, :, None], self._ranks[:, None, :]] = by_rank
            values[loss.name] = torch.from_numpy(by_label).to(self.device)
            first += size
        return values

    def _remember(self, progress: Progress, rows: NDArray[np.int64] | slice) -> None:
        summary = self.children.summarise("validation", _summary)
        spread, classes = summary[:, : len(SPREAD)], summary[:, len(SPREAD) : len(SPREAD) + self.classes]
        ranked = np.take_along_axis(classes, self._ranks, axis=1)
        now = np.concatenate([spread, ranked], axis=1)[rows]
        # At the start there is no average yet.
        before = np.where(np.isnan(self._averages[rows]), now, self._averages[rows])
        self._statistics[rows], self._relative[rows] = now, now - before
        self._averages[rows] = MEMORY * before + (1.0 - MEMORY) * now
        if self._confused:
            counts = summary[:, len(SPREAD) + self.classes :].reshape(-1, self.classes, self.classes)
            every = np.arange(self.count)[:, None, None]
            self._confusions[rows] = counts[every, self._ranks[:, :, None], self._ranks[:, None, :]].reshape(
                self.count, -1
            )[rows]

    def _observe_own(self, flat: NDArray[np.float64]) -> None:
        parts = self.parts
        flat[:, parts["statistics"]], flat[:, parts["relative"]] = self._statistics, self._relative
        # Behind the shares of classes that are not trained on, which are the least.
        rarest = np.sort(self._shares, axis=1)[:, self.data_sets.unseen]
        flat[:, parts["imbalance"]] = np.log10(self._shares.max(axis=1) / rarest)[:, None]
        flat[:, parts["parameters"]] = 2.0 * (self._parameters - self._low) / (self._high - self._low) - 1.0
        if self._confused:
            flat[:, parts["confusions"]] = self._confusions

    def _reward(self, gain: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign(gain) if self._signed else gain


def _summary(outputs: Tensor, labels: Tensor) -> Tensor:
    """Statistics (n, k) of answers (n, b, C): `SPREAD`, the mean log-probability by class, confusions in shares."""
    classes = outputs.shape[2]
    logs = functional.log_softmax(outputs, dim=2)
    probabilities = logs.exp()
    counts = confusion(outputs.argmax(dim=2), labels, classes)
    found = recalls(counts)
    predicted = counts.sum(dim=1) / labels.shape[1]
    entropy = -torch.xlogy(predicted, predicted).sum(dim=1) / math.log(classes)
    spread = [found.amin(dim=1), found.std(dim=1), probabilities.amax(dim=2).mean(dim=1), entropy]
    own = logs.gather(2, labels[..., None])[..., 0].clamp(min=LEAST_LOG)
    sums = torch.zeros_like(logs[:, 0]).scatter_add_(1, labels, own)
    present = counts.sum(dim=2).clamp(min=1.0)
    shares = counts / present[..., None]
    return torch.cat([torch.stack(spread, dim=1), sums / present, shares.flatten(1)], dim=1)

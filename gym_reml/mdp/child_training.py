"""Child training: n networks, each on its own data set, trained side by side by minibatches.

What is exchanged to make a decision of it is a part: the optimizer (`networks.optimizers`), what is measured
(`Criterion`), the loss that is trained by (`RowLoss`), the rule of updates (`RowUpdate`), and how the inputs of
minibatches are changed (`Augmentation`).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gym_reml.mdp.metrics import METRICS
from gym_reml.networks.optimizers import Optimizer, State
from gym_reml.networks.part import FEW_NETWORKS, Part, naming_submodule, seeded
from gym_reml.networks.torch_state import own_state
from gym_reml.tasks.data_sets.base import DataSet, Examples

LARGEST_LOSS = 1e4
"""Larger losses, and such that are not finite, count as this."""

CPU = torch.device("cpu")
TINY = 1e-20
CHUNK = 2**12
"""Examples of held-out parts that are computed at a time, of all children together: larger tensors leave the caches."""
KINDS = 16
"""Up to this many kinds of modules are kept though no row has one any more: making and trying one takes as long as the
rest of a reset."""


class Criterion(ABC):
    """What children are trained by, and what is measured of them; of n children with b examples each.

    Attributes:
        metric_name: what the metric is; larger is better.
    """

    metric_name: str

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (n,), differentiable, of outputs (n, b, out) and targets (n, b, ...)."""

    @abstractmethod
    def metric(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Metrics (n,) of outputs (n, b, out) and targets (n, b, ...)."""


class CrossEntropy(Criterion):
    """Mean cross-entropy of logits (n, b, classes) and labels (n, b) int64; the metric is one of `METRICS`."""

    def __init__(self, metric: str = "accuracy") -> None:
        """Takes the name of the metric.

        Raises:
            ValueError: an unknown name.
        """
        if metric not in METRICS:
            raise ValueError(f"metric={metric!r}: must be one of {', '.join(map(repr, METRICS))}")
        self.metric_name = metric

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # Along a dimension that is not the last, log_softmax of few classes is twenty times as fast.
        by_class = outputs.transpose(1, 2).contiguous()
        return functional.cross_entropy(by_class, targets, reduction="none").mean(dim=1)

    def metric(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return METRICS[self.metric_name](outputs, targets)


class SquaredError(Criterion):
    """Mean squared error of numbers (n, b, out); the metric is -log(1 + error)."""

    metric_name = "score"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(dim=(1, 2))

    def metric(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -torch.log1p(self.loss(outputs, targets).nan_to_num(LARGEST_LOSS).clamp(max=LARGEST_LOSS))


def criterion_for(data: DataSet) -> Criterion:
    """Cross-entropy where targets are labels, squared error where they are numbers."""
    return SquaredError() if data.train.targets.is_floating_point() else CrossEntropy()


RowLoss = Callable[[Tensor, Tensor, list[int]], Tensor]
"""A loss to train by in place of the criterion's: losses (g,), differentiable, of outputs (g, b, out), targets
(g, b, ...) and the g rows of the children that these are of."""

RowUpdate = Callable[[Tensor, Tensor, list[int]], Tensor]
"""A rule to update by in place of the optimizer: directions (g, P) of gradients (g, P), weights (g, P) and the g rows
of the children that these are of."""

Augmentation = Callable[[Tensor, list[int]], Tensor]
"""Inputs (g, b, ...) to train on in place of those of a minibatch, given with the g rows of the children."""


class Child(NamedTuple):
    """What a row starts from.

    Attributes:
        make: makes the module, with new weights; called with torch's random numbers seeded from `generator`.
        kind: equal for children whose modules differ in their weights only.
        data: what it is trained on.
        generator: draws the weights and the order of the examples.
    """

    make: Callable[[], nn.Module]
    kind: Hashable
    data: DataSet
    generator: np.random.Generator


@dataclass
class Progress:
    """What n children went through in some updates, by groups of parameters, see `Children.groups`.

    Attributes:
        loss, metric: (n,) float64, the criterion's, means over the minibatches, each before its update; of children
            that have diverged those of their initial weights on the training part.
        gradient_norms: (n, G) float64, root mean square over the updates.
        update_ratios: (n, G) float64, norm of what the updates added together to the weights, over that of the weights.
        alignments: (n, G) float64, mean cosine of the gradients of successive updates, from -1 to 1.
    """

    loss: NDArray[np.float64]
    metric: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]
    update_ratios: NDArray[np.float64]
    alignments: NDArray[np.float64]


class Order:
    """The order of a child's training examples: one random permutation after the other."""

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        """Of so many examples."""
        self._count, self._generator = count, generator
        self._left = np.empty(0, dtype=np.int64)

    def take(self, count: int) -> NDArray[np.int64]:
        """The places of the next examples, (count,)."""
        parts = [self._left]
        have = len(self._left)
        while have < count:
            parts.append(self._generator.permutation(self._count))
            have += self._count
        places = np.concatenate(parts)
        self._left = places[count:]
        return places[:count]


@dataclass
class _Group:
    """Children with networks, minibatches and held-out parts of equal shapes; tensors have one row for each.

    Attributes:
        rows: of the children.
        children, orders: by row.
        part: the module, whose weights are arguments.
        weights: (g, P), all of a child's weights in one row.
        state, count, gradient: the optimizer's state, number of updates, last gradient (g, P).
        answers: outputs (g, b, out) of these weights on held-out parts, as far as they were asked for.
    """

    rows: list[int]
    children: list[Child]
    orders: list[Order]
    part: Part
    weights: Tensor
    state: State
    count: Tensor
    gradient: Tensor
    answers: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        sets = [child.data for child in self.children]
        self.batch_size = sets[0].batch_size
        # Children that share a data set share its memory.
        different = list({id(data): data for data in sets}.values())
        starts = np.cumsum([0, *(len(data.train) for data in different)])
        numbers = {id(data): number for number, data in enumerate(different)}
        self._starts = starts[[numbers[id(data)] for data in sets]]
        device = self.weights.device
        self.train = _joined([data.train for data in different], torch.cat, device)
        self.held_out = {}
        for name in sets[0].parts:
            if name != "train":
                parts = [data.parts[name] for data in (sets if len(different) > 1 else different)]
                part = _joined(parts, torch.stack, device)
                self.held_out[name] = Examples(_expanded(part.inputs, len(sets)), _expanded(part.targets, len(sets)))
        self._shapes = list(self.part.shapes.values())
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self._group_sizes = list(_group_sizes(self.part).values())

    def tensors(self, values: Tensor) -> list[Tensor]:
        """The weights, or what there is of each of them (g, P), in their shapes: views (g, *shape)."""
        parts = values.split(self._sizes, dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def outputs(self, inputs: Tensor) -> Tensor:
        """Outputs (g, b, out) for inputs (g, b, ...)."""
        return self.part.side_by_side(self.tensors(self.weights), inputs)

    def by_group(self, values: Tensor) -> Tensor:
        """The sums (g, G) of values (g, P) over the weights of each group of parameters."""
        return torch.stack([part.sum(dim=1) for part in values.split(self._group_sizes, dim=1)], dim=1)

    def by_weight(self, values: Tensor) -> Tensor:
        """For values (g, G) of the groups of parameters those of each weight (g, P); values (g, 1) stay as they are."""
        if values.shape[1] == 1:
            return values
        return torch.cat([values[:, [index]].expand(-1, size) for index, size in enumerate(self._group_sizes)], dim=1)

    def places(self, updates: int) -> Tensor:
        """Where the minibatches of the next updates are in the training parts, (updates, g, batch_size) int64."""
        taken = np.stack([order.take(updates * self.batch_size) for order in self.orders])
        places = taken.reshape(len(taken), updates, -1) + self._starts[:, None, None]
        return torch.from_numpy(places.swapaxes(0, 1).copy()).to(self.weights.device)

    def first_places(self) -> Tensor:
        """Where the first examples of each training part are, (g, batch_size); repeated, if they are too few."""
        each = [np.arange(self.batch_size) % len(child.data.train) for child in self.children]
        return torch.from_numpy(np.stack(each) + self._starts[:, None]).to(self.weights.device)

    def minibatch(self, places: Tensor) -> Examples:
        """The examples at these places, (g, batch_size, ...)."""
        flat = places.flatten()
        # index_select is three times as fast as indexing.
        inputs, targets = self.train.inputs.index_select(0, flat), self.train.targets.index_select(0, flat)
        return Examples(inputs.unflatten(0, places.shape), targets.unflatten(0, places.shape))


def _expanded(values: Tensor, count: int) -> Tensor:
    return values.expand(count, *values.shape[1:])


def _joined(parts: Sequence[Examples], join: Callable[[list[Tensor]], Tensor], device: torch.device) -> Examples:
    return Examples(*(join([getattr(part, side) for part in parts]).to(device) for side in ("inputs", "targets")))


def _select(groups: Sequence[_Group], rows: set[int]) -> _Group | None:
    """The children of these rows in groups of equal shapes, as one group; None if there are none."""
    found = [(row, number, place) for number, group in enumerate(groups) for place, row in enumerate(group.rows)]
    found = sorted(entry for entry in found if entry[0] in rows)
    if not found:
        return None
    if len(groups) == 1 and len(found) == len(groups[0].rows):
        return groups[0]
    starts = np.cumsum([0, *(len(group.rows) for group in groups)])
    index = torch.tensor([int(starts[number]) + place for _, number, place in found], device=groups[0].weights.device)
    states = zip(*(group.state for group in groups), strict=True)
    return _Group(
        [row for row, _, _ in found],
        [groups[number].children[place] for _, number, place in found],
        [groups[number].orders[place] for _, number, place in found],
        groups[0].part,
        torch.cat([group.weights for group in groups])[index],
        [tuple(torch.cat(tensors)[index] for tensors in zip(*of_weight, strict=True)) for of_weight in states],
        torch.cat([group.count for group in groups])[index],
        torch.cat([group.gradient for group in groups])[index],
    )


def _group_sizes(part: Part) -> dict[str, int]:
    """The number of weights in each group of parameters by name, see `Children.groups`."""
    owners = [name.split(".")[:-1] for name in part.shapes]
    # Those that all parameters are in, such as an `nn.Sequential` that is a module's one child.
    wrappers = len(list(takewhile(lambda names: len(set(names)) == 1, zip(*owners, strict=False))))
    sizes: dict[str, int] = {}
    for owner, shape in zip(owners, part.shapes.values(), strict=True):
        group = ".".join(owner[: wrappers + 1])
        sizes[group] = sizes.get(group, 0) + math.prod(shape)
    return sizes


class Children:
    """n networks under training, side by side.

    Rows are independent: each draws its weights and minibatches from its own generator. A child whose loss or weights
    would not be finite after an update has *diverged*: it keeps its weights from before and is updated no more, and its
    losses and metrics are those of its initial weights from then on, as of a run that came to nothing.

    Attributes:
        count: n.
        device: that the networks are trained on, with a copy of their data.
        groups: names of the G groups of parameters, in order; none before the first `start`. Each child of the module
            that has parameters is a group, and so are those of the module itself, if any, with the name "". A module
            that only wraps another one counts as that one.
        diverged: (n,) bool.
    """

    def __init__(self, count: int, optimizer: Optimizer, criterion: Criterion, device: torch.device = CPU) -> None:
        """Takes number of rows, optimizer, criterion and device; call `start` for all rows before `update`."""
        self.count, self.optimizer, self.criterion, self.device = count, optimizer, criterion, device
        self.groups: tuple[str, ...] = ()
        self.diverged = np.zeros(count, dtype=np.bool_)
        self._groups: dict[Hashable, _Group] = {}
        self._parts: dict[Hashable, Part] = {}
        self._initial: dict[str, NDArray[np.float64]] = {}

    @own_state
    @torch.no_grad()
    def start(self, rows: Sequence[int], children: Sequence[Child]) -> Progress:
        """Starts new children in these rows; one that is given for several rows begins alike in all of them.

        Returns:
            Loss, metric and gradient of the first training examples; nothing has been updated.

        Raises:
            ValueError: a module that cannot be trained side by side with others, or whose outputs or number of groups
                are not those of the others.
        """
        new: dict[Hashable, list[_Group]] = {}
        first: dict[int, _Group] = {}
        for row, child in zip(rows, children, strict=True):
            held_out = [len(part) for name, part in child.data.parts.items() if name != "train"]
            key: Hashable = (child.kind, child.data.batch_size, *held_out)
            if id(child) in first:
                begun = first[id(child)]
                new[key].append(replace(begun, rows=[row], orders=copy.deepcopy(begun.orders)))
            else:
                first[id(child)] = self._begin(row, child)
                new.setdefault(key, []).append(first[id(child)])
        others = set(range(self.count)) - set(rows)
        kept = {key: _select([group], others) for key, group in self._groups.items()}
        self._groups = {key: group for key, group in kept.items() if group is not None}
        for key, some in new.items():
            groups = [*some, *([self._groups[key]] if key in self._groups else [])]
            whole = _select(groups, set(range(self.count)))
            assert whole is not None
            self._groups[key] = whole
        if len(self._parts) > KINDS:
            used = {child.kind for group in self._groups.values() for child in group.children}
            self._parts = {kind: part for kind, part in self._parts.items() if kind in used}
        places = list(rows)
        self.diverged[places] = False
        progress = self._probe()
        self.diverged[places] = ~np.isfinite(progress.loss[places])
        progress.loss[:] = np.minimum(np.nan_to_num(progress.loss, nan=LARGEST_LOSS), LARGEST_LOSS)
        measured = {"train_loss": progress.loss, "train_metric": progress.metric}
        for name in self.held_out:
            measured[f"{name}_loss"], measured[f"{name}_metric"] = self._measure(name)
        for name, values in measured.items():
            self._initial.setdefault(name, np.zeros(self.count))[places] = values[places]
        return progress

    @property
    def held_out(self) -> tuple[str, ...]:
        """The names of the parts that are not trained on."""
        return tuple(next(iter(self._groups.values())).held_out)

    @own_state
    @torch.no_grad()
    def prepare(self, child: Child) -> Part:
        """The module of such children, made and checked at the first call for its kind; see `start` for errors."""
        if child.kind not in self._parts:
            # Constants come from this module, and are those of every child: its numbers follow from nothing else.
            part = _make_part(child.make, 0)
            self._check(part, child.data)
            self._parts[child.kind] = part
        return self._parts[child.kind]

    def _begin(self, row: int, child: Child) -> _Group:
        part = self.prepare(child)
        made = _make_part(child.make, int(child.generator.integers(2**63)))
        weights = torch.cat([value.flatten() for value in made.initial().values()])[None].to(self.device)
        state, count = self.optimizer.initial([weights]), torch.zeros(1, dtype=torch.int64, device=self.device)
        order = Order(len(child.data.train), child.generator)
        return _Group([row], [child], [order], part, weights, state, count, torch.zeros_like(weights))

    def _check(self, part: Part, data: DataSet) -> None:
        """Raises a ValueError unless the module maps the inputs to outputs, and has as many groups as others."""
        if not part.shapes:
            raise ValueError("module: has no parameters to train")
        # As many networks as are computed by vmap.
        count = FEW_NETWORKS + 1
        # A copy, because autograd takes no tensors of the user's inference mode.
        inputs = data.train.inputs[:2].clone().to(self.device).expand(count, *[-1] * data.train.inputs.ndim)
        initial = [value.to(self.device) for value in part.initial().values()]
        part.try_once(initial, inputs[0])
        with naming_submodule(part):
            outputs = part.try_out([value.expand(count, *value.shape) for value in initial], inputs, twice=False)
        part.check_derivative()
        found, expected = tuple(outputs.shape[1:]), (inputs.shape[1], data.outputs)
        if found != expected:
            raise ValueError(f"module: maps inputs {tuple(inputs.shape[1:])} to {found}, must map them to {expected}")
        groups = tuple(_group_sizes(part))
        if self.groups and len(groups) != len(self.groups):
            raise ValueError(
                f"module: has {len(groups)} children with parameters for one task and {len(self.groups)} for another; "
                "their number must not depend on the task"
            )
        self.groups = groups

    def _loss_and_gradient(
        self, group: _Group, batch: Examples, out: Tensor, row_loss: RowLoss | None = None
    ) -> tuple[Tensor, Tensor]:
        """The criterion's losses (g,) and metrics (g,) of a minibatch; gradients are written into `out`, (g, P)."""
        with torch.enable_grad():
            weights = [tensor.detach().requires_grad_() for tensor in group.tensors(group.weights)]
            outputs = group.part.side_by_side(weights, batch.inputs)
            if row_loss is None:
                trained = loss = self.criterion.loss(outputs, batch.targets)
            else:
                trained = row_loss(outputs, batch.targets, group.rows)
                loss = self.criterion.loss(outputs.detach(), batch.targets)
            # Each loss depends on its own row of the weights only.
            gradients = torch.autograd.grad(trained.sum(), weights, allow_unused=True)
        for gradient, place in zip(gradients, group.tensors(out), strict=True):
            if gradient is None:
                place.zero_()
            else:
                place.copy_(gradient)
        return loss.detach(), self.criterion.metric(outputs.detach(), batch.targets)

    def _probe(self) -> Progress:
        progress = self._no_progress()
        for group in self._groups.values():
            gradient = torch.empty_like(group.weights)
            loss, metric = self._loss_and_gradient(group, group.minibatch(group.first_places()), gradient)
            progress.loss[group.rows] = loss.cpu().numpy()
            progress.metric[group.rows] = metric.cpu().numpy()
            progress.gradient_norms[group.rows] = _finite(group.by_group(gradient.square()).sqrt())
        return progress

    def _no_progress(self) -> Progress:
        shape = (self.count, len(self.groups))
        return Progress(np.zeros(self.count), np.zeros(self.count), np.zeros(shape), np.zeros(shape), np.zeros(shape))

    @own_state
    @torch.no_grad()
    def update(
        self,
        updates: int,
        step_sizes: NDArray[np.float64],
        *,
        momentum: NDArray[np.float64] | None = None,
        weight_decay: NDArray[np.float64] | None = None,
        loss: RowLoss | None = None,
        rule: RowUpdate | None = None,
        augmentation: Augmentation | None = None,
        rows: Sequence[int] | None = None,
        by_groups: bool = True,
    ) -> Progress:
        """Trains children by so many minibatches: w - step_size * (direction + weight_decay * w) for each.

        Args:
            updates: number of minibatches.
            step_sizes: (n,), or (n, G) for one for each group of parameters.
            momentum: (n,), see `Optimizer.direction`; None for the optimizer's own.
            weight_decay: (n,), decoupled as in AdamW; None for none.
            loss: what is trained by; None for the criterion's.
            rule: what gives the directions; None for the optimizer, whose state stays as it is otherwise.
            augmentation: changes the inputs of minibatches; None to leave them as they are.
            rows: whose children are trained; None for all. Of the others there is no progress.
            by_groups: whether to measure gradients and weights, by groups of parameters, which takes a tenth of the
                time; these parts of the progress are 0 otherwise.
        """
        progress = self._no_progress()
        for key, group in list(self._groups.items()):
            trained = group if rows is None else _select([group], set(rows))
            if trained is None:
                continue
            self._update(
                trained,
                updates,
                progress,
                step_sizes=group.by_weight(self._columns(step_sizes, trained.rows)),
                momentum=None if momentum is None else self._columns(momentum, trained.rows)[:, 0],
                decay=None if weight_decay is None else self._columns(weight_decay, trained.rows),
                row_loss=loss,
                rule=rule,
                augmentation=augmentation,
                by_groups=by_groups,
            )
            if trained is not group:
                others = _select([group], set(group.rows) - set(trained.rows))
                assert others is not None
                whole = _select([trained, others], set(group.rows))
                assert whole is not None
                self._groups[key] = whole
        for values, name in ((progress.loss, "train_loss"), (progress.metric, "train_metric")):
            values[:] = np.where(self.diverged, self._initial[name], values)
        np.minimum(progress.loss, LARGEST_LOSS, out=progress.loss)
        return progress

    def _columns(self, values: NDArray[np.float64], rows: list[int]) -> Tensor:
        """The values (n,) or (n, k) of these rows as (g, 1) or (g, k)."""
        return torch.from_numpy(values[rows].astype(np.float32)).reshape(len(rows), -1).to(self.device)

    def _update(
        self,
        group: _Group,
        updates: int,
        progress: Progress,
        *,
        step_sizes: Tensor,
        momentum: Tensor | None,
        decay: Tensor | None,
        row_loss: RowLoss | None,
        rule: RowUpdate | None,
        augmentation: Augmentation | None,
        by_groups: bool,
    ) -> None:
        rows = group.rows
        group.answers.clear()
        running = torch.from_numpy(~self.diverged[rows]).to(self.device)
        before = group.weights
        losses, metrics = torch.zeros(2, len(rows), dtype=torch.float32, device=self.device)
        squares, cosines = torch.zeros(2, len(rows), len(self.groups), dtype=torch.float32, device=self.device)
        last_square = group.by_group(group.gradient.square()) if by_groups else squares
        # Large new tensors cost more than what is computed in them: these are written to again and again.
        scratch, *spare = (torch.empty_like(before) for _ in range(5))
        for number, places in enumerate(group.places(updates)):
            batch = group.minibatch(places)
            if augmentation is not None:
                batch = Examples(augmentation(batch.inputs, rows), batch.targets)
            gradient = spare[2 + number % 2]
            loss, metric = self._loss_and_gradient(group, batch, gradient, row_loss)
            state = group.state
            if rule is None:
                (direction,), state = self.optimizer.direction(
                    [gradient], state, count=group.count, momentum=momentum, reuse=True
                )
            else:
                direction = rule(gradient, group.weights, rows)
            direction = direction if decay is None else direction + decay * group.weights
            weights = torch.addcmul(group.weights, step_sizes, direction, value=-1.0, out=spare[number % 2])
            # NaN is above and below nothing, so the comparisons are false for it, too.
            finite = (weights.amax(dim=1) < torch.inf) & (weights.amin(dim=1) > -torch.inf)
            running = running & finite & loss.isfinite()
            losses += loss
            metrics += metric
            if by_groups:
                square = group.by_group(torch.mul(gradient, gradient, out=scratch))
                squares += square
                product = group.by_group(torch.mul(gradient, group.gradient, out=scratch))
                cosines += product / (square * last_square).sqrt().clamp(min=TINY)
                last_square = square
            group.weights = weights if running.all() else torch.where(running[:, None], weights, group.weights)
            group.state, group.count, group.gradient = state, group.count + 1, gradient
        self.diverged[rows] = ~running.cpu().numpy()
        progress.loss[rows] = (losses / updates).cpu().numpy()
        progress.metric[rows] = (metrics / updates).cpu().numpy()
        if not by_groups:
            return
        moved = group.by_group((group.weights - before).square())
        size = group.by_group(before.square()).clamp(min=TINY)
        progress.gradient_norms[rows] = _finite((squares / updates).sqrt())
        progress.update_ratios[rows] = _finite((moved / size).sqrt())
        progress.alignments[rows] = _finite(cosines / updates)

    @own_state
    @torch.no_grad()
    def measure(self, part: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Losses (n,) and metrics (n,) on "validation" or "test"."""
        loss, metric = self._measure(part)
        initial_loss, initial_metric = self._initial[f"{part}_loss"], self._initial[f"{part}_metric"]
        return np.where(self.diverged, initial_loss, loss), np.where(self.diverged, initial_metric, metric)

    def _measure(self, part: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        losses, metrics = np.zeros(self.count), np.zeros(self.count)
        for rows, outputs, targets in self._answers(part):
            loss = self.criterion.loss(outputs, targets).nan_to_num(LARGEST_LOSS)
            losses[rows] = loss.clamp(max=LARGEST_LOSS).cpu().numpy()
            metrics[rows] = self.criterion.metric(outputs, targets).cpu().numpy()
        return losses, metrics

    def _answers(self, part: str) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Rows, outputs (g, b, out) and targets (g, b, ...) on a held-out part, group by group."""
        for group in self._groups.values():
            examples = group.held_out[part]
            if part not in group.answers:
                chunks = examples.inputs.split(max(1, CHUNK // len(group.rows)), dim=1)
                group.answers[part] = torch.cat([group.outputs(chunk) for chunk in chunks], dim=1)
            yield group.rows, group.answers[part], examples.targets

    @own_state
    @torch.no_grad()
    def summarise(self, part: str, summary: Callable[[Tensor, Tensor], Tensor]) -> NDArray[np.float64]:
        """Numbers (n, k) about the answers on "validation" or "test".

        Args:
            part: which.
            summary: numbers (g, k) of outputs (g, b, out) and targets (g, b, ...). NaN becomes 0,
                infinities the largest loss.
        """
        found: NDArray[np.float64] | None = None
        for rows, outputs, targets in self._answers(part):
            numbers = _finite(summary(outputs, targets))
            found = np.zeros((self.count, numbers.shape[1])) if found is None else found
            found[rows] = numbers
        assert found is not None
        return found

    def network(self, row: int) -> nn.Module:
        """A copy of the row's network, with its current weights, on their device."""
        group = next(group for group in self._groups.values() if row in group.rows)
        own = group.weights[group.rows.index(row)]
        sizes = [math.prod(shape) for shape in group.part.shapes.values()]
        parts = zip(own.split(sizes), group.part.shapes.values(), strict=True)
        return group.part.with_weights([part.reshape(shape) for part, shape in parts], own)


def _make_part(make: Callable[[], nn.Module], seed: int) -> Part:
    """A module made with torch's random numbers beginning at this seed."""
    with seeded(seed):
        return Part(make(), "module")


def _finite(values: Tensor) -> NDArray[np.float64]:
    return torch.nan_to_num(values, nan=0.0, posinf=LARGEST_LOSS, neginf=-LARGEST_LOSS).cpu().double().numpy()

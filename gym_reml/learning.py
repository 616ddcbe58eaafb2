"""How finished episodes change the pool: they are replayed with the actions taken, and differentiated or averaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gym_reml.checks import is_integer, is_number
from gym_reml.network import (
    Filled,
    Trace,
    Weights,
    backward,
    descend,
    forward,
    gradient_norms,
    prepare,
    without_overflow,
)
from gym_reml.pool import LayerPool
from gym_reml.pool_parts import LARGEST
from gym_reml.running_statistics import SeenStatistics
from gym_reml.tasks.base import Batch, TaskFamily
from gym_reml.torch_state import own_state

GRADIENT_RULES = ("fomaml", "maml")
RULES = ("in_place", "reptile", *GRADIENT_RULES)

REMEDY = (
    "Scale the targets (from_arrays and from_function take standardise=True), take smaller steps, or give the family a "
    "larger cap."
)


@dataclass
class Episodes:
    """B finished episodes of T steps, with all that is needed to live them again.

    Attributes:
        support: the support set of every step; a single entry where the data stays the same.
        query: likewise.
        layers: (T, B) int64, pool number of the layer appended at each step, 0 for none.
        step_sizes: (T, B) float32; 0 for a step that was refused.
        initial_layers: pool layers present before the first step.
        slots: how many layers fit.
    """

    support: list[Batch]
    query: list[Batch]
    layers: Tensor
    step_sizes: Tensor
    initial_layers: tuple[int, ...]
    slots: int

    def __len__(self) -> int:
        return self.layers.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> Episodes:
        """The same with `function` of every tensor of the data, and of layers and step sizes."""
        support, query = ([batch.map(function) for batch in batches] for batches in (self.support, self.query))
        return Episodes(
            support, query, function(self.layers), function(self.step_sizes), self.initial_layers, self.slots
        )

    def take(self, index: Tensor) -> Episodes:
        """The episodes at `index` (B',) int64."""
        support, query = ([batch.rows(index) for batch in batches] for batches in (self.support, self.query))
        return Episodes(
            support, query, self.layers[:, index], self.step_sizes[:, index], self.initial_layers, self.slots
        )

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """All episodes of the parts, in order."""
        first = parts[0]
        support = [Batch.concatenate(batches) for batches in zip(*(part.support for part in parts), strict=True)]
        query = [Batch.concatenate(batches) for batches in zip(*(part.query for part in parts), strict=True)]
        layers = torch.cat([part.layers for part in parts], dim=1)
        step_sizes = torch.cat([part.step_sizes for part in parts], dim=1)
        return Episodes(support, query, layers, step_sizes, first.initial_layers, first.slots)

    def slot_contents(self) -> tuple[Tensor, Tensor]:
        """What is in the slots: pool numbers at the end, (slots, B), and depth after each step, (T + 1, B)."""
        steps, count = self.layers.shape
        contents = self.layers.new_zeros(self.slots, count)
        for slot, layer in enumerate(self.initial_layers):
            contents[slot] = layer
        depth = self.layers.new_full((steps + 1, count), len(self.initial_layers))
        columns = torch.arange(count, device=self.layers.device)
        for step in range(steps):
            growing = (self.layers[step] > 0) & (depth[step] < self.slots)
            contents[depth[step][growing], columns[growing]] = self.layers[step][growing]
            depth[step + 1] = depth[step] + growing
        return contents, depth


@own_state
def replay(
    pool: LayerPool,
    family: TaskFamily,
    episodes: Episodes,
    first_order: bool = False,
    judged: Sequence[bool] | None = None,
    watch: Callable[[int, Weights, Trace, Tensor], None] | None = None,
    judge: Callable[[Tensor, Batch], Tensor] | None = None,
    drawn: list[Tensor] | None = None,
) -> tuple[Tensor, Weights, Tensor]:
    """Lives the episodes again from the pool's present weights, differentiably.

    Gradients reach the pool's parameters and rates exactly (MAML, Finn et al. 2017, eq. 1), or, with `first_order`,
    with the inner gradients taken as constants.

    Args:
        pool, family, episodes: what is replayed, from which weights.
        first_order: see above.
        judged: for each step whether its query loss is wanted; None for all. The others come out as 0.
        watch: called before each update as watch(step, fast weights, the support set's pass, pool numbers of the layers
            that are in the slots by then (slots, B)).
        judge: what to make of outputs (B, points, out) on a query set, (B,); None is the family's loss.
        drawn: takes every tensor (B, ...) that episodes have of the pool: all gradients reach the pool through these.

    Returns:
        Query loss after every step (T, B); the final fast weights; the pool numbers in their slots (slots, B).

    Raises:
        ValueError: data that depends on the network, and not of every step.
    """
    steps, sets = len(episodes.layers), len(episodes.support)
    if not family.fixed_data and sets < steps:
        raise ValueError(
            f"episodes: {sets} support sets for {steps} steps, of each of which {family.name!r} has its own"
        )
    # What was made in inference mode is for autograd only as a copy.
    episodes = episodes.map(lambda tensor: tensor.clone() if tensor.is_inference() else tensor)
    drawn = [] if drawn is None else drawn
    contents, depth = episodes.slot_contents()
    weights = pool.instantiate(contents)
    drawn += weights.tensors()
    kind, frozen_stem = pool.layer_kind, pool.frozen_stem
    losses = []
    positions = torch.arange(episodes.slots, device=contents.device).unsqueeze(1)
    prepared: dict[int, Tensor] = {}

    def inputs(batch: Batch) -> Tensor:
        if id(batch) not in prepared:
            prepared[id(batch)] = prepare(batch.inputs, frozen_stem)
            drawn.append(prepared[id(batch)])
        return prepared[id(batch)]

    for step in range(steps):
        support = episodes.support[min(step, len(episodes.support) - 1)]
        query = episodes.query[min(step, len(episodes.query) - 1)]
        filled = _filled(depth[step + 1], episodes.slots)
        clock = torch.full_like(depth[step], step)
        norms = pool.gather_norms(contents, clock, running=False)
        drawn += norms or []
        trace = forward(kind, weights, inputs(support), filled, norms=norms)
        if watch is not None:
            watch(step, weights, trace, contents * (depth[step + 1] > positions))
        slope = family.output_gradient(trace.outputs, support).to(trace.outputs.dtype)
        gradient = backward(kind, weights, trace, slope, filled)
        if first_order:
            gradient = gradient.like([tensor.detach() for tensor in gradient.tensors()])
        rates = pool.gather_rates(contents, clock)
        drawn += [] if rates is None else rates.tensors()
        gradient, lengths = without_overflow(gradient, gradient_norms(gradient))
        weights = descend(weights, gradient, lengths, episodes.step_sizes[step], rates)
        if judged is None or judged[step]:
            outputs = forward(kind, weights, inputs(query), filled, norms=norms).outputs
            losses.append((judge or family.loss)(outputs, query))
        else:
            losses.append(trace.outputs.new_zeros(len(episodes)))
    return torch.stack(losses), weights, contents


@contextmanager
def differentiable(leaves: Sequence[Tensor]) -> Iterator[None]:
    """While it lasts, gradients reach these tensors, also where the user has switched gradients off."""
    with torch.enable_grad():
        for leaf in leaves:
            leaf.requires_grad_(True)
        try:
            yield
        finally:
            for leaf in leaves:
                leaf.requires_grad_(False)


def total_norm(gradients: Sequence[Tensor | None]) -> float:
    """Euclidean norm of all gradients together; infinite or NaN only if one of their numbers is."""
    found = [gradient for gradient in gradients if gradient is not None]
    total = float(torch.stack([gradient.square().sum() for gradient in found]).sum().sqrt())
    # Squares of numbers from 1.8e19 on are too large for float32.
    return total if np.isfinite(total) else float(sum(gradient.double().square().sum() for gradient in found) ** 0.5)


def finite_rows(losses: Tensor, drawn: Sequence[Tensor]) -> Tensor:
    """Which rows give the pool a finite gradient, (B,) bool.

    Args:
        losses: (B,) of the rows.
        drawn: what a `replay` has of the pool.
    """
    reached = [tensor for tensor in drawn if tensor.requires_grad]
    found = torch.autograd.grad(losses.sum(), reached, allow_unused=True)
    rows = [gradient.isfinite().flatten(1).all(dim=1) for gradient in found if gradient is not None]
    return torch.stack(rows).all(dim=0)


def _filled(depth: Tensor, slots: int) -> Filled:
    shallowest, deepest = int(depth.min()), int(depth.max())
    return [
        True if slot < shallowest else False if slot >= deepest else (depth > slot).reshape(-1, 1, 1)
        for slot in range(slots)
    ]


@dataclass
class LearningOptions:
    """What `learn_kwargs` may hold.

    Attributes:
        batch_size: episodes per update; updates wait until that many have finished. Where data depend on the network,
            an update uses all that there are by then.
        passes: how often each episode is used (fomaml, maml); None is 2, or 1 where data depend on the network, which
            after an update is another, and more is refused.
        learning_rate: Adam's, or for reptile the share of the way; None is 2e-3, for reptile 0.5.
        rates_learning_rate: Adam's for the pool's rates.
        constants_learning_rate: Adam's for outputs that depend on no input, such as a policy's log deviations; None is
            learning_rate (fomaml, maml).
        step_weights: weight of the query loss after each step, None for equal ones; the last is reused beyond them.
        clip: largest norm of the meta-gradient.
        seed: of the order in which episodes are used.
    """

    batch_size: int = 64
    passes: int | None = None
    learning_rate: float | None = None
    rates_learning_rate: float = 1e-2
    constants_learning_rate: float | None = None
    step_weights: Sequence[float] | None = None
    clip: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("passes", 1), ("seed", 0)):
            value = getattr(self, name)
            by_default = value is None and name == "passes"
            if not by_default and (not is_integer(value) or value < least):
                raise ValueError(f"learn_kwargs: {name}={value!r} must be an integer from {least}")
        for name in ("learning_rate", "rates_learning_rate", "constants_learning_rate", "clip"):
            value = getattr(self, name)
            by_default = value is None and name in ("learning_rate", "constants_learning_rate")
            if not (is_number(value) and 0 < value < np.inf) and not by_default:
                raise ValueError(f"learn_kwargs: {name}={value!r} must be a positive number")
        weights = self.step_weights
        if weights is not None and not (
            isinstance(weights, Sequence | np.ndarray)
            and len(weights) > 0
            and all(is_number(weight) and 0 <= weight < np.inf for weight in weights)
            and any(weight > 0 for weight in weights)
        ):
            raise ValueError(
                f"learn_kwargs: step_weights={weights!r} must be None or numbers from 0, not all of them 0"
            )
        # A copy: what the caller does to his list later changes nothing.
        self.step_weights = deepcopy(weights)

    @classmethod
    def parse(cls, arguments: dict[str, Any]) -> LearningOptions:
        """Options from keyword arguments; a ValueError lists the choices if one is unknown or makes no sense."""
        known = [option.name for option in fields(cls)]
        for name in arguments:
            if name not in known:
                raise ValueError(f"learn_kwargs: unknown {name!r}; choices: {', '.join(known)}")
        return cls(**arguments)


class PoolLearner:
    """Changes a pool, in place, by the episodes that end.

    Attributes:
        pool: what is changed.
        updates: how many times it was.
        used: episodes that were learned from, once for each update by them.
        dropped: episodes left out because their replay or its gradient was not finite, or passed the family's cap.
        stale: episodes left out because they began under an older pool, where data depend on the network.
    """

    @own_state
    def __init__(self, pool: LayerPool, family: TaskFamily, rule: str, options: LearningOptions | None = None) -> None:
        """Prepares learning by one of `RULES`.

        Raises:
            ValueError: an unknown rule, one that averages fast weights where norms go by the step, more than all of
                Reptile's way, a pool that was put together wrongly or whose inputs or outputs are not the family's, or
                several passes over data that depend on the network.
        """
        pool.check()
        if rule not in RULES:
            raise ValueError(f"learn={rule!r}: must be None or one of {', '.join(map(repr, RULES))}")
        if (pool.in_features, pool.out_features) != (family.in_features, family.out_features):
            raise ValueError(
                f"pool: holds {pool.describe()}; {family.name!r} tasks have {family.in_features} inputs "
                f"and {family.out_features} outputs"
            )
        if pool.norm_steps and rule not in GRADIENT_RULES:
            raise ValueError(
                f"learn={rule!r}: averages fast weights, which norms that go by the step are not; "
                f"this pool learns by one of {', '.join(map(repr, GRADIENT_RULES))}"
            )
        self.pool, self.family, self.rule = pool, family, rule
        self.options = options or LearningOptions()
        if not family.fixed_data and (self.options.passes or 1) > 1:
            raise ValueError(
                f"learn_kwargs: passes={self.options.passes!r} must be 1 or None: the data of {family.name!r} are "
                "collected by the pool's networks, which after the first pass are others"
            )
        pool.become_leaves()
        self._start = pool.clone()
        self._begin()
        rate = self.options.learning_rate
        self._scale = 1.0
        self._rate = rate if rate is not None else 0.5 if rule == "reptile" else 2e-3
        if rule == "reptile" and self._rate > 1.0:
            raise ValueError(f"learn_kwargs: learning_rate={rate!r} must be at most 1, all of the way")
        groups: list[dict[str, Any]] = [{"params": list(pool.parameters.values()), "lr": self._rate}]
        if pool.rates:
            groups.append({"params": list(pool.rates.values()), "lr": self.options.rates_learning_rate})
        self._optimizer = torch.optim.Adam([group | {"initial_lr": group["lr"]} for group in groups])

    def _begin(self) -> None:
        self.updates = self.used = self.dropped = self.stale = 0
        self._waiting: list[Episodes] = []
        self._generator = np.random.default_rng(self.options.seed)
        self._refused_only = True
        self._warned: set[str] = set()

    def restart(self) -> None:
        """Starts over: the pool, and all that was kept beside it, are what they were when this learner was made."""
        self.pool.assign(self._start)
        self._optimizer.state.clear()
        self.scale_rates(1.0)
        self._begin()

    @own_state
    def add(self, episodes: Episodes) -> None:
        """Takes finished episodes in, and updates the pool as soon as there are enough.

        Where data depend on the network, all must have been lived under the pool as it is; an update uses them all.
        """
        self._refused_only = self._refused_only and not episodes.step_sizes.any()
        self._waiting.append(episodes)
        size = self.options.batch_size
        batches = sum(map(len, self._waiting)) // size
        if not batches:
            return
        everything = Episodes.concatenate(self._waiting)
        if self._refused_only:
            self._warn(
                f"every step of the {len(everything)} episodes so far was refused, so the pool has nothing to learn "
                f"from. Steps are refused where the support loss is not finite, or above what it was and the "
                f"family's cap of {self.family.cap:g}. {REMEDY}"
            )
        if not self.family.fixed_data:
            self._waiting = []
            self.update(everything)
            return
        used = torch.arange(batches * size)
        rest = torch.arange(batches * size, len(everything))
        self._waiting = [everything.take(rest)] if len(rest) else []
        passes = (self.options.passes or 2) if self.rule in GRADIENT_RULES else 1
        for _ in range(passes):
            order = torch.from_numpy(self._generator.permutation(len(used)))
            for index in order.split(size):
                self.update(everything.take(index.to(self.pool.device)))

    def leave_out(self, episodes: int) -> None:
        """Counts that many episodes as stale."""
        self.stale += episodes
        if self.stale > self.used + sum(map(len, self._waiting)) and self.stale >= self.options.batch_size:
            self._warn(
                f"most episodes, {self.stale} so far, are dropped since the pool changed while they ran: the data of "
                f"{self.family.name!r} depend on the network, so it learns from episodes that began and ended under "
                "the same pool. Reset all environments together, or take a larger batch_size."
            )

    def _warn(self, text: str) -> None:
        """Warns, once of each kind."""
        kind = text.split(" ", 1)[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"learn={self.rule!r}: {text}", stacklevel=2)

    def update(self, episodes: Episodes) -> float:
        """One update by these episodes. Returns the mean weighted query loss (NaN if nothing was finite)."""
        if self.rule in GRADIENT_RULES:
            return self.minimise(episodes, self._step_weights(len(episodes.layers)))
        return self._average(episodes)

    def _step_weights(self, steps: int) -> Tensor:
        given = self.options.step_weights
        chosen = [1.0] * steps if given is None else [float(given[min(t, len(given) - 1)]) for t in range(steps)]
        if not sum(chosen) > 0:
            raise ValueError(f"learn_kwargs: step_weights={given!r} are all 0 in the {steps} steps of an episode")
        return torch.tensor(chosen, dtype=torch.float32).to(self.pool.device) / sum(chosen)

    @own_state
    def minimise(self, episodes: Episodes, step_weights: Tensor, row_weights: Any = None) -> float:
        """One Adam step on the replayed episodes' weighted query loss; running statistics follow.

        Args:
            episodes: what to replay.
            step_weights: (T,) weights of the steps.
            row_weights: a function from the detached weighted losses (B,) to weights (B,); None weighs rows equally.
                It is asked again, with infinite losses, if the gradients of some rows are not finite.
        """
        leaves = list(self.pool.trainable().values())
        with differentiable(leaves):
            by_row, fit, seen = self._weighted_losses(episodes, step_weights)
            losses = by_row.detach()
            while fit.any():
                weights = fit.to(losses.dtype) / fit.sum() if row_weights is None else row_weights(losses)
                kept = fit.nonzero().squeeze(1)
                if len(kept) < len(fit):
                    # Once more without the others: infinities, times zero, would be NaN in everyone's gradient.
                    by_row, _, seen = self._weighted_losses(episodes.take(kept), step_weights)
                gradients = torch.autograd.grad((by_row * weights[kept]).sum(), leaves, allow_unused=True)
                total = total_norm(gradients)
                if np.isfinite(total):
                    break
                drawn: list[Tensor] = []
                by_row, _, _ = self._weighted_losses(episodes.take(kept), step_weights, drawn)
                broken = kept[~finite_rows(by_row * weights[kept], drawn)]
                # None of them alone, all together: too large to be added up.
                broken = broken if len(broken) else kept
                fit[broken] = False
                losses[broken] = torch.inf
        self.dropped += len(fit) - int(fit.sum())
        if not fit.any():
            return self._nothing_learned()
        scale = min(1.0, self.options.clip / max(total, 1e-12))
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = None if gradient is None else gradient * scale
        self._step()
        self._optimizer.zero_grad(set_to_none=True)
        if seen is not None:
            seen.follow()
        self.updates += 1
        self.used += len(kept)
        return float(by_row.detach().mean())

    def _nothing_learned(self) -> float:
        """NaN; it warns if nothing has been learned so far."""
        if not self.updates:
            self._warn(
                f"all {self.dropped} episodes so far were dropped, so the pool learns nothing: in their replays query "
                f"losses or gradients are not finite, or losses are not below the family's cap of "
                f"{self.family.cap:g}. {REMEDY}"
            )
        return float("nan")

    @torch.no_grad()
    def _step(self) -> None:
        """A step of Adam, constants going at their own rate: Adam moves by its rate, whatever the gradient's length."""
        given = self.options.constants_learning_rate
        factor = 1.0 if given is None else given / self._rate
        constants = self.pool.constants
        before = constants.clone()
        self._optimizer.step()
        constants.lerp_(before, 1.0 - factor)

    def _weighted_losses(
        self, episodes: Episodes, step_weights: Tensor, drawn: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, SeenStatistics | None]:
        """The episodes' weighted query losses (B,), which are fit to learn from (B,) bool, statistics along the way."""
        judged, first_order = (step_weights > 0).tolist(), self.rule == "fomaml"
        seen = SeenStatistics(self.pool) if self.pool.statistics else None
        losses, _, _ = replay(self.pool, self.family, episodes, first_order, judged, seen, drawn=drawn)
        by_row = (losses * step_weights[:, None]).sum(dim=0)
        return by_row, self._fit(losses.detach()), seen

    def _fit(self, losses: Tensor) -> Tensor:
        """Which episodes are fit to learn from, (B,) bool, by their query losses (T, B): none infinite or absurd."""
        return (losses.isfinite() & (losses < self.family.cap)).all(dim=0)

    @own_state
    @torch.no_grad()
    def _average(self, episodes: Episodes) -> float:
        """Moves every pool layer to, or towards, the mean of the fast weights that grew from it."""
        losses, weights, contents = replay(self.pool, self.family, episodes)
        # Not finite is not below this either.
        whole = torch.stack([(tensor.abs() <= LARGEST).flatten(1).all(dim=1) for tensor in weights.tensors()]).all(
            dim=0
        )
        finite = whole & self._fit(losses)
        self.dropped += int((~finite).sum())
        if not finite.any():
            return self._nothing_learned()
        share = 1.0 if self.rule == "in_place" else self._rate * self._scale
        slots = slice(1, 1 + episodes.slots)
        stem, head = weights.matrices[0], weights.matrices[-1]
        assert head is not None
        shared = {"stem": stem, "head": head}
        layered = {"layers": torch.stack([matrix for matrix in weights.matrices[slots] if matrix is not None])}
        if weights.norms:
            shared["stem_norm"] = weights.norms[0]
            layered["layers_norm"] = torch.stack(weights.norms[slots])
        for name, tensor in shared.items():
            if tensor is not None:
                self.pool.parameters[name].lerp_(tensor[finite].mean(dim=0), share)
        for name, tensor in layered.items():
            for layer in contents.unique().tolist():
                uses = (contents == layer) & finite
                if layer > 0 and uses.any():
                    self.pool.parameters[name][layer - 1].lerp_(tensor[uses].mean(dim=0), share)
        self.updates += 1
        self.used += int(finite.sum())
        return float(losses[-1, finite].mean())

    def scale_rates(self, factor: float) -> None:
        """Sets the learning rates (Reptile's share of the way is one) to `factor` times what they were at first."""
        self._scale = factor
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    @own_state
    def state(self) -> dict[str, Any]:
        """All that a resumed run needs beside the pool, as plain data. Waiting episodes are not kept."""
        return {
            # Copied, here and on the way back: Adam's moments are changed in place.
            "optimizer": deepcopy(self._optimizer.state_dict()),
            "updates": self.updates,
            "used": self.used,
            "dropped": self.dropped,
            "stale": self.stale,
            "generator": self._generator.bit_generator.state,
        }

    @own_state
    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `state()`."""
        self._optimizer.load_state_dict(deepcopy(state["optimizer"]))
        self.updates, self.dropped = state["updates"], state["dropped"]
        # States from before these were counted have none.
        self.used, self.stale = state.get("used", 0), state.get("stale", 0)
        self._generator.bit_generator.state = state["generator"]
        self._waiting = []

"""Updates of the pool from finished episodes: their replays are differentiated, or their fast weights averaged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.options import GRADIENT_RULES, RULES, LearningOptions
from gym_reml.learning.recorded import RecordedGradients
from gym_reml.learning.replay import finite_rows, replay, requires_grad, total_norm
from gym_reml.learning.running_statistics import ReplayStatistics
from gym_reml.networks.torch_state import own_state
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.pool.storage import LARGEST
from gym_reml.tasks.base import TaskFamily

REMEDY = (
    "Scale the targets (from_arrays and from_function take standardise=True), take smaller steps, or give the family a "
    "larger cap."
)


class PoolLearner:
    """The optimizer of a pool: updates it in place from finished episodes.

    The rules are "maml" (Finn et al. 2017, arXiv:1703.03400), "fomaml", its first-order approximation, "reptile"
    (Nichol et al. 2018, arXiv:1803.02999), and "in_place", which replaces layers by the mean of their fast weights.

    Attributes:
        pool: the pool.
        family: the family of tasks that episodes come from.
        rule: the learning rule, one of `RULES`.
        options: the learning options.
        updates: number of updates of the pool.
        used: number of episodes learned from, counted once per update.
        dropped: number of episodes left out because their query losses or meta-gradients were not finite, or their
            query losses reached the family's cap.
        stale: number of episodes left out because they began before the last update, if data depend on the network.
    """

    @own_state
    def __init__(self, pool: LayerPool, family: TaskFamily, rule: str, options: LearningOptions | None = None) -> None:
        """Prepares learning by one of `RULES`; None for default options.

        Raises:
            ValueError: an unknown rule, a rule that averages fast weights for a pool with norms for each step, a
                learning rate above 1 for "reptile", an inconsistent pool or one whose numbers of inputs or outputs
                differ from the family's, or several passes over data that depend on the network.
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
                f"learn={rule!r}: averages fast weights, which do not include norms kept for each step; "
                f"this pool learns by one of {', '.join(map(repr, GRADIENT_RULES))}"
            )
        self.pool, self.family, self.rule = pool, family, rule
        self.options = options or LearningOptions()
        if not family.fixed_data and (self.options.passes or 1) > 1:
            raise ValueError(
                f"learn_kwargs: passes={self.options.passes!r} must be 1 or None: the data of {family.name!r} are "
                "collected by the pool's networks, which the first pass changes"
            )
        pool.become_leaves()
        self._start = pool.clone()
        self._begin()
        rate = self.options.learning_rate
        self._scale = 1.0
        self._rate = rate if rate is not None else 0.5 if rule == "reptile" else 2e-3
        if rule == "reptile" and self._rate > 1.0:
            raise ValueError(
                f"learn_kwargs: learning_rate={rate!r} must be at most 1, replacing the pool by the mean fast weights"
            )
        parameters = {name: tensor for name, tensor in pool.parameters.items() if name != "head.constants"}
        groups: list[dict[str, Any]] = [{"params": list(parameters.values()), "lr": self._rate}]
        if pool.rates:
            groups.append({"params": list(pool.rates.values()), "lr": self.options.rates_learning_rate})
        if pool.constant_outputs:
            given = self.options.constants_learning_rate
            groups.append({"params": [pool.parameters["head.constants"]], "lr": self._rate if given is None else given})
        self._recorded = RecordedGradients(pool, family, first_order=rule == "fomaml")
        self._optimizer = torch.optim.Adam([group | {"initial_lr": group["lr"]} for group in groups])

    def _begin(self) -> None:
        self.updates = self.used = self.dropped = self.stale = 0
        self._waiting: list[Episodes] = []
        self._generator = np.random.default_rng(self.options.seed)
        self._refused_only = True
        self._warned: set[str] = set()

    def restart(self) -> None:
        """Restores the pool and all state of the learner to what they were when the learner was created."""
        self.pool.assign(self._start)
        self._optimizer.state.clear()
        self.scale_rates(1.0)
        self._begin()

    @own_state
    def add(self, episodes: Episodes) -> None:
        """Adds finished episodes, and updates the pool once there are `batch_size` of them.

        If data depend on the network, all episodes must have run since the last update, and an update uses all of them.
        """
        self._refused_only = self._refused_only and not episodes.step_sizes.any()
        self._waiting.append(episodes)
        size = self.options.batch_size
        batches = sum(map(len, self._waiting)) // size
        if not batches:
            return
        waiting = Episodes.concatenate(self._waiting)
        if self._refused_only:
            self._warn(
                f"every step of the {len(waiting)} episodes so far was refused, so the pool has nothing to learn "
                f"from. Steps are refused if the support loss after them is not finite, or above both its "
                f"previous value and the family's cap of {self.family.cap:g}. {REMEDY}"
            )
        if not self.family.fixed_data:
            self._waiting = []
            self.update(waiting)
            return
        used = torch.arange(batches * size)
        rest = torch.arange(batches * size, len(waiting))
        self._waiting = [waiting.take(rest)] if len(rest) else []
        passes = (self.options.passes or 2) if self.rule in GRADIENT_RULES else 1
        for _ in range(passes):
            order = torch.from_numpy(self._generator.permutation(len(used)))
            for index in order.split(size):
                self.update(waiting.take(index.to(self.pool.device)))

    def leave_out(self, episodes: int) -> None:
        """Counts `episodes` as stale."""
        self.stale += episodes
        if self.stale > self.used + sum(map(len, self._waiting)) and self.stale >= self.options.batch_size:
            self._warn(
                f"most episodes, {self.stale} so far, are dropped because the pool changed while they ran: the data "
                f"of {self.family.name!r} depend on the network, so only episodes without an update between their "
                "beginning and end are learned from. Reset all environments together, or use a larger batch_size."
            )

    def _warn(self, text: str) -> None:
        """Warns, once for each first word of `text`."""
        kind = text.split(" ", 1)[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"learn={self.rule!r}: {text}", stacklevel=2)

    def update(self, episodes: Episodes) -> float:
        """One update from these episodes. Returns the mean weighted query loss (NaN if all episodes were dropped)."""
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
    def minimise(self, episodes: Episodes, step_weights: Tensor, *, row_weights: Any = None) -> float:
        """One Adam step on the weighted query loss of the replayed episodes; also updates running statistics.

        Args:
            episodes: episodes to replay.
            step_weights: (T,) weights of the steps.
            row_weights: function from the detached weighted losses (B,) to weights (B,) of the rows; None for equal
                ones. It is called again, with infinite losses in their place, if some rows' gradients are not finite.

        Returns:
            The mean weighted query loss, NaN if all episodes were dropped.
        """
        every_row = torch.arange(len(episodes), device=episodes.layers.device)
        whole = len(self._parts(every_row)) == 1
        recorded = self._recorded(episodes, step_weights) if whole and row_weights is None else None
        if recorded is not None:
            return self._take_step(recorded.gradients, recorded.norm, recorded.losses)
        leaves = list(self.pool.trainable().values())
        with requires_grad(leaves):
            statistics = self._new_statistics()
            # Of several parts the losses come first: what a row's gradient counts depends on all of them.
            with torch.set_grad_enabled(whole):
                parts = [
                    self._weighted_losses(episodes if whole else episodes.take(rows), step_weights, statistics)
                    for rows in self._parts(every_row)
                ]
            by_row, fit = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            losses = by_row.detach()
            while fit.any():
                weights = fit.to(losses.dtype) / fit.sum() if row_weights is None else row_weights(losses)
                kept = fit.nonzero().squeeze(1)
                # Replayed without the others: infinity times zero would put NaN into the gradient of all.
                again = not whole or len(kept) < len(fit)
                statistics = self._new_statistics() if again else statistics
                gradients: list[Tensor | None] = [None] * len(leaves)
                used = []
                for rows in self._parts(kept):
                    if again:
                        by_row, _ = self._weighted_losses(episodes.take(rows), step_weights, statistics)
                    found = torch.autograd.grad((by_row * weights[rows]).sum(), leaves, allow_unused=True)
                    gradients = [_sum_of(*both) for both in zip(gradients, found, strict=True)]
                    used.append(by_row.detach())
                total = total_norm(gradients)
                if np.isfinite(total):
                    break
                broken = torch.cat([self._broken(episodes, rows, step_weights, weights) for rows in self._parts(kept)])
                # No single gradient is broken, but their sum overflows.
                broken = broken if len(broken) else kept
                fit[broken] = False
                losses[broken] = torch.inf
        self.dropped += len(fit) - int(fit.sum())
        if not fit.any():
            return self._without_update()
        if statistics is not None:
            statistics.update_pool()
        return self._take_step(gradients, total, torch.cat(used))

    def _parts(self, rows: Tensor) -> Sequence[Tensor]:
        """Rows (k,) in parts of at most `rows_at_once`."""
        return rows.split(self.options.rows_at_once or max(len(rows), 1))

    def _new_statistics(self) -> ReplayStatistics | None:
        return ReplayStatistics(self.pool) if self.pool.statistics else None

    def _broken(self, episodes: Episodes, rows: Tensor, step_weights: Tensor, weights: Tensor) -> Tensor:
        """Those of these rows (k,) whose gradients are not finite."""
        pool_tensors: list[Tensor] = []
        by_row, _ = self._weighted_losses(episodes.take(rows), step_weights, None, pool_tensors)
        return rows[~finite_rows(by_row * weights[rows], pool_tensors)]

    def _take_step(self, gradients: Sequence[Tensor | None], norm: float, losses: Tensor) -> float:
        """One Adam step on gradients of this norm, clipped; returns the mean of the losses (B,) that they are of."""
        scale = min(1.0, self.options.clip / max(norm, 1e-12))
        for leaf, gradient in zip(self.pool.trainable().values(), gradients, strict=True):
            leaf.grad = None if gradient is None else gradient * scale
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self.used += len(losses)
        return float(losses.mean())

    def _without_update(self) -> float:
        """Returns NaN, and warns if there has been no update so far."""
        if not self.updates:
            self._warn(
                f"all {self.dropped} episodes so far were dropped, so the pool learns nothing: in their replays, query "
                f"losses or gradients are not finite, or losses are not below the family's cap of "
                f"{self.family.cap:g}. {REMEDY}"
            )
        return float("nan")

    def _weighted_losses(
        self,
        episodes: Episodes,
        step_weights: Tensor,
        statistics: ReplayStatistics | None,
        pool_tensors: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weighted query losses (B,), and which episodes are fit to learn from (B,) bool; adds to the statistics."""
        judged, first_order = (step_weights > 0).tolist(), self.rule == "fomaml"
        losses, _, _ = replay(
            self.pool,
            self.family,
            episodes,
            first_order=first_order,
            judged=judged,
            watch=statistics,
            pool_tensors=pool_tensors,
        )
        by_row = (losses * step_weights[:, None]).sum(dim=0)
        return by_row, self._fit(losses.detach())

    def _fit(self, losses: Tensor) -> Tensor:
        """Episodes fit to learn from, (B,) bool: all query losses (T, B) are finite and below the family's cap."""
        return (losses.isfinite() & (losses < self.family.cap)).all(dim=0)

    @own_state
    @torch.no_grad()
    def _average(self, episodes: Episodes) -> float:
        """Moves the adapted parameters to (in_place) or towards (reptile) the mean of their fast weights.

        Returns:
            The mean query loss after the last step, NaN if all episodes were dropped.
        """
        losses, weights, contents = replay(self.pool, self.family, episodes)
        # The comparison is False for NaN and infinity, too.
        bounded = torch.stack([(tensor.abs() <= LARGEST).flatten(1).all(dim=1) for tensor in weights.tensors()]).all(
            dim=0
        )
        finite = bounded & self._fit(losses)
        self.dropped += int((~finite).sum())
        if not finite.any():
            return self._without_update()
        interpolation = 1.0 if self.rule == "in_place" else self._rate * self._scale
        stem, *slots, head = weights.positions
        for name in self.pool.adapted:
            part, _, key = name.partition(".")
            parameter = self.pool.parameters[name]
            if part != "layers":
                tensor = (stem if part == "stem" else head)[key]
                parameter.lerp_(tensor[finite].mean(dim=0), interpolation)
                continue
            fast_weights = torch.stack([slot[key] for slot in slots])
            for layer in contents.unique().tolist():
                uses = (contents == layer) & finite
                if layer > 0 and uses.any():
                    parameter[layer - 1].lerp_(fast_weights[uses].mean(dim=0), interpolation)
        self.updates += 1
        self.used += int(finite.sum())
        return float(losses[-1, finite].mean())

    def scale_rates(self, factor: float) -> None:
        """Sets all learning rates (Reptile's interpolation weight, too) to `factor` times their initial values."""
        self._scale = factor
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    @own_state
    def state(self) -> dict[str, Any]:
        """State needed to resume a run in addition to the pool, as plain data, without waiting episodes."""
        return {
            # Copied, here and in `load_state`: Adam updates its moments in place.
            "optimizer": deepcopy(self._optimizer.state_dict()),
            "updates": self.updates,
            "used": self.used,
            "dropped": self.dropped,
            "stale": self.stale,
            "generator": self._generator.bit_generator.state,
        }

    @own_state
    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from a state returned by `state()`."""
        self._optimizer.load_state_dict(deepcopy(state["optimizer"]))
        self.updates, self.dropped = state["updates"], state["dropped"]
        # Older states lack these.
        self.used, self.stale = state.get("used", 0), state.get("stale", 0)
        self._generator.bit_generator.state = state["generator"]
        self._waiting = []


def _sum_of(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The sum of two gradients, of which None stands for zeros."""
    if one is None or other is None:
        return other if one is None else one
    return one + other

"""Meta-gradients as CUDA graphs: the kernels of a replay are recorded once, and then launched without Python.

A replay of small networks consists of thousands of kernels that take microseconds each, so on an accelerator most of
the time goes into launching them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gym_reml.learning.episodes import Episodes, SlotContents
from gym_reml.learning.replay import replay, requires_grad
from gym_reml.networks.weights import LONGEST
from gym_reml.networks.work import count_work, uncounted
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks.base import TaskFamily

RECORDING = ("cuda",)
"""Types of devices that record."""

MOST_RECORDINGS = 4
"""Kinds of episodes that a learner keeps recordings of, each with the memory of a replay; others are not recorded."""


class MetaGradient(NamedTuple):
    """The gradient of the mean weighted query loss of episodes.

    Attributes:
        losses: weighted query losses (B,), detached.
        gradients: with respect to each tensor of the pool, None for those that the losses do not depend on. They hold
            until the next call.
        norm: Euclidean norm of all gradients together.
    """

    losses: Tensor
    gradients: list[Tensor | None]
    norm: float


class _Outputs(NamedTuple):
    losses: Tensor
    gradients: list[Tensor | None]
    summary: Tensor
    """(3,): the largest query loss, the largest norm of an inner gradient, and the norm of the gradients."""


def capture(compute: Callable[[], _Outputs], device: torch.device) -> tuple[_Outputs, Callable[[], None]]:
    """Records a computation as a CUDA graph.

    Returns:
        Its outputs, and a function that computes them again, in place.

    Raises:
        RuntimeError: a computation that waits for the device, so that it cannot be recorded.
    """
    debugging = torch.cuda.get_sync_debug_mode()
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()  # fills caches
            torch.cuda.set_sync_debug_mode("error")
            try:
                compute()
            finally:
                torch.cuda.set_sync_debug_mode(debugging)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = compute()
    return outputs, graph.replay


@dataclass
class _Recording:
    """A recorded replay: what it reads and writes."""

    inputs: list[Tensor]
    outputs: _Outputs
    run: Callable[[], None]


class RecordedGradients:
    """Meta-gradients of a pool's episodes, recorded for each kind of episodes: shapes, steps and filled slots.

    Networks on a CPU, data that depend on the network, running statistics, inner optimizers with a state, and slots
    that are filled in some rows only are not recorded.
    """

    def __init__(self, pool: LayerPool, family: TaskFamily, *, first_order: bool) -> None:
        """Starts without recordings.

        Args:
            pool: pool whose tensors are changed in place only.
            family: family of tasks of the episodes.
            first_order: treat inner gradients as constants.
        """
        self.pool, self.family, self.first_order = pool, family, first_order
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._seen: set[Hashable] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        # Graphs can be neither copied nor pickled; a copy records anew.
        return _without_recordings, (self.pool, self.family, self.first_order)

    def __call__(self, episodes: Episodes, step_weights: Tensor) -> MetaGradient | None:
        """The gradient of the mean over episodes of the query losses, weighted over steps by `step_weights` (T,).

        None if it has to be computed without a recording: kinds of episodes that are new or cannot be recorded, query
        losses that are not below the family's cap, and gradients that are not finite.
        """
        if self.pool.device.type not in RECORDING or not self._can_be_recorded(episodes):
            return None
        contents = episodes.slot_contents()
        kind = self._kind(episodes, contents, step_weights)
        if kind is None:
            return None
        if kind not in self._recordings:
            # Of kinds that come once, a recording would not be used.
            if kind in self._seen and len(self._recordings) < MOST_RECORDINGS:
                self._recordings[kind] = self._record(episodes, contents, step_weights)
            self._seen.add(kind)
        recording = self._recordings.get(kind)
        if recording is None:
            return None
        for tensor, value in zip(recording.inputs, _inputs(episodes, contents, step_weights), strict=True):
            tensor.copy_(value)
        recording.run()
        worst, longest, norm = recording.outputs.summary.tolist()
        # False for NaN, too.
        if not (worst < self.family.cap and longest <= LONGEST and norm < float("inf")):
            return None
        count_work(inner_gradients=episodes.layers.numel())
        return MetaGradient(recording.outputs.losses, recording.outputs.gradients, norm)

    def _can_be_recorded(self, episodes: Episodes) -> bool:
        return self.family.fixed_data and not self.pool.statistics and episodes.optimizer == "sgd"

    def _kind(self, episodes: Episodes, contents: SlotContents, step_weights: Tensor) -> Hashable | None:
        """What two lots of episodes that one recording serves have in common; None for kinds without."""
        architecture, device = self.pool.architecture, self.pool.device
        slots = [architecture.filled(contents.numbers, depth, device) for depth in contents.depth[1:]]
        if any(isinstance(slot, Tensor) for filled in slots for slot in filled):
            return None
        return (
            tuple(map(tuple, slots)),
            tuple((tensor.shape, tensor.dtype) for tensor in _inputs(episodes, contents, step_weights)),
            (episodes.initial_layers, episodes.slots, episodes.clip, len(episodes.support), len(episodes.query)),
            tuple((step_weights > 0).tolist()),
            tuple(tensor.data_ptr() for tensor in self.pool.trainable().values()),
            (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
        )

    def _record(self, episodes: Episodes, contents: SlotContents, step_weights: Tensor) -> _Recording | None:
        """A recording on copies of what it reads; None if the replay waits for the device."""
        leaves, judged = list(self.pool.trainable().values()), (step_weights > 0).tolist()
        own, weights = episodes.map(torch.clone), step_weights.clone()
        held = contents._replace(layers=contents.layers.clone())

        def compute() -> _Outputs:
            lengths: list[Tensor] = []
            with requires_grad(leaves), uncounted():
                losses, _, _ = replay(
                    self.pool,
                    self.family,
                    own,
                    first_order=self.first_order,
                    judged=judged,
                    contents=held,
                    lengths=lengths,
                )
                by_row = (losses * weights[:, None]).sum(dim=0)
                gradients: list[Tensor | None] = list(torch.autograd.grad(by_row.mean(), leaves, allow_unused=True))
            squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
            extremes = [losses.detach().amax(), torch.stack(lengths).detach().amax(), torch.stack(squares).sum().sqrt()]
            return _Outputs(by_row.detach(), gradients, torch.stack(extremes))

        try:
            outputs, run = capture(compute, self.pool.device)
        except RuntimeError:
            return None
        return _Recording(_inputs(own, held, weights), outputs, run)


def _inputs(episodes: Episodes, contents: SlotContents, step_weights: Tensor) -> list[Tensor]:
    """All tensors that a replay reads, but for the pool's."""
    tensors = [contents.layers, episodes.step_sizes, step_weights]
    for batch in (*episodes.support, *episodes.query):
        tensors += [batch.inputs, batch.targets, *(batch.extras[name] for name in sorted(batch.extras))]
    return tensors


def _without_recordings(pool: LayerPool, family: TaskFamily, first_order: bool) -> RecordedGradients:
    return RecordedGradients(pool, family, first_order=first_order)

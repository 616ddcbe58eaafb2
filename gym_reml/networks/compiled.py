"""Dense networks computed by the compiled loops of `gym_reml.networks.kernels`, where numba is installed.

A third computation behind `Architecture`, for stepping alone: replays differentiate through `Dense`. Networks compute
the same on both up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.networks.architecture import Architecture
from gym_reml.networks.arrays import Array, Arrays, Pass, Squares
from gym_reml.networks.buffers import BiasedInputs, Workspace
from gym_reml.networks.dense import Dense
from gym_reml.networks.weights import LARGE_STEP, Weights

CORES = ("torch", "numba", "auto")
"""What computes networks: PyTorch; compiled loops; or these where they can be used, else PyTorch."""


def find_core(core: str, architecture: Architecture[Any], device: torch.device) -> Architecture[Any]:
    """The computation of `architecture` by this core.

    Args:
        core: one of `CORES`.
        architecture: of the networks.
        device: of the networks.

    Raises:
        ValueError: an unknown core, or "numba" for other than dense networks, or for a device other than the CPU.
        ImportError: "numba" where numba and scipy are not installed.
    """
    if core not in CORES:
        raise ValueError(f"core={core!r}: must be one of {', '.join(map(repr, CORES))}")
    if core == "torch":
        return architecture
    installed = find_spec("numba") is not None and find_spec("scipy") is not None
    if type(architecture) is Dense and device.type == "cpu" and installed:
        try:
            from gym_reml.networks.kernels import KINDS
        except ImportError:  # numba refuses versions of numpy that it does not know
            installed = False
        else:
            if type(architecture.kind) in KINDS:
                return CompiledDense(architecture)
    if core == "auto":
        return architecture
    if not installed:
        raise ImportError(
            "core='numba': needs numba and scipy that fit this numpy: pip install 'gym-reml[fast]', or core='torch'"
        )
    raise ValueError(
        f"core='numba': computes dense layers of the package's kinds on the CPU, not {device}; core='torch'"
    )


def _arrays(weights: Weights) -> Arrays:
    """Weights as arrays that share memory with the tensors, whose slots are moved to one array the first time."""
    if not isinstance(weights.views, Arrays):
        positions = weights.positions
        head = _together(positions[-1:], "matrix")[0]
        count, width = head.shape[0], head.shape[1] - 1
        stem, norms = head.new_zeros(count, 0, width), head.new_zeros(0, count, 2, width)
        if "matrix" in positions[0]:
            stem = _together(positions[:1], "matrix")[0]
        if "norm" in positions[0]:
            norms = _together(positions[:-1], "norm")
        slots = _together(positions[1:-1], "matrix")
        weights.views = Arrays(*(tensor.numpy() for tensor in (stem, slots, head, norms)))
    views: Arrays = weights.views
    return views


def _together(positions: Sequence[dict[str, Tensor]], name: str) -> Tensor:
    """One tensor, of which those of this name at the positions become parts."""
    with torch.inference_mode(False), torch.no_grad():  # to be changed in any mode
        whole = torch.stack([position[name].contiguous() for position in positions])
    for position, tensor in zip(positions, whole, strict=True):
        position[name] = tensor
    return whole


@dataclass
class CompiledTrace:
    """Results of a forward pass.

    Attributes:
        passed: what the gradient needs of the first points.
        outputs: (n, points, out).
    """

    passed: Pass
    outputs: Tensor

    @property
    def last(self) -> Array:
        """Inputs of the head at the points that are kept, (n, kept, width + 1)."""
        activations: Array = self.passed.activations[self.passed.depth, np.arange(len(self.passed.depth))]
        return activations

    @property
    def features(self) -> Tensor:
        """Activations of the last hidden layer at the points that are kept, (n, kept, width)."""
        return torch.from_numpy(self.last[..., :-1])

    def first(self, points: int, workspace: Workspace | None = None) -> CompiledTrace:
        """The part of this pass for the first `points` points, which have to be those kept."""
        views = BiasedInputs if workspace is None else workspace.views
        return CompiledTrace(self.passed, views(self.outputs).first(points).tensor)


class CompiledDense(Architecture[CompiledTrace]):
    """n dense networks, one after the other, each evaluated or updated as a whole.

    Weights are those of `Dense`; their slots become parts of one array. A pass stores what a gradient needs for the
    first `kept` points alone, and a pass from a later position on overwrites the earlier one.
    """

    def __init__(self, dense: Dense) -> None:
        """Computes what `dense` does, whose kind is among `kernels.KINDS`."""
        # Imported here, because without numba there are no kernels.
        from gym_reml.networks import kernels

        self._dense, self._kernels = dense, kernels
        self._kind: int = kernels.KINDS[type(dense.kind)]
        self.skip, self.normalised, self.across_points = dense.skip, dense.normalised, dense.across_points

    def __reduce__(self) -> tuple[type[CompiledDense], tuple[Dense]]:
        return (CompiledDense, (self._dense,))

    def filled(self, layers: NDArray[np.int64], depth: NDArray[np.int64], device: torch.device) -> Any:
        """The rows' numbers of layers, (n,): the array given."""
        return depth

    def prepare(self, inputs: Tensor, fixed: Mapping[str, Tensor]) -> Tensor:
        """As for `Dense`."""
        return self._dense.prepare(inputs, fixed)

    def forward(
        self,
        weights: Weights,
        inputs: Tensor | BiasedInputs,
        *,
        filled: Any,
        norms: Sequence[Tensor] | None = None,
        workspace: Workspace | None = None,
        trace: CompiledTrace | None = None,
        start: int = 0,
        kept: int | None = None,
    ) -> CompiledTrace:
        """Computes the networks' outputs; see `Architecture.forward`. Nothing is differentiable."""
        arrays = _arrays(weights)
        norm_array = arrays.norms if norms is None else torch.stack(list(norms)).numpy()
        if start == 0:
            x = np.ascontiguousarray((inputs.tensor if isinstance(inputs, BiasedInputs) else inputs).numpy())
            shape = (*x.shape[:2], x.shape[1] if kept is None else kept)
            buffers = workspace or Workspace()
            stored, outputs, output_tensor = buffers.keep(
                "pass", shape, lambda: self._buffers(weights, buffers, *shape[1:])
            )
        else:
            assert trace is not None
            x, stored = trace.passed.inputs, trace.passed[3:]
            # Of the same points: the first, perhaps.
            outputs = np.empty((len(x), trace.outputs.shape[1], arrays.head.shape[2]), arrays.head.dtype)
            output_tensor = torch.from_numpy(outputs)
        passed = Pass(x, norm_array, filled, *stored)
        self._kernels.forward(self._kind, start, arrays, passed, outputs)
        if "constants" in weights.positions[-1]:
            constants = weights.positions[-1]["constants"]
            output_tensor = torch.cat([output_tensor, constants.expand(-1, outputs.shape[1], -1)], dim=2)
        return CompiledTrace(passed, output_tensor)

    def _buffers(
        self, weights: Weights, workspace: Workspace, points: int, kept: int
    ) -> tuple[tuple[Array, ...], Array, Tensor]:
        """What a pass stores, its outputs, and these as a tensor, of which the workspace caches views."""
        arrays = _arrays(weights)
        slots, count = arrays.slots.shape[:2]
        width, out, dtype = arrays.head.shape[1] - 1, arrays.head.shape[2], arrays.head.dtype
        many, per_norm = (slots + 1, count), kept if self._kind == self._kernels.LAYER_NORM else width
        normalised = self._dense.normalised
        stored = (
            np.ones((*many, kept, width + 1), dtype),
            np.empty((*many, kept, width), dtype),
            np.empty((*many, kept, width) if normalised else (0, count, kept, width), dtype),
            np.empty((*many, per_norm) if normalised else (0, count, width), dtype),
        )
        outputs = workspace.take("outputs", 0, (count, points, out), weights.positions[-1]["matrix"])
        return stored, outputs.numpy(), outputs

    def gradient(
        self,
        weights: Weights,
        trace: CompiledTrace,
        *,
        output_gradient: Tensor,
        filled: Any,
        workspace: Workspace | None = None,
    ) -> Weights:
        """Hand-written gradients; see `Architecture.gradient`."""
        arrays = _arrays(weights)
        found = (workspace or Workspace()).keep(
            "gradients", tuple(array.shape for array in arrays), lambda: Arrays(*map(np.zeros_like, arrays))
        )
        written = found
        # Kinds that normalise have the gradient of their norms computed also where it is not asked for.
        if self._dense.normalised and not len(found.norms):
            slots, count, _, width = found.slots.shape
            written = found._replace(norms=np.empty((slots + 1, count, 2, width), found.head.dtype))
        varying = self._varying(arrays, output_gradient)
        self._kernels.gradients(self._kind, arrays, trace.passed, varying, written)
        stem_tensor, slot_tensors, head_tensor, norm_tensors = map(torch.from_numpy, found)
        gradients: list[dict[str, Tensor]] = []
        for index, position in enumerate(weights.positions):
            last = index == len(weights.positions) - 1
            tensors = {"matrix": head_tensor if last else slot_tensors[index - 1] if index else stem_tensor}
            if "norm" in position:
                tensors["norm"] = norm_tensors[index]
            if "constants" in position:
                tensors["constants"] = output_gradient[:, :, varying.shape[2] :].sum(dim=1, keepdim=True)
            gradients.append({name: tensors[name] for name in position})
        return Weights(gradients)

    def descend(
        self,
        weights: Weights,
        trace: CompiledTrace,
        *,
        output_gradient: Tensor,
        filled: Any,
        step_sizes: Tensor,
        clip: float | None,
        rates: Weights | None = None,
        workspace: Workspace | None = None,
        out: Weights,
    ) -> tuple[Weights, Tensor, float]:
        """One clipped gradient step; see `Architecture.descend`."""
        if rates is None and "constants" not in weights.positions[-1]:
            old = _arrays(weights)
            lengths = np.empty((len(weights.positions), len(filled)), old.head.dtype)
            self._kernels.descend(
                self._kind,
                old,
                trace.passed,
                self._varying(old, output_gradient),
                step_sizes.reshape(-1, len(filled)).numpy(),
                clip or 0.0,
                _arrays(out),
                lengths,
            )
            return out, torch.from_numpy(lengths), float(np.add.reduce(lengths, axis=None))
        return super().descend(
            weights,
            trace,
            output_gradient=output_gradient,
            filled=filled,
            step_sizes=step_sizes,
            clip=clip,
            rates=rates,
            workspace=workspace,
            out=out,
        )

    def step(
        self,
        weights: Weights,
        trace: CompiledTrace,
        *,
        layers: NDArray[np.int64],
        filled: NDArray[np.int64],
        pool: Mapping[str, Tensor],
        squares: Squares,
        step_sizes: NDArray[np.float32],
        clip: float | None,
        limits: NDArray[np.float64],
        out: Weights,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Grows networks of regression, descends on the mean squared error over the points kept, and renews their pass.

        Args:
            weights: of n networks without "constants"; appended layers are written.
            trace: of these weights, over all points; it becomes that of the new weights. Its depth counts the layers.
            layers: (n,), pool layers to append, from 1, or 0; those that are not are replaced by 0.
            filled: (slots, n), numbers of the pool layers in the slots, written.
            pool: its parameters, by name.
            squares: of these networks, whose support sets are the points kept; gradient and losses become those of the
                new weights.
            step_sizes: (n,), or (slots + 2, n) for one at each position.
            limits: (n,), above which a support loss after the step has it undone.
            clip, out: see `descend`.

        Returns:
            The norms of the gradients by position before clipping, (slots + 2, n), and whose steps were undone, (n,).
        """
        arrays, count = _arrays(weights), len(layers)
        lengths, refused = np.empty((len(weights.positions), count), arrays.head.dtype), np.empty(count, np.bool_)
        self._kernels.step(
            self._kind,
            layers,
            filled,
            pool["layers.matrix"].detach().numpy(),
            pool["layers.norm"].detach().numpy() if self.normalised else arrays.norms[0:0, 0],
            tuple(arrays),
            tuple(trace.passed),
            trace.outputs.numpy(),
            tuple(squares),
            step_sizes.reshape(-1, count),
            clip or 0.0,
            LARGE_STEP,
            limits,
            tuple(_arrays(out)),
            lengths,
            refused,
        )
        return lengths, refused

    def squared_errors(self, outputs: Tensor, query_outputs: Tensor, squares: Squares) -> None:
        """Writes the losses of these outputs, at the points of both sets, and the gradient of the support losses."""
        self._kernels.squared_errors(outputs.numpy(), query_outputs.numpy(), tuple(squares))

    def head_gradient(self, trace: CompiledTrace, output_gradient: Tensor) -> Tensor:
        """Sum over points of activation x output gradient, including columns for the constant outputs."""
        return torch.bmm(torch.from_numpy(trace.last).transpose(1, 2), output_gradient)

    def write_observed(
        self,
        trace: CompiledTrace,
        output_gradient: Tensor,
        *,
        point_weights: Tensor | None,
        exchangeable: bool,
        out: NDArray[np.float32],
    ) -> None:
        """Writes what `observed` returns into the first columns of `out`, (n, size)."""
        activations = trace.passed.activations
        self._kernels.observed(
            trace.passed.depth,
            activations,
            np.ascontiguousarray(output_gradient.numpy()),
            np.empty((len(out), 0), activations.dtype) if point_weights is None else point_weights.numpy(),
            exchangeable,
            out,
        )

    @staticmethod
    def _varying(arrays: Arrays, output_gradient: Tensor) -> Array:
        """The part of the gradient with respect to outputs that depend on the input."""
        return np.ascontiguousarray(output_gradient.numpy()[:, :, : arrays.head.shape[2]])

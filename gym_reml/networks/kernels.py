"""Compiled loops over networks, for `gym_reml.networks.compiled`: needs `pip install gym-reml[fast]`.

One network at a time is evaluated or updated whole, so that what one product leaves is still in the cache when the next
needs it; the products are those of BLAS. Sums may be taken in any order, but comparisons see NaN as PyTorch's do: no
network that diverges goes unnoticed.

Shapes: n networks, `slots` slots, `points` points of a pass, of which the first `kept` are stored for the gradient,
positions 0 (the stem) to `slots` (the last slot); arrays of activations end with a column of ones.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gym_reml.networks.layer_kinds import (
    NORM_EPSILON,
    BatchNorm,
    LayerKind,
    LayerNorm,
    Relu,
    Residual,
    Tanh,
)

RELU, TANH, RESIDUAL, LAYER_NORM, BATCH_NORM = range(5)
KINDS: dict[type[LayerKind], int] = {
    Relu: RELU,
    Tanh: TANH,
    Residual: RESIDUAL,
    LayerNorm: LAYER_NORM,
    BatchNorm: BATCH_NORM,
}
"""Kinds of layers that there are kernels for: by class, since a user's kind may have one of these names."""

Array = NDArray[Any]

# Not "nnan" and "ninf", which would hide divergence.
_compiled = numba.njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_compiled
def _positive(value: Any, zero: Any) -> Any:
    """max(value, 0), and NaN for NaN."""
    return zero if value < zero else value


@_compiled
def _normalise(kind: int, z: Array, norm: Array, unit: Array, scale: Array) -> None:
    """Normalises z (points, width) in place, to gain * unit + shift; `unit` and `scale` are what the gradient needs."""
    points, width = z.shape
    epsilon, one = z.dtype.type(NORM_EPSILON), z.dtype.type(1.0)
    if kind == LAYER_NORM:
        for point in range(points):
            mean = z.dtype.type(0.0)
            for column in range(width):
                mean += z[point, column]
            mean /= z.dtype.type(width)
            variance = z.dtype.type(0.0)
            for column in range(width):
                variance += (z[point, column] - mean) * (z[point, column] - mean)
            factor = one / np.sqrt(variance / z.dtype.type(width) + epsilon)
            scale[point] = factor
            for column in range(width):
                unit[point, column] = (z[point, column] - mean) * factor
    else:
        given = norm.shape[0] > 2
        for column in range(width):
            mean = norm[2, column] if given else z.dtype.type(0.0)
            variance = norm[3, column] if given else z.dtype.type(0.0)
            if not given:
                for point in range(points):
                    mean += z[point, column]
                mean /= z.dtype.type(points)
                for point in range(points):
                    variance += (z[point, column] - mean) * (z[point, column] - mean)
                variance /= z.dtype.type(points)
            factor = one / np.sqrt(variance + epsilon)
            scale[column] = factor
            for point in range(points):
                unit[point, column] = (z[point, column] - mean) * factor
    for point in range(points):
        for column in range(width):
            z[point, column] = norm[1, column] + unit[point, column] * norm[0, column]


@_compiled
def _normalise_backward(
    kind: int, gradient: Array, norm: Array, unit: Array, scale: Array, norm_gradient: Array
) -> None:
    """From the gradient by gain * unit + shift, in place that by z, and that by gain and shift."""
    points, width = gradient.shape
    zero = gradient.dtype.type(0.0)
    norm_gradient[:] = zero
    for point in range(points):
        for column in range(width):
            norm_gradient[0, column] += gradient[point, column] * unit[point, column]
            norm_gradient[1, column] += gradient[point, column]
            gradient[point, column] *= norm[0, column]
    if kind == LAYER_NORM:
        for point in range(points):
            mean, projection = zero, zero
            for column in range(width):
                mean += gradient[point, column]
                projection += gradient[point, column] * unit[point, column]
            mean /= gradient.dtype.type(width)
            projection /= gradient.dtype.type(width)
            for column in range(width):
                inner = gradient[point, column] - mean - unit[point, column] * projection
                gradient[point, column] = inner * scale[point]
    else:
        given = norm.shape[0] > 2
        for column in range(width):
            mean, projection = zero, zero
            if not given:
                for point in range(points):
                    mean += gradient[point, column]
                    projection += gradient[point, column] * unit[point, column]
                mean /= gradient.dtype.type(points)
                projection /= gradient.dtype.type(points)
            for point in range(points):
                inner = gradient[point, column] - mean - unit[point, column] * projection
                gradient[point, column] = inner * scale[column]


@_compiled
def forward(
    kind: int,
    start: int,
    inputs: Array,
    stem: Array,
    slots: Array,
    head: Array,
    norms: Array,
    depth: NDArray[np.int64],
    activations: Array,
    saved: Array,
    units: Array,
    scales: Array,
    outputs: Array,
) -> None:
    """Outputs of n networks, and what their gradients need.

    Args:
        kind: of the layers, a value of `KINDS`.
        start: the first position whose weights changed. If it is not 0, the points are the first of those kept.
        inputs: (n, points, in + 1), or the stem's pre-activations (n, points, width) if `stem` is empty.
        stem: (n, in + 1, width), or (n, 0, width).
        slots: (slots, n, width + 1, width).
        head: (n, width + 1, out).
        norms: (slots + 1, n, 2 or 4, width), or without rows for kinds that do not normalise.
        depth: (n,), number of slots that hold a layer.
        activations: written, (slots + 1, n, kept, width + 1), whose last column holds ones.
        saved: written, (slots + 1, n, kept, width): pre-activations, or for tanh activations.
        units, scales: written for kinds that normalise: (slots + 1, n, kept, width) and (slots + 1, n, kept or width).
        outputs: written, (n, points, out).
    """
    count, points = outputs.shape[:2]
    width, kept = head.shape[1] - 1, min(points, activations.shape[2])
    zero = head.dtype.type(0.0)
    normalised = kind in (LAYER_NORM, BATCH_NORM)
    present, following = np.ones((points, width + 1), head.dtype), np.ones((points, width + 1), head.dtype)
    z, unit = np.empty((points, width), head.dtype), np.empty((points if normalised else 0, width), head.dtype)
    scale = np.empty(max(points, width), head.dtype)
    for row in range(count):
        if start > 0:
            before = min(start - 1, depth[row])
            for point in range(points):
                for column in range(width):
                    present[point, column] = activations[before, row, point, column]
        for position in range(start, depth[row] + 1):
            if position > 0:
                np.dot(present, slots[position - 1, row], z)
            elif stem.shape[1] > 0:
                np.dot(inputs[row], stem[row], z)
            else:
                z[:] = inputs[row]
            if normalised:
                _normalise(kind, z, norms[position, row], unit, scale)
                for point in range(kept):
                    for column in range(width):
                        units[position, row, point, column] = unit[point, column]
                for place in range(min(scales.shape[2], len(scale))):
                    scales[position, row, place] = scale[place]
            if kind == TANH:
                for point in range(points):
                    for column in range(width):
                        z[point, column] = np.tanh(z[point, column])
                        following[point, column] = z[point, column]
            elif kind == RESIDUAL and position > 0:
                for point in range(points):
                    for column in range(width):
                        following[point, column] = present[point, column] + _positive(z[point, column], zero)
            else:
                for point in range(points):
                    for column in range(width):
                        following[point, column] = _positive(z[point, column], zero)
            for point in range(kept):
                for column in range(width):
                    saved[position, row, point, column] = z[point, column]
                    activations[position, row, point, column] = following[point, column]
            present, following = following, present
        np.dot(present, head[row], outputs[row])


@_compiled
def backward(
    kind: int,
    row: int,
    inputs: Array,
    slots: Array,
    head: Array,
    norms: Array,
    depth: int,
    activations: Array,
    saved: Array,
    units: Array,
    scales: Array,
    output_gradient: Array,
    stem_gradient: Array,
    slot_gradients: Array,
    head_gradient: Array,
    norm_gradients: Array,
    upstream: Array,
    gradient: Array,
    product: Array,
) -> None:
    """Gradients of one network's loss; those of its empty slots are not written.

    Args:
        kind, inputs, slots, head, norms, activations, saved, units, scales: see `forward`; of all networks.
        row, depth: of this network.
        output_gradient: of this network's loss with respect to its outputs, (points, out).
        stem_gradient: written unless empty, (in + 1, width).
        slot_gradients: written, (slots, width + 1, width).
        head_gradient: written, (width + 1, out).
        norm_gradients: written for kinds that normalise, (slots + 1, 2, width).
        upstream, gradient, product: room for (points, width) each.
    """
    points, width = upstream.shape
    zero, one = head.dtype.type(0.0), head.dtype.type(1.0)
    np.dot(activations[depth, row, :points].T, output_gradient, head_gradient)
    np.dot(output_gradient, head[row, :width].T, upstream)
    for position in range(depth, -1, -1):
        if kind == TANH:
            for point in range(points):
                for column in range(width):
                    value = saved[position, row, point, column]
                    gradient[point, column] = upstream[point, column] * (one - value * value)
        else:
            for point in range(points):
                for column in range(width):
                    closed = saved[position, row, point, column] <= zero
                    gradient[point, column] = zero if closed else upstream[point, column]
        if kind in (LAYER_NORM, BATCH_NORM):
            norm, unit, scale = norms[position, row], units[position, row], scales[position, row]
            _normalise_backward(kind, gradient, norm, unit, scale, norm_gradients[position])
        if position > 0:
            np.dot(activations[position - 1, row, :points].T, gradient, slot_gradients[position - 1])
            if kind == RESIDUAL:
                np.dot(gradient, slots[position - 1, row, :width].T, product)
                for point in range(points):
                    for column in range(width):
                        upstream[point, column] += product[point, column]
            else:
                np.dot(gradient, slots[position - 1, row, :width].T, upstream)
        elif stem_gradient.shape[0] > 0:
            np.dot(inputs[row, :points].T, gradient, stem_gradient)


@_compiled
def gradients(
    kind: int,
    inputs: Array,
    slots: Array,
    head: Array,
    norms: Array,
    depth: NDArray[np.int64],
    activations: Array,
    saved: Array,
    units: Array,
    scales: Array,
    output_gradient: Array,
    stem_gradient: Array,
    slot_gradients: Array,
    head_gradient: Array,
    norm_gradients: Array,
) -> None:
    """Gradients of n networks' losses, as those of `backward` with a first (norms: second) dimension of networks.

    Slots are the first dimension of `slot_gradients` (slots, n, width + 1, width) and `norm_gradients` (slots + 1, n,
    2, width), as of the weights. Gradients of empty slots are 0.
    """
    count, points = output_gradient.shape[:2]
    width = head.shape[1] - 1
    upstream, gradient = np.empty((points, width), head.dtype), np.empty((points, width), head.dtype)
    product = np.empty((points, width), head.dtype)
    row_slots = np.empty((slots.shape[0], width + 1, width), head.dtype)
    row_norms = np.empty((norm_gradients.shape[0], 2, width), head.dtype)
    for row in range(count):
        backward(
            kind, row, inputs, slots, head, norms, depth[row], activations, saved, units, scales,
            output_gradient[row], stem_gradient[row], row_slots, head_gradient[row], row_norms,
            upstream, gradient, product,
        )  # fmt: skip
        row_slots[depth[row] :] = 0.0
        slot_gradients[:, row] = row_slots
        row_norms[depth[row] + 1 :] = 0.0
        norm_gradients[:, row] = row_norms


@_compiled
def _squares(values: Array) -> Any:
    """Sum of squares."""
    total = values.dtype.type(0.0)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            total += values[row, column] * values[row, column]
    return total


@_compiled
def _moved(new: Array, old: Array, factor: Any, gradient: Array) -> None:
    """new = old - factor * gradient, for matrices."""
    for row in range(old.shape[0]):
        for column in range(old.shape[1]):
            new[row, column] = old[row, column] - factor * gradient[row, column]


@_compiled
def descend(
    kind: int,
    inputs: Array,
    stem: Array,
    slots: Array,
    head: Array,
    norms: Array,
    depth: NDArray[np.int64],
    activations: Array,
    saved: Array,
    units: Array,
    scales: Array,
    output_gradient: Array,
    step_sizes: Array,
    clip: float,
    adapted: bool,
    new_stem: Array,
    new_slots: Array,
    new_head: Array,
    new_norms: Array,
    lengths: Array,
) -> int:
    """One clipped gradient step of n networks; see `weights.descend`.

    Args:
        kind, inputs, stem, slots, head, norms, depth, activations, saved, units, scales: see `forward`.
        output_gradient: (n, points, out).
        step_sizes: (1, n), or (slots + 2, n) for one at each position.
        clip: largest norm of a network's whole gradient; 0 for none.
        adapted: whether norms take the step, too.
        new_stem, new_slots, new_head, new_norms: written, shaped as the weights.
        lengths: written, (slots + 2, n): norms of the gradients by position, before clipping.

    Returns:
        The number of networks whose squared norm overflows: their steps have to be taken in another way.
    """
    count, points = output_gradient.shape[:2]
    slot_count, width = slots.shape[0], head.shape[1] - 1
    zero, one = head.dtype.type(0.0), head.dtype.type(1.0)
    normalised = kind in (LAYER_NORM, BATCH_NORM)
    upstream, gradient = np.empty((points, width), head.dtype), np.empty((points, width), head.dtype)
    product = np.empty((points, width), head.dtype)
    stem_gradient = np.empty(stem.shape[1:], head.dtype)
    slot_gradients = np.empty((slot_count, width + 1, width), head.dtype)
    head_gradient = np.empty(head.shape[1:], head.dtype)
    norm_gradients = np.empty((slot_count + 1 if normalised else 0, 2, width), head.dtype)
    several, limit, overflows = step_sizes.shape[0] > 1, head.dtype.type(clip), 0
    for row in range(count):
        filled = depth[row]
        backward(
            kind, row, inputs, slots, head, norms, filled, activations, saved, units, scales,
            output_gradient[row], stem_gradient, slot_gradients, head_gradient, norm_gradients,
            upstream, gradient, product,
        )  # fmt: skip
        whole = zero
        for position in range(slot_count + 2):
            if position == slot_count + 1:
                square = _squares(head_gradient)
            elif position > filled:
                square = zero
            else:
                square = _squares(slot_gradients[position - 1]) if position > 0 else _squares(stem_gradient)
                if adapted:
                    square += _squares(norm_gradients[position])
            whole += square
            lengths[position, row] = np.sqrt(square)
        length = np.sqrt(whole)
        if not length < head.dtype.type(np.inf):
            overflows += 1
        # Written so that a length of NaN makes weights of NaN.
        factor = limit / length if length > limit else (one if length <= limit else length)
        if clip == 0.0:
            factor = one
        for position in range(slot_count + 2):
            size = step_sizes[position if several else 0, row] * factor
            if position == 0:
                _moved(new_stem[row], stem[row], size, stem_gradient)
            elif position > slot_count:
                _moved(new_head[row], head[row], size, head_gradient)
            elif position <= filled:
                _moved(new_slots[position - 1, row], slots[position - 1, row], size, slot_gradients[position - 1])
            else:
                new_slots[position - 1, row] = slots[position - 1, row]
            if adapted and position <= slot_count:
                if position <= filled:
                    _moved(new_norms[position, row], norms[position, row], size, norm_gradients[position])
                else:
                    new_norms[position, row] = norms[position, row]
    return overflows


@_compiled
def observed(
    depth: NDArray[np.int64],
    activations: Array,
    output_gradient: Array,
    point_weights: Array,
    exchangeable: bool,
    written: Array,
) -> None:
    """What agents observe of n networks; see `Architecture.observed`.

    Args:
        depth, activations: see `forward`.
        output_gradient: (n, points, out).
        point_weights: (n, points), or (n, 0) for equal ones.
        exchangeable: give the norm of the head's gradient over outputs.
        written: (n, size).
    """
    count, points, out = output_gradient.shape
    width = activations.shape[3] - 1
    zero = activations.dtype.type(0.0)
    gradient = np.empty((width + 1, out), activations.dtype)
    mean, deviation = np.empty(width, activations.dtype), np.empty(width, activations.dtype)
    share = activations.dtype.type(1.0 / points)
    for row in range(count):
        values = activations[depth[row], row]
        np.dot(values[:points].T, output_gradient[row], gradient)
        column = 0
        for unit in range(width + 1):
            if exchangeable:
                square = zero
                for output in range(out):
                    square += gradient[unit, output] * gradient[unit, output]
                written[row, column] = np.sqrt(square)
                column += 1
            else:
                for output in range(out):
                    written[row, column] = gradient[unit, output]
                    column += 1
        mean[:] = zero
        deviation[:] = zero
        for point in range(points):
            weight = point_weights[row, point] if point_weights.shape[1] > 0 else share
            for unit in range(width):
                mean[unit] += weight * values[point, unit]
        for point in range(points):
            weight = point_weights[row, point] if point_weights.shape[1] > 0 else share
            for unit in range(width):
                difference = values[point, unit] - mean[unit]
                deviation[unit] += weight * (difference * difference)
        for unit in range(width):
            written[row, column + unit] = mean[unit]
            written[row, column + width + unit] = np.sqrt(deviation[unit])

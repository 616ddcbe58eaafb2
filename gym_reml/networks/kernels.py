"""Compiled loops over networks, for `gym_reml.networks.compiled`: needs `pip install gym-reml[fast]`.

One network at a time is evaluated or updated whole, so that what one product leaves is still in the cache when the next
needs it; the products are those of BLAS. Sums may be taken in any order, but comparisons see NaN as PyTorch's do: no
network that diverges goes unnoticed.

Kernels called at every step take groups of arrays as plain tuples: named ones take 1 us more each to be read.

Shapes: n networks, `slots` slots, `points` points of a pass, of which the first `kept` are stored for the gradient,
positions 0 (the stem) to `slots` (the last slot); arrays of activations end with a column of ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gym_reml.networks.arrays import Array, Arrays, Pass
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

# Not "nnan" and "ninf", which would hide divergence.
_compiled = numba.njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_compiled
def _positive(value: Any, zero: Any) -> Any:
    """max(value, 0), and NaN for NaN."""
    return zero if value < zero else value


class Scratch(NamedTuple):
    """Memory of a pass of one network over some points, the columns of its matrices.

    Products of many points take a fifth less time with these as columns whose number is a multiple of 16, and loops
    over elements half as much as with points as rows. `columns` is the number of points, or of many the next such
    multiple; what stands behind the points is not used.

    Attributes:
        values: activations, (width + 1, columns), whose last row holds ones.
        z: pre-activations, (width, columns).
        inputs: (in + 1, columns), with zeros behind the points; without rows if the stem is not adapted.
        outputs: (out, columns).
        unit, mean, scale: for kinds that normalise, (width, columns) and two vectors.
    """

    values: Array
    z: Array
    inputs: Array
    outputs: Array
    unit: Array
    mean: Array
    scale: Array


@_compiled
def _normalise(kind: int, points: int, norm: Array, scratch: Scratch) -> None:
    """Normalises z at so many points in place, to gain * unit + shift; `unit` and `scale` are for the gradient."""
    _, z, _, _, unit, mean, scale = scratch
    width = len(z)
    epsilon, zero, one = z.dtype.type(NORM_EPSILON), z.dtype.type(0.0), z.dtype.type(1.0)
    if kind == LAYER_NORM:
        share = one / z.dtype.type(width)
        mean[:] = zero
        scale[:] = zero
        for column in range(width):
            for point in range(points):
                mean[point] += z[column, point] * share
        for column in range(width):
            for point in range(points):
                unit[column, point] = z[column, point] - mean[point]
                scale[point] += unit[column, point] * unit[column, point] * share
        for point in range(points):
            scale[point] = one / np.sqrt(scale[point] + epsilon)
        for column in range(width):
            for point in range(points):
                unit[column, point] *= scale[point]
    else:
        given = norm.shape[0] > 2
        for column in range(width):
            centre = norm[2, column] if given else zero
            variance = norm[3, column] if given else zero
            if not given:
                for point in range(points):
                    centre += z[column, point]
                centre /= z.dtype.type(points)
                for point in range(points):
                    variance += (z[column, point] - centre) * (z[column, point] - centre)
                variance /= z.dtype.type(points)
            factor = one / np.sqrt(variance + epsilon)
            scale[column] = factor
            for point in range(points):
                unit[column, point] = (z[column, point] - centre) * factor
    for column in range(width):
        for point in range(points):
            z[column, point] = norm[1, column] + unit[column, point] * norm[0, column]


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
def _scratch(kind: int, points: int, stem: Array, head: Array) -> Scratch:
    width, out, dtype = head.shape[1] - 1, head.shape[2], head.dtype
    columns = points if points <= 16 else 16 * ((points + 15) // 16)
    normalised = kind in (LAYER_NORM, BATCH_NORM)
    vector = max(points, width)
    return Scratch(
        np.ones((width + 1, columns), dtype),
        np.zeros((width, columns), dtype),
        np.zeros((stem.shape[1], columns), dtype),
        np.empty((out, columns), dtype),
        np.empty((width if normalised else 0, columns), dtype),
        np.empty(vector, dtype),
        np.empty(vector, dtype),
    )


@_compiled
def _copied(new: Array, old: Array) -> None:
    """new = old, for matrices: several times faster than by slices."""
    for row in range(new.shape[0]):
        for column in range(new.shape[1]):
            new[row, column] = old[row, column]


@_compiled
def _turned(new: Array, old: Array) -> None:
    """Fills the matrix `new` with the transpose of the first rows and columns of `old`."""
    for row in range(new.shape[0]):
        for column in range(new.shape[1]):
            new[row, column] = old[column, row]


@_compiled
def _rectified(values: Array, z: Array) -> None:
    """max(z, 0) as all but the last row of `values`."""
    zero = z.dtype.type(0.0)
    for row in range(z.shape[0]):
        for column in range(z.shape[1]):
            values[row, column] = _positive(z[row, column], zero)


@_compiled
def _added(values: Array, z: Array) -> None:
    """max(z, 0) is added to all but the last row of `values`."""
    zero = z.dtype.type(0.0)
    for row in range(z.shape[0]):
        for column in range(z.shape[1]):
            values[row, column] += _positive(z[row, column], zero)


@_compiled
def _forward(kind: int, row: int, start: int, weights: Arrays, passed: Pass, outputs: Array, scratch: Scratch) -> None:
    """Outputs of one network, (points, out), and what its gradient needs; see `forward`."""
    stem, slots, head, _ = weights
    inputs, norms, depth, activations, saved, units, scales = passed
    values, z = scratch.values, scratch.z
    points, width = len(outputs), len(z)
    kept = min(points, activations.shape[2])
    normalised = kind in (LAYER_NORM, BATCH_NORM)
    if start > 0:
        _turned(values[:, :points], activations[min(start - 1, depth[row]), row])
    for position in range(start, depth[row] + 1):
        if position > 0:
            np.dot(slots[position - 1, row].T, values, z)
        elif stem.shape[1] > 0:
            _turned(scratch.inputs[:, :points], inputs[row])
            np.dot(stem[row].T, scratch.inputs, z)
        else:
            _turned(z[:, :points], inputs[row])
        if normalised:
            _normalise(kind, points, norms[position, row], scratch)
            _turned(units[position, row, :kept], scratch.unit)
            for place in range(min(scales.shape[2], len(scratch.scale))):
                scales[position, row, place] = scratch.scale[place]
        # In place: loops over three matrices take twice as long as over two.
        if kind == TANH:
            for column in range(width):
                for point in range(points):
                    z[column, point] = np.tanh(z[column, point])
                    values[column, point] = z[column, point]
        elif kind == RESIDUAL and position > 0:
            _added(values, z)
        else:
            _rectified(values, z)
        _turned(saved[position, row, :kept], z)
        _turned(activations[position, row, :kept], values)
    np.dot(head[row].T, values, scratch.outputs)
    _turned(outputs, scratch.outputs)


@_compiled
def forward(kind: int, start: int, weights: Arrays, passed: Pass, outputs: Array) -> None:
    """Outputs of n networks, and what their gradients need.

    Args:
        kind: of the layers, a value of `KINDS`.
        start: the first position whose weights changed. If it is not 0, the points are the first of those kept.
        weights: of the networks; norms are those of the pass.
        passed: inputs, norms and depth; what the gradient needs is written.
        outputs: written, (n, points, out).
    """
    scratch = _scratch(kind, outputs.shape[1], weights.stem, weights.head)
    for row in range(len(outputs)):
        _forward(kind, row, start, weights, passed, outputs[row], scratch)


class Room(NamedTuple):
    """Memory of a backward pass of one network, each (points, width); `product` for residual layers alone.

    Attributes:
        upstream: gradient by the activations after a position.
        gradient: by its pre-activations.
        product: by the activations before it, through its weights.
    """

    upstream: Array
    gradient: Array
    product: Array


@_compiled
def _room(kind: int, points: int, head: Array) -> Room:
    width = head.shape[1] - 1
    return Room(
        np.empty((points, width), head.dtype),
        np.empty((points, width), head.dtype),
        np.empty((points if kind == RESIDUAL else 0, width), head.dtype),
    )


@_compiled
def backward(
    kind: int, row: int, weights: Arrays, passed: Pass, output_gradient: Array, found: Arrays, room: Room
) -> None:
    """Gradients of one network's loss; those of its empty slots are not written.

    Args:
        kind, weights, passed: see `forward`; of all networks.
        row: of this network.
        output_gradient: of this network's loss with respect to its outputs, (points, out).
        found: written, of this network: as `Arrays` without the dimension of networks. Norms only for kinds that
            normalise, the stem unless it is empty.
        room: for these points.
    """
    _, slots, head, _ = weights
    inputs, norms, depths, activations, saved, units, scales = passed
    stem_gradient, slot_gradients, head_gradient, norm_gradients = found
    upstream, gradient, product = room
    depth, points, width = depths[row], output_gradient.shape[0], head.shape[1] - 1
    zero, one = head.dtype.type(0.0), head.dtype.type(1.0)
    np.dot(activations[depth, row, :points].T, output_gradient, head_gradient)
    np.dot(output_gradient, head[row, :width].T, upstream)
    for position in range(depth, -1, -1):
        stored = saved[position, row]
        if kind == TANH:
            for point in range(points):
                for column in range(width):
                    value = stored[point, column]
                    gradient[point, column] = upstream[point, column] * (one - value * value)
        else:
            for point in range(points):
                for column in range(width):
                    closed = stored[point, column] <= zero
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
def gradients(kind: int, weights: Arrays, passed: Pass, output_gradient: Array, found: Arrays) -> None:
    """Gradients of n networks' losses; those of empty slots are 0.

    Args:
        kind, weights, passed: see `forward`.
        output_gradient: (n, points, out).
        found: written. Norms have to be there for kinds that normalise.
    """
    rest = (found.slots.shape[0], *found.slots.shape[2:])
    slots, norms = (
        np.empty(rest, found.head.dtype),
        np.empty((found.norms.shape[0], *found.norms.shape[2:]), found.head.dtype),
    )
    room = _room(kind, output_gradient.shape[1], weights.head)
    for row in range(output_gradient.shape[0]):
        filled, one = passed.depth[row], Arrays(found.stem[row], slots, found.head[row], norms)
        backward(kind, row, weights, passed, output_gradient[row], one, room)
        slots[filled:] = 0.0
        found.slots[:, row] = slots
        norms[filled + 1 :] = 0.0
        found.norms[:, row] = norms


@_compiled
def _squares(values: Array) -> Any:
    """Sum of squares of a matrix."""
    # In one loop, which takes a sixth of the time of two.
    flat, total = values.reshape(-1), values.dtype.type(0.0)
    for place in range(flat.shape[0]):
        total += flat[place] * flat[place]
    return total


@_compiled
def _moved(new: Array, old: Array, factor: Any, gradient: Array) -> None:
    """new = old - factor * gradient, for matrices."""
    for row in range(old.shape[0]):
        for column in range(old.shape[1]):
            new[row, column] = old[row, column] - factor * gradient[row, column]


@_compiled
def _scaled(values: Array, factor: Any) -> None:
    """values *= factor, for matrices."""
    flat = values.reshape(-1)
    for place in range(len(flat)):
        flat[place] *= factor


@_compiled
def _largest(values: Array) -> Any:
    """Largest magnitude in a matrix, and NaN for NaN."""
    flat, largest = values.reshape(-1), values.dtype.type(0.0)
    for place in range(len(flat)):
        size = np.abs(flat[place])
        if not size <= largest:
            largest = size
            if np.isnan(size):
                break
    return largest


@_compiled
def _gradient(kind: int, weights: Arrays) -> Arrays:
    """Memory for the gradient of one network, as `backward` takes it."""
    (stem, slots, head, _), normalised = weights, kind in (LAYER_NORM, BATCH_NORM)
    return Arrays(
        np.empty(stem.shape[1:], head.dtype),
        np.empty((slots.shape[0], *slots.shape[2:]), head.dtype),
        np.empty(head.shape[1:], head.dtype),
        np.empty((slots.shape[0] + 1 if normalised else 0, 2, head.shape[1] - 1), head.dtype),
    )


@_compiled
def _lengths(row: int, filled: int, adapted: bool, gradient: Arrays, lengths: Array) -> Any:
    """Writes the norms of one network's gradient by position, and returns that of all; with norms if `adapted`."""
    stem, slots, head, norms = gradient
    zero, whole = head.dtype.type(0.0), head.dtype.type(0.0)
    for position in range(len(slots) + 2):
        if position == len(slots) + 1:
            square = _squares(head)
        elif position > filled:
            square = zero
        else:
            square = _squares(slots[position - 1]) if position > 0 else _squares(stem)
            if adapted:
                square += _squares(norms[position])
        whole += square
        lengths[position, row] = np.sqrt(square)
    return np.sqrt(whole)


@_compiled
def _shortened(filled: int, adapted: bool, gradient: Arrays) -> Any:
    """Scales one network's gradient to a length that does not overflow, which is returned; if it is finite."""
    stem, slots, head, norms = gradient
    largest = max(_largest(stem), _largest(head))
    for position in range(filled + 1):
        if position > 0:
            largest = max(largest, _largest(slots[position - 1]))
        if adapted:
            largest = max(largest, _largest(norms[position]))
    # As `weights.without_overflow`.
    factor = head.dtype.type(1e10) / largest
    _scaled(stem, factor)
    _scaled(head, factor)
    square = _squares(stem) + _squares(head)
    for position in range(filled + 1):
        if position > 0:
            _scaled(slots[position - 1], factor)
            square += _squares(slots[position - 1])
        if adapted:
            _scaled(norms[position], factor)
            square += _squares(norms[position])
    return np.sqrt(square)


@_compiled
def _descend(
    row: int,
    filled: int,
    weights: Arrays,
    gradient: Arrays,
    step_sizes: Array,
    clip: float,
    new: Arrays,
    lengths: Array,
) -> Any:
    """A step of one network with so many layers; see `descend`. Returns the norm of its whole gradient."""
    stem, slots, head, norms = weights
    stem_gradient, slot_gradients, head_gradient, norm_gradients = gradient
    one, limit = head.dtype.type(1.0), head.dtype.type(clip)
    several, adapted = step_sizes.shape[0] > 1, norms.shape[0] > 0
    length = _lengths(row, filled, adapted, gradient, lengths)
    if clip > 0.0 and not length < np.inf:
        length = _shortened(filled, adapted, gradient)
    # Written so that a length of NaN makes weights of NaN.
    factor = limit / length if length > limit else (one if length <= limit else length)
    if clip == 0.0:
        factor = one
    last = len(slots) + 1
    _moved(new.stem[row], stem[row], step_sizes[0, row] * factor, stem_gradient)
    _moved(new.head[row], head[row], step_sizes[last if several else 0, row] * factor, head_gradient)
    for position in range(last):
        size = step_sizes[position if several else 0, row] * factor
        if position > filled:
            _copied(new.slots[position - 1, row], slots[position - 1, row])
        elif position > 0:
            _moved(new.slots[position - 1, row], slots[position - 1, row], size, slot_gradients[position - 1])
        if adapted and position <= filled:
            _moved(new.norms[position, row], norms[position, row], size, norm_gradients[position])
        elif adapted:
            _copied(new.norms[position, row], norms[position, row])
    return length


@_compiled
def _put_back(row: int, weights: Arrays, new: Arrays) -> None:
    """Fills the new weights of one network with its old ones."""
    stem, slots, head, norms = weights
    _copied(new.stem[row], stem[row])
    _copied(new.head[row], head[row])
    for slot in range(len(slots)):
        _copied(new.slots[slot, row], slots[slot, row])
    for position in range(len(norms)):
        _copied(new.norms[position, row], norms[position, row])


@_compiled
def descend(
    kind: int,
    weights: Arrays,
    passed: Pass,
    output_gradient: Array,
    step_sizes: Array,
    clip: float,
    new: Arrays,
    lengths: Array,
) -> None:
    """One clipped gradient step of n networks; see `weights.descend`.

    Args:
        kind, passed: see `forward`.
        weights: of the networks, with norms if these take the step, too.
        output_gradient: (n, points, out).
        step_sizes: (1, n), or (slots + 2, n) for one at each position.
        clip: largest norm of a network's whole gradient; 0 for none.
        new: written, shaped as the weights.
        lengths: written, (slots + 2, n): norms of the gradients by position, before clipping.
    """
    gradient, room = _gradient(kind, weights), _room(kind, output_gradient.shape[1], weights.head)
    for row in range(len(output_gradient)):
        backward(kind, row, weights, passed, output_gradient[row], gradient, room)
        _descend(row, passed.depth[row], weights, gradient, step_sizes, clip, new, lengths)


@_compiled
def _squared_errors(outputs: Array, targets: Array, gradient: Array) -> Any:
    """Mean squared error of one network, (points, out); its gradient is written, if that has points."""
    points, out = outputs.shape
    total, share = outputs.dtype.type(0.0), outputs.dtype.type(1.0) / outputs.dtype.type(points * out)
    double = outputs.dtype.type(2.0) * share
    for point in range(points):
        for column in range(out):
            residual = outputs[point, column] - targets[point, column]
            total += residual * residual
            if point < len(gradient):
                gradient[point, column] = residual * double
    return total * share


@_compiled
def _measured(row: int, outputs: Array, query_outputs: Array, squares: tuple[Array, ...]) -> None:
    """`squared_errors` of one network."""
    targets, query_targets, gradient, losses = squares
    losses[0, row] = _squared_errors(outputs, targets[row], gradient[row])
    losses[1, row] = _squared_errors(query_outputs, query_targets[row], gradient[row, :0])


@_compiled
def squared_errors(outputs: Array, query_outputs: Array, squares: tuple[Array, ...]) -> None:
    """Mean squared errors of n networks, and the gradient of those of the support sets.

    Args:
        outputs, query_outputs: at the points of support and query sets, (n, points, out).
        squares: of these networks, see `Squares`; gradient and losses are written.
    """
    for row in range(len(outputs)):
        _measured(row, outputs[row], query_outputs[row], squares)


@_compiled
def _finite(row: int, filled: int, weights: Arrays) -> bool:
    """Whether all weights of one network are."""
    stem, slots, head, norms = weights
    finite = _largest(stem[row]) < np.inf and _largest(head[row]) < np.inf
    for position in range(filled + 1):
        if position > 0:
            finite &= _largest(slots[position - 1, row]) < np.inf
        if norms.shape[0] > 0:
            finite &= _largest(norms[position, row]) < np.inf
    return finite


@_compiled
def step(
    kind: int,
    layers: NDArray[np.int64],
    filled: NDArray[np.int64],
    pool_slots: Array,
    pool_norms: Array,
    weights: tuple[Array, ...],
    passed: tuple[Array, ...],
    outputs: Array,
    squares: tuple[Array, ...],
    step_sizes: Array,
    clip: float,
    large_step: float,
    limits: NDArray[np.float64],
    new: tuple[Array, ...],
    lengths: Array,
    refused: NDArray[np.bool_],
) -> None:
    """A step of n networks of regression, each as a whole: it grows, descends, and is evaluated.

    The loss is the mean squared error over the points that are kept. A step is refused (undone, the new layer included)
    if the loss after it is above the limit or NaN, or a weight is not finite.

    Args:
        kind, step_sizes, clip, lengths: see `descend`.
        layers: (n,), pool layers to append, from 1, or 0; those that are not are replaced by 0.
        filled: (slots, n), numbers of the pool layers in the slots, written.
        pool_slots, pool_norms: the pool's layers, (L, width + 1, width) and (L, 2, width).
        weights: before the step; appended layers are written.
        passed: of these weights; replaced by that of the new ones. Norms are those of the weights.
        outputs: replaced likewise, (n, points, out).
        squares: of these outputs, see `Squares`; the points that are not kept are those of the query sets. Gradient and
            losses are replaced likewise.
        large_step: longest step that keeps finite weights finite.
        limits: (n,).
        new: written, shaped as the weights.
        refused: written, (n,).

    Raises:
        IndexError: a layer that the pool does not have.
    """
    targets, _, output_gradient, losses = squares
    count, kept, out = targets.shape
    old, changed = Arrays(*weights), Arrays(*new)
    before, after = Pass(passed[0], old.norms, *passed[2:]), Pass(passed[0], changed.norms, *passed[2:])
    slots, norms, depth = old.slots, old.norms, before.depth
    few = _scratch(kind, kept, old.stem, old.head)
    many = _scratch(kind, outputs.shape[1], old.stem, old.head)
    grown = np.empty((kept, out), outputs.dtype)
    gradient, room = _gradient(kind, old), _room(kind, kept, old.head)
    for row in range(count):  # before anything is written
        if layers[row] > len(pool_slots):
            raise IndexError("layers: a number above that of the pool's layers")
    for row in range(count):
        if layers[row] > 0 and depth[row] < len(slots):
            filled[depth[row], row] = layers[row]
            _copied(slots[depth[row], row], pool_slots[layers[row] - 1])
            depth[row] += 1
            if len(norms) > 0:
                _copied(norms[depth[row], row], pool_norms[layers[row] - 1])
            _forward(kind, row, depth[row], old, before, grown, few)
            _squared_errors(grown, targets[row], output_gradient[row])
        else:
            layers[row] = 0
        backward(kind, row, old, before, output_gradient[row], gradient, room)
        length = _descend(row, depth[row], old, gradient, step_sizes, clip, changed, lengths)
        largest = step_sizes[0, row]
        for position in range(1, step_sizes.shape[0]):
            largest = max(largest, step_sizes[position, row])
        longest = largest * (length if clip == 0.0 or not length >= clip else clip)
        sound = longest <= large_step or _finite(row, depth[row], changed)
        _forward(kind, row, 0, changed, after, outputs[row], many)
        _measured(row, outputs[row, :kept], outputs[row, kept:], squares)
        refused[row] = not (sound and losses[0, row] <= limits[row])
        if refused[row]:
            if layers[row] > 0:
                depth[row] -= 1
                filled[depth[row], row], layers[row] = 0, 0
            _put_back(row, old, changed)
            _forward(kind, row, 0, changed, after, outputs[row], many)
            _measured(row, outputs[row, :kept], outputs[row, kept:], squares)


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
        depth, activations: see `Pass`; of the support sets.
        output_gradient: (n, points, out).
        point_weights: (n, points), or (n, 0) for equal ones.
        exchangeable: give the norm of the head's gradient over outputs.
        written: (n, size), or more columns, of which the first are written.
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

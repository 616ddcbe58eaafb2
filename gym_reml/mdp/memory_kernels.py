"""Compiled loops over the memory of the last steps in observations: needs `pip install gym-reml[fast]`.

With few networks, each of twenty calls of numpy takes longer than all of the arithmetic.
"""

from __future__ import annotations

import numba
import numpy as np

from gym_reml.networks.arrays import Array

_compiled = numba.njit(cache=True, error_model="numpy")


@_compiled
def remember(
    scores: Array,
    norms: Array,
    choices: Array,
    numbers: Array,
    options: Array,
    past_scores: Array,
    of_norms: int,
    of_action: int,
    flat: Array,
) -> None:
    """Stores a step of n networks.

    Args:
        scores: (n,), support scores after it.
        norms: (slots + 2, n), norms of the gradients by position.
        choices, numbers: what was decided, (n, C) and (n, M).
        options: (C,), number of options of each choice.
        past_scores: written, (n, 4): current, initial, before the last step, before the step before.
        of_norms, of_action: columns at which norms and decisions begin.
        flat: written, (n, size), observations: norms, and decisions as `Decision.flatten` writes them.
    """
    positions, count = norms.shape
    for row in range(count):
        past_scores[row, 3], past_scores[row, 2] = past_scores[row, 2], past_scores[row, 0]
        past_scores[row, 0] = scores[row]
        for position in range(positions):
            flat[row, of_norms + position] = np.log1p(norms[position, row])
        column = of_action
        for choice in range(len(options)):
            for option in range(options[choice]):
                flat[row, column + option] = option == choices[row, choice]
            column += options[choice]
        for number in range(numbers.shape[1]):
            flat[row, column + number] = numbers[row, number]


@_compiled
def complete(
    past_scores: Array,
    depth: Array,
    clock: Array,
    slots: int,
    horizon: int,
    limit: float,
    of_signal: int,
    of_losses: int,
    of_progress: int,
    signal: tuple[Array, Array, Array, Array],
    flat: Array,
    written: Array,
) -> None:
    """Completes observations, of which what is computed from the current networks is there.

    Args:
        past_scores, flat: see `remember`.
        depth, clock: (n,), layers of the networks, and steps taken.
        slots, horizon: largest depth, and number of steps of an episode.
        limit: largest magnitude of an element.
        of_signal, of_losses, of_progress: columns at which the family's signal, the losses and the progress begin; the
            memory begins with the losses.
        signal: what `TaskFamily.linear_signal` returns, targets and outputs; without rows if the signal is there.
        written: (n, size), finite and within the limit afterwards.
    """
    matrix, constants, targets, outputs = signal
    largest = written.dtype.type(limit)
    zero = written.dtype.type(0.0)
    for row in range(len(written)):
        for place in range(matrix.shape[1]):
            total = matrix.dtype.type(0.0)
            for point in range(matrix.shape[2]):
                total += matrix[row, place, point] * (targets[row, point, 0] - outputs[row, point, 0])
            written[row, of_signal + place] = total
        for place in range(constants.shape[1]):
            written[row, of_signal + matrix.shape[1] + place] = constants[row, place]
        score = past_scores[row, 0]
        for column in range(of_losses, written.shape[1]):
            written[row, column] = flat[row, column]
        # As `LOSS_PART` has it.
        written[row, of_losses] = score
        written[row, of_losses + 1] = past_scores[row, 1] - score
        written[row, of_losses + 2] = past_scores[row, 2] - score
        written[row, of_losses + 3] = past_scores[row, 3] - past_scores[row, 2]
        written[row, of_progress] = depth[row] / slots
        # Beyond the horizon the progress stays at the last step, so that policies keep acting as they did there.
        written[row, of_progress + 1] = min(clock[row], horizon - 1) / horizon
        for position in range(written.shape[1]):
            value = written[row, position]
            value = zero if np.isnan(value) else value
            value = -largest if value < -largest else value
            written[row, position] = largest if value > largest else value

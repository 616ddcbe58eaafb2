"""What an agent decides in one step of an environment: discrete choices and continuous numbers."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gym_reml.checks import check_integer

Masks = tuple[NDArray[np.bool_], ...]
"""The allowed options: for each choice (n, options) bool, with at least one True in every row."""


class Decided(NamedTuple):
    """The decisions of n rows.

    Attributes:
        choices: (n, C) int64, the index of the option taken in each choice.
        numbers: (n, M) float32, each in [-1, 1].
    """

    choices: NDArray[np.int64]
    numbers: NDArray[np.float32]


@dataclass(frozen=True)
class Decision:
    """The form of a decision: C choices among finitely many options, and M numbers in [-1, 1].

    As a flat vector, a decision is its choices, one-hot, followed by its numbers.

    Attributes:
        choices: number of options of each choice, C entries.
        numbers: M.
        names: of the choices, then of the numbers; by default "choice_0", ..., "number_0", ...
    """

    choices: tuple[int, ...] = ()
    numbers: int = 0
    _: KW_ONLY
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fills in the names.

        Raises:
            ValueError: neither choices nor numbers, a choice without options, or names that are not different
                identifiers, one for each.
        """
        for options in self.choices:
            check_integer("choices", options)
        check_integer("numbers", self.numbers, least=0)
        count = len(self.choices) + self.numbers
        if not count:
            raise ValueError("choices=(), numbers=0: there must be something to decide")
        defaults = [f"choice_{index}" for index in range(len(self.choices))]
        defaults += [f"number_{index}" for index in range(self.numbers)]
        names = tuple(self.names or defaults)
        fine = all(isinstance(name, str) and name.isidentifier() for name in names)
        if not fine or len(names) != count or len(set(names)) != count:
            raise ValueError(f"names={self.names!r}: must be {count} different identifiers, those of choices first")
        object.__setattr__(self, "choices", tuple(int(options) for options in self.choices))
        object.__setattr__(self, "numbers", int(self.numbers))
        object.__setattr__(self, "names", names)

    @property
    def choice_names(self) -> tuple[str, ...]:
        """The names of the choices."""
        return self.names[: len(self.choices)]

    @property
    def number_names(self) -> tuple[str, ...]:
        """The names of the numbers."""
        return self.names[len(self.choices) :]

    @cached_property
    def size(self) -> int:
        """Length of a flat decision."""
        return sum(self.choices) + self.numbers

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """The slice of each choice in a flat decision; the numbers come last."""
        return tuple(slice(*edges) for edges in pairwise(accumulate(self.choices, initial=0)))

    @cached_property
    def _one_hot(self) -> tuple[NDArray[np.float32], ...]:
        """For each choice, its options as rows."""
        return tuple(np.eye(options, dtype=np.float32) for options in self.choices)

    def decide(self, count: int, /, **values: Any) -> Decided:
        """Decisions of `count` rows from values by name, each (count,), or one for all rows.

        Names that are left out are 0: the first option of a choice, the middle of a number's range. What numbers have
        in common before their last "_" stands for all of them: "step_size" for "step_size_stem", "step_size_1" and so
        on.

        Raises:
            ValueError: an unknown name, or values of another length.
            TypeError: an option that is not an integer.
        """
        zeros = Decided(
            np.zeros((count, len(self.choices)), dtype=np.int64), np.zeros((count, self.numbers), dtype=np.float32)
        )
        return self._set(zeros, values)

    def changed(self, decided: Decided, **values: Any) -> Decided:
        """A copy in which these names have other values, each (n,) or one for all rows; raises what `decide` raises."""
        return self._set(Decided(decided.choices.copy(), decided.numbers.copy()), values)

    def _set(self, decided: Decided, values: dict[str, Any]) -> Decided:
        for name, value in values.items():
            of_several = [other for other in self.number_names if other.rpartition("_")[0] == name]
            for one in [name] if name in self.names else of_several or [name]:
                np.copyto(self.column(decided, one), value, casting="same_kind")
        return decided

    def column(self, decided: Decided, name: str) -> NDArray[Any]:
        """The values of that name, (n,), as a view.

        Raises:
            ValueError: an unknown name.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} is not decided here; choices: {', '.join(map(repr, self.names))}")
        index = self.names.index(name)
        if index < len(self.choices):
            return decided.choices[:, index]
        return decided.numbers[:, index - len(self.choices)]

    def columns(self, decided: Decided) -> dict[str, NDArray[Any]]:
        """The values by name, each (n,), as views."""
        return {name: self.column(decided, name) for name in self.names}

    def all_allowed(self, count: int) -> Masks:
        """The masks of `count` rows in which every option is allowed."""
        return tuple(np.ones((count, options), dtype=np.bool_) for options in self.choices)

    def flatten(self, decided: Decided, out: NDArray[np.float32]) -> None:
        """Writes flat decisions, choices one-hot and then numbers, into `out`, (n, size) float32."""
        for part, one_hot, taken in zip(self.parts, self._one_hot, decided.choices.T, strict=True):
            out[:, part] = one_hot.take(taken, axis=0)
        out[:, self.size - self.numbers :] = decided.numbers


def layer_and_step(layers: int, slots: int | None = None) -> Decision:
    """The decision of a step of `NetBuild`: which of the pool's L layers to append, and the size of a gradient step.

    "layer" is a pool number 1..L, or 0 for none. "step_size" is a place on the logarithmic range of step sizes, in
    [-1, 1].

    Args:
        layers: L.
        slots: None for one step size, or the number of slots for one at each position: "step_size_stem",
            "step_size_1" to "step_size_{slots}", "step_size_head".
    """
    if slots is None:
        return Decision((layers + 1,), 1, names=("layer", "step_size"))
    positions = ["stem", *range(1, slots + 1), "head"]
    return Decision((layers + 1,), slots + 2, names=("layer", *(f"step_size_{position}" for position in positions)))

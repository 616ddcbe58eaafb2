"""Mixtures of families: every task is drawn from one of the members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import check_places, is_integer
from gym_reml.streams import NumberedGenerator
from gym_reml.tasks.base import Batch, Forward, Generators, TaskFamily, Tasks


@dataclass(frozen=True)
class Mixture(TaskFamily):
    """A uniform mixture of families with the same inputs, outputs, loss and signal.

    Attributes:
        members: the families. Their shots, queries and split are set to those of the mixture.

    Raises:
        ValueError: no members, or members that differ in inputs, outputs, signal or loss.
    """

    name: ClassVar[str] = "mixture"
    varying_shots: ClassVar[bool] = True

    members: tuple[TaskFamily, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members:
            raise ValueError("members=(): a mixture needs at least one family")
        common = {"shots": self.shots, "queries": self.queries, "split": self.split}
        object.__setattr__(self, "members", tuple(member.replace(**common) for member in self.members))
        first = self.members[0]
        for member in self.members[1:]:
            for trait in ("input_shape", "out_features", "signal_size", "cap", "exchangeable_outputs", "fixed_data"):
                if getattr(member, trait) != getattr(first, trait):
                    raise ValueError(
                        f"members: {first.name!r} and {member.name!r} differ in {trait} "
                        f"({getattr(first, trait)!r} and {getattr(member, trait)!r})"
                    )
            if type(member).loss is not type(first).loss:
                raise ValueError(f"members: {first.name!r} and {member.name!r} have different losses")
        if not first.fixed_data:
            raise ValueError(f"members: {first.name!r} collects data at every step, which a mixture cannot")
        for trait in ("cap", "exchangeable_outputs"):
            object.__setattr__(self, trait, getattr(first, trait))

    @property
    def in_features(self) -> int:
        return self.members[0].in_features

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.members[0].input_shape

    @property
    def out_features(self) -> int:
        return self.members[0].out_features

    @property
    def task_count(self) -> int | None:
        """Total number of the members' tasks, None if infinite. Members are equally likely whatever their numbers."""
        counts = [member.task_count for member in self.members]
        return None if None in counts else sum(filter(None, counts))

    def draw(self, generators: Generators) -> Tasks:
        chosen = [generator.integers(len(self.members)) for generator in generators]
        places = self._places()
        if places is not None:
            generators = list(generators)
            for row, generator in enumerate(generators):
                if isinstance(generator, NumberedGenerator):
                    chosen[row], number = places[generator.number % len(places)]
                    generators[row] = NumberedGenerator(generator.bit_generator, number)
        return self._join(np.array(chosen), generators, lambda number, rows, chosen: self.members[number].draw(chosen))

    def draw_given(self, parameters: Tasks, generators: Generators) -> Tasks:
        def draw(number: int, rows: NDArray[np.int64], chosen: Generators) -> Tasks:
            return self.members[number].draw_given(self._own(parameters, number, rows), chosen)

        return self._join(parameters["member"], generators, draw)

    def _join(
        self,
        member: NDArray[np.int64],
        generators: Generators,
        draw: Callable[[int, NDArray[np.int64], Generators], Tasks],
    ) -> Tasks:
        """Tasks, each drawn by its member (n,), by calling `draw` with the member's number, rows and generators."""
        tasks: Tasks = {"member": member}
        for number, family in enumerate(self.members):
            rows = np.flatnonzero(member == number)
            # Columns of absent members must exist, so that any two batches of tasks can be joined; a separate
            # generator provides their shapes without drawing from the rows' streams.
            shapes = family.draw([np.random.default_rng(0)])
            drawn = draw(number, rows, [generators[int(row)] for row in rows]) if len(rows) else {}
            for name, values in shapes.items():
                column = np.zeros((len(generators), *values.shape[1:]), dtype=values.dtype)
                if len(rows):
                    column[rows] = drawn[name]
                tasks[f"{number}.{name}"] = column
        return tasks

    def _places(self) -> NDArray[np.int64] | None:
        """All tasks of finite members as (member, number), (tasks, 2), in a fixed random order; None if infinite."""
        counts = [member.task_count for member in self.members]
        if None in counts:
            return None
        pairs = np.array([(number, task) for number, count in enumerate(counts) for task in range(count or 0)])
        return np.random.default_rng(0).permutation(pairs)

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._gather(tasks, generators, lambda family, *data: family.support(data[0], forward, data[1]))

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._gather(tasks, generators, lambda family, *data: family.query(data[0], forward, data[1]))

    def _gather(
        self, tasks: Tasks, generators: Generators, collect: Callable[[TaskFamily, Tasks, Generators], Batch]
    ) -> Batch:
        parts, order = [], []
        for number, family in enumerate(self.members):
            rows = np.flatnonzero(tasks["member"] == number)
            if len(rows):
                parts.append(collect(family, self._own(tasks, number, rows), [generators[int(row)] for row in rows]))
                order.append(rows)
        return Batch.concatenate(parts).rows(torch.from_numpy(np.argsort(np.concatenate(order))))

    @staticmethod
    def _own(tasks: Tasks, number: int, rows: Any) -> Tasks:
        prefix = f"{number}."
        return {key.removeprefix(prefix): values[rows] for key, values in tasks.items() if key.startswith(prefix)}

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.members[0].loss(outputs, batch)

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.members[0].output_gradient(outputs, batch)

    @property
    def _own_loss(self) -> bool:
        """Whether the loss is that of the members, not one of a subclass."""
        return type(self).loss is Mixture.loss and type(self).output_gradient is Mixture.output_gradient

    def squared_targets(self, batch: Batch) -> Tensor | None:
        return self.members[0].squared_targets(batch) if self._own_loss else None

    def score(self, loss: Tensor) -> Tensor:
        return self.members[0].score(loss)

    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        return self.members[0].metrics(outputs, batch, loss)

    @property
    def signal_size(self) -> int:
        return self.members[0].signal_size

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.members[0].support_signal(outputs, batch)

    def curve(self, tasks: Tasks, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        number = int(tasks["member"][row])
        return self.members[number].curve(self._own(tasks, number, [row]), 0)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        return self.members[0].image_shape

    def describe(self, tasks: Tasks, row: int) -> dict[str, Any]:
        number = int(tasks["member"][row])
        return self.members[number].describe(self._own(tasks, number, [row]), 0)

    def task_parameters(self, tasks: Tasks) -> Tasks:
        """The member's number and all members' parameters, such as "0.amplitude", 0 for tasks of other members."""
        chosen = {"member": tasks["member"]}
        for number, family in enumerate(self.members):
            own = family.task_parameters(self._own(tasks, number, slice(None)))
            chosen |= {f"{number}.{name}": values for name, values in own.items()}
        return chosen

    def read_task(self, given: Any, rows: NDArray[np.int64], count: int) -> Tasks:
        """See `TaskFamily.read_task`; one `member` for all rows may be given with its own parameter names."""
        own = dict(given) if isinstance(given, Mapping) else {}
        member = own.pop("member", None)
        if not is_integer(member) or any("." in str(name) for name in own):
            return super().read_task(given, rows, count)
        check_places("member", np.array([member]), len(self.members))
        read = self.members[member].read_task(own, rows, count)
        like = self.task_parameters(self.draw([np.random.default_rng(0)]))
        zeros = {name: np.zeros((len(rows), *blank.shape[1:]), blank.dtype) for name, blank in like.items()}
        return zeros | {"member": np.full(len(rows), member)} | {f"{member}.{name}": read[name] for name in read}

    def check_parameters(self, parameters: Tasks) -> None:
        member = parameters["member"]
        check_places("member", member, len(self.members))
        for number, family in enumerate(self.members):
            family.check_parameters(self._own(parameters, number, member == number))

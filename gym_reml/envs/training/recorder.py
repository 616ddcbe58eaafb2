"""The history of an episode of building and training a network, for rendering."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.mdp.training import TrainingMDP
from gym_reml.rendering.frames import Curve, Frame, Paths
from gym_reml.spaces import Decided


@dataclass
class TrainingRecorder:
    """Records one row's episode."""

    row: int
    decided: dict[str, list[float]] = field(default_factory=dict)
    appended: list[bool] = field(default_factory=list)
    diverged: list[bool] = field(default_factory=list)
    support_loss: list[float] = field(default_factory=list)
    query_loss: list[float] = field(default_factory=list)
    first_paths: NDArray[Any] | None = None

    def restart(self, mdp: TrainingMDP) -> None:
        """Clears the history when an episode begins."""
        self.decided = {name: [] for name in mdp.decision.names}
        for history in (self.appended, self.diverged, self.support_loss, self.query_loss):
            history.clear()
        self._record_loss(mdp)
        paths = self._current_paths(mdp)
        self.first_paths = None if paths is None else paths[0]

    def record(self, mdp: TrainingMDP, decided: Decided, *, info: dict[str, Any]) -> None:
        """Records a step: the decision, also where it had no effect, and the outcome."""
        decision, sizes = mdp.decision, info["step_size"]
        # Infos hold numbers in their own unit, such as step sizes, those of several positions together.
        names = [name for name in decision.number_names if name.startswith("step_size_")]
        in_units = info | (dict(zip(names, sizes.T, strict=True)) if sizes.ndim > 1 else {})
        for name in decision.choice_names:
            self.decided[name].append(int(decision.column(decided, name)[self.row]))
        for name in decision.number_names:
            values = in_units[name] if name in in_units else decision.column(decided, name)
            self.decided[name].append(float(values[self.row]))
        self.appended.append(bool(info["layer"][self.row]))
        self.diverged.append(bool(info["diverged"][self.row]))
        self._record_loss(mdp)

    def _record_loss(self, mdp: TrainingMDP) -> None:
        self.support_loss.append(float(mdp.support_loss[self.row]))
        self.query_loss.append(float(mdp.query_loss[self.row]))

    def frame(self, mdp: TrainingMDP) -> Frame:
        """The episode so far, as arrays."""
        row, family, pool = self.row, mdp.family, mdp.pool
        layers = mdp.networks.layers[: mdp.networks.depth[row], row]
        metrics = mdp.row_metrics(row)
        return Frame(
            family=f"{family.name}, {family.shots_in_words}",
            kind=pool.kind,
            width=pool.width,
            slots=mdp.slots,
            pool_size=pool.layers,
            layers=tuple(int(layer) for layer in layers),
            horizon=mdp.objective.horizon,
            decided={name: tuple(values) for name, values in self.decided.items()},
            appended=tuple(self.appended),
            step_range=mdp.step_range,
            diverged=tuple(self.diverged),
            support_loss=tuple(self.support_loss),
            query_loss=tuple(self.query_loss),
            measure="return" if "return" in metrics else "loss",
            curve=self._curve(mdp),
            paths=self._paths(mdp),
            images=self._images(mdp),
            query_accuracy=metrics.get("accuracy"),
        )

    def _curve(self, mdp: TrainingMDP) -> Curve | None:
        curve = mdp.family.curve(mdp.tasks, self.row)
        if curve is None:
            return None
        x, target = curve
        inputs = torch.from_numpy(x.astype(np.float32)).reshape(1, -1, 1).expand(mdp.count, -1, -1)
        prediction = mdp.outputs(inputs)[self.row, :, 0].cpu().numpy()
        support_x, support_y = (
            tensor[self.row, :, 0].cpu().numpy() for tensor in (mdp.support.inputs, mdp.support.targets)
        )
        return Curve(x, target, prediction, support_x, support_y)

    def _current_paths(self, mdp: TrainingMDP) -> tuple[NDArray[Any], NDArray[Any]] | None:
        return mdp.family.paths(mdp.tasks, mdp.support, self.row)

    def _paths(self, mdp: TrainingMDP) -> Paths | None:
        paths = self._current_paths(mdp)
        if paths is None or self.first_paths is None:
            return None
        return Paths(self.first_paths, *paths)

    def _images(self, mdp: TrainingMDP) -> NDArray[np.float32] | None:
        shape = mdp.family.image_shape
        if shape is None:
            return None
        targets = mdp.support.targets[self.row].cpu().numpy()
        _, first_of_class = np.unique(targets, return_index=True)
        return mdp.support.inputs[self.row].cpu().numpy()[first_of_class].reshape(-1, *shape)

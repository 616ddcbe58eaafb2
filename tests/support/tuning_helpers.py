"""Small environments with an agent at the dials, of every kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gym_reml.tasks.data_sets.base import DataSet, DataSets, Examples, Task

QUICK: dict[str, Any] = {"horizon": 3, "updates": 2}
SIZES: dict[str, Any] = {"examples": [12, 20], "widths": [3, 5], "batch_sizes": [2, 4], "held_out": 10, "features": 4}
GLYPHS: dict[str, Any] = {"classes": 3, "shots": 3, "held_out": 7, "side": 8, "batch_size": 4}


def small_data(env_id: str) -> dict[str, Any]:
    """Fields that make the default data of a tuning environment small."""
    return GLYPHS if env_id.startswith("NetAugment") else SIZES


def points(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    inputs = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    return inputs, (inputs.sum(axis=1) > 0).astype(np.int64)


def images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """In colour, with the brighter ones as a class of their own."""
    inputs = np.random.default_rng(seed).random((count, 3, 6, 5)).astype(np.float32)
    return inputs, (inputs.mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)


def curve(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    inputs, _ = points(count, seed)
    return inputs, np.sin(inputs[:, 0])


def make_normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))


class Reader(nn.Module):
    """Reads the inputs one after the other, by a module for which `torch.vmap` has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.memory(x[..., None])[0][:, -1])
        return output


def make_line() -> nn.Module:
    return nn.Linear(4, 1)


@dataclass(frozen=True)
class Slopes(DataSets):
    """Regression onto a random direction."""

    split: str = "train"
    name = "slopes"

    def draw(self, generator: np.random.Generator) -> Task:
        return {"slope": generator.standard_normal(4), "noise": float(generator.random())}

    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        inputs = generator.standard_normal((30, 4)).astype(np.float32)
        targets = inputs @ task["slope"] + task["noise"] * generator.standard_normal(30)
        every = Examples(torch.from_numpy(inputs), torch.from_numpy(targets[:, None].astype(np.float32)))
        return DataSet(every.at(slice(10)), every.at(slice(10, 20)), None, 3, 1)


TUNING_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "clusters": ("NetTune-v0", {"family_kwargs": SIZES}),
    "adam, every dial, test split": (
        "NetTuneMultiDiscrete-v0",
        {
            "family_kwargs": SIZES | {"split": "test"},
            "optimizer": "adam",
            "dials": ["step_size", "momentum", "weight_decay"],
            "step_bins": 5,
        },
    ),
    "rmsprop, wide range": (
        "NetTuneDiscrete-v0",
        {"family_kwargs": SIZES, "optimizer": "rmsprop", "min_step": 1e-3, "max_step": 1e20},
    ),
    "sgd, decay, a step size for each group": (
        "NetTuneHybrid-v0",
        {"family_kwargs": SIZES, "optimizer": "sgd", "dials": ["step_size", "weight_decay"], "step_sizes": "group"},
    ),
    "losses": ("NetLoss-v0", {"family_kwargs": SIZES, "step_size": 0.3}),
    "class correlation, macro F1": (
        "NetLossMultiDiscrete-v0",
        {
            "family_kwargs": SIZES | {"classes": 3},
            "losses": ["class_correlation", "class_weights"],
            "metric": "macro_f1",
        },
    ),
    "triplets, recall at 1": (
        "NetLoss-v0",
        {
            "family_kwargs": SIZES | {"classes": 3, "batch_sizes": [4, 8]},
            "losses": ["classification", "triplet", "cosine_triplet"],
            "metric": "recall_at_1",
        },
    ),
    "losses diverge": (
        "NetLossDiscrete-v0",
        {"family_kwargs": SIZES | {"split": "test"}, "step_size": 1e20, "optimizer": "sgd", "metric": "accuracy"},
    ),
    "one loss, in bins": (
        "NetLossHybrid-v0",
        {"family_kwargs": SIZES, "losses": ["trust"], "optimizer": "adam", "step_bins": 5, "observation": "dict"},
    ),
    "rules": ("NetRule-v0", {"family_kwargs": SIZES}),
    "rules on several data sets": (
        "NetRuleBox-v0",
        {"family_kwargs": SIZES | {"split": "test"}, "tasks": 2, "rates": [0.1]},
    ),
    "rules that diverge": ("NetRuleHybrid-v0", {"family_kwargs": SIZES, "rates": [1e20, 1e30]}),
    "augmentation": ("NetAugment-v0", {"family_kwargs": GLYPHS}),
    "augmentation, area": (
        "NetAugmentMultiDiscrete-v0",
        {"family_kwargs": GLYPHS | {"shifts": [0.0, 0.3]}, "reward": "area", "updates": 4, "optimizer": "adam"},
    ),
    "augmentations diverge": (
        "NetAugmentDiscrete-v0",
        {"family_kwargs": GLYPHS | {"split": "test"}, "step_size": 1e20, "optimizer": "sgd", "step_bins": 3},
    ),
    "two operations": ("NetAugmentHybrid-v0", {"family_kwargs": GLYPHS, "horizon": 2}),
}
"""An id and arguments that JSON can hold, for every encoding."""

OWN_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "own arrays and module": (
        "NetTune-v0",
        {"module": make_normed, "train": points(20), "validation": points(10, 1), "test": points(10, 2)},
    ),
    "own numbers": ("NetTune-v0", {"module": make_line, "train": curve(20), "validation": curve(10, 1)}),
    "own recurrent module, losses": (
        "NetLoss-v0",
        {"module": Reader, "train": points(20), "validation": points(10, 1)},
    ),
    "own distribution": ("NetTuneHybrid-v0", {"family": Slopes(), "module": make_line, "observation": "dict"}),
    "own numbers, rules": ("NetRule-v0", {"module": make_line, "train": curve(20), "validation": curve(10, 1)}),
    "own distribution, rules": ("NetRuleBox-v0", {"family": Slopes(), "module": make_line, "tasks": 2}),
    "own images": ("NetAugment-v0", {"train": images(9), "validation": images(5, 1), "test": images(5, 2)}),
}
"""The same for what a user provides."""

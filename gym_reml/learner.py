"""A meta-learner as one thing: a policy, its pool, its environment's arguments and its observation normaliser."""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gym_reml.pool import LayerPool
from gym_reml.pool_files import load_safely, save_atomically

FORMAT = "gym_reml.Learner/1"


class Policy(Protocol):
    """Anything with Stable-Baselines3's `predict`."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Actions for n observations, and the state to hand in next time."""
        ...


@dataclass(frozen=True)
class Normaliser:
    """What VecNormalize does to observations: (x - mean) / sqrt(variance + epsilon), clipped.

    Attributes:
        mean, variance: (size,) float64.
        clip: largest magnitude.
        epsilon: keeps constant features finite.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    clip: float = 10.0
    epsilon: float = 1e-8

    def __call__(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The observation (n, size), normalised."""
        scaled = (observation - self.mean) / np.sqrt(self.variance + self.epsilon)
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)


@dataclass(frozen=True)
class Learner:
    """A meta-learner.

    Attributes:
        name: what tables call it.
        policy: picks actions.
        pool: what networks are built from.
        arguments: of the environment, without family, shots, queries, pool and learn; JSON-able.
        normaliser: applied to observations before the policy sees them, or None.
        algorithm: name of the policy's SB3 class if it is one, which is what can be saved.
    """

    name: str
    policy: Policy
    pool: LayerPool
    arguments: dict[str, Any] = field(default_factory=dict)
    normaliser: Normaliser | None = None
    algorithm: str | None = None

    def act(self, observation: Any, state: Any, start: NDArray[np.bool_], masks: Any) -> tuple[Any, Any]:
        """Deterministic actions; `masks` is a function that gives them to policies that take any."""
        if self.normaliser is not None:
            observation = self.normaliser(observation)
        extra = {"action_masks": masks()} if "action_masks" in inspect.signature(self.policy.predict).parameters else {}
        return self.policy.predict(observation, state, start, deterministic=True, **extra)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the learner to a folder: learner.pt and policy.zip.

        Raises:
            ValueError: a policy that is no SB3 algorithm.
        """
        if self.algorithm is None:
            raise ValueError(f"policy={self.policy!r}: only SB3 algorithms can be saved")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".policy.zip"
        self.policy.save(temporary)  # type: ignore[attr-defined]
        os.replace(temporary, folder / "policy.zip")
        normaliser = None
        if self.normaliser is not None:
            normaliser = {
                "mean": self.normaliser.mean.tolist(),
                "variance": self.normaliser.variance.tolist(),
                "clip": self.normaliser.clip,
                "epsilon": self.normaliser.epsilon,
            }
        state = {
            "format": FORMAT,
            "name": self.name,
            "algorithm": self.algorithm,
            "arguments": json.dumps(self.arguments),
            "pool": self.pool.state(),
            "normaliser": normaliser,
        }
        save_atomically(state, folder / "learner.pt")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Learner:
        """Reads what `save` wrote. The policy needs stable-baselines3, and sb3-contrib if it is one of theirs.

        Raises:
            FileNotFoundError: no learner there.
            ValueError: another version, or damaged.
        """
        path = Path(folder) / "learner.pt"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; a training keeps its learner in RUN/learner")
        state = load_safely(path)
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        if found != FORMAT:
            raise ValueError(f"{path}: not a learner this version reads (found {found!r}, expected {FORMAT!r})")
        policy = find_algorithm(state["algorithm"]).load(Path(folder) / "policy.zip", device="cpu")
        normaliser = state["normaliser"]
        if normaliser is not None:
            mean, variance = np.array(normaliser["mean"]), np.array(normaliser["variance"])
            normaliser = Normaliser(mean, variance, normaliser["clip"], normaliser["epsilon"])
        pool = LayerPool.from_state(state["pool"], str(path))
        return cls(state["name"], policy, pool, json.loads(state["arguments"]), normaliser, state["algorithm"])


@dataclass(frozen=True)
class Ensemble:
    """Several learners as one, whose networks' mean output counts (MAML++'s ensemble; Antoniou et al. 2019).

    Attributes:
        name: what tables call it.
        members: the learners, one or more.
    """

    name: str
    members: tuple[Learner, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members=(): an ensemble needs at least one learner")


ALGORITHMS = {
    "stable_baselines3": ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3"),
    "sb3_contrib": ("ARS", "CrossQ", "MaskablePPO", "QRDQN", "RecurrentPPO", "TQC", "TRPO"),
}
"""The thirteen algorithms of Stable-Baselines3 and sb3-contrib."""


def find_algorithm(name: str) -> Any:
    """The algorithm's class, or a ValueError that lists the choices."""
    import importlib

    for module, names in ALGORITHMS.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    choices = ", ".join(repr(choice) for names in ALGORITHMS.values() for choice in names)
    raise ValueError(f"algorithm={name!r}: must be one of {choices}")

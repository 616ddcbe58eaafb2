"""A meta-learner as one thing: a policy, its pool, its environment's arguments and its observation normaliser."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import gym_reml
from gym_reml.checks import is_number
from gym_reml.envs.training.setup import known_arguments
from gym_reml.evaluation.saved_policy import ALGORITHMS as ALGORITHMS
from gym_reml.evaluation.saved_policy import algorithm_of, copy_policy, policy_from_state, policy_state, to_plain
from gym_reml.evaluation.saved_policy import find_algorithm as find_algorithm
from gym_reml.files import as_path, load_safely, save_atomically
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import layer_and_step, make_encoding

FORMAT, OLD_FORMAT = "gym_reml.Learner/2", "gym_reml.Learner/1"

OF_OTHERS = ("family", "family_kwargs", "shots", "queries", "pool", "learn", "learn_kwargs")
"""Arguments of the environment that are not a learner's: they say on which tasks, and from which pool."""

HARMLESS_WRAPPERS = {
    *("Monitor", "OrderEnforcing", "PassiveEnvChecker", "TimeLimit", "Autoreset", "RecordEpisodeStatistics"),
    *("RecordVideo", "HumanRendering", "RenderCollection"),
    *("TransformReward", "NormalizeReward", "ClipReward"),
    *("VecMonitor", "VecCheckNan", "VecVideoRecorder", "VecNormalize"),
}
"""Wrappers of Gymnasium and Stable-Baselines3 under which a policy sees what the environment shows (`VecNormalize` is
looked into)."""


class Policy(Protocol):
    """Anything with Stable-Baselines3's `predict`."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Actions for n observations, and the state to hand in next time."""
        ...


@dataclass(frozen=True, repr=False)
class Normaliser:
    """What VecNormalize does to observations: (x - mean) / sqrt(variance + epsilon), clipped.

    Attributes:
        mean, variance: (size,) float64; of dict observations by part, and parts that are not named stay as they are.
        clip: largest magnitude.
        epsilon: keeps constant features finite.
    """

    mean: Any
    variance: Any
    clip: float = 10.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Checks.

        Raises:
            ValueError: means and variances that do not fit together or are no finite numbers, variances below 0, a clip
                that is not positive or an epsilon below 0.
        """
        for name, lowest in (("mean", -math.inf), ("variance", 0.0)):
            given = getattr(self, name)
            parts = given if isinstance(given, Mapping) else {"": given}
            try:
                arrays = {part: np.array(values, dtype=np.float64) for part, values in parts.items()}
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}={given!r}: must be numbers, or a dict of numbers by part") from error
            for part, values in arrays.items():
                if not np.isfinite(values).all() or (values < lowest).any():
                    of_part = f" of part {part!r}" if part else ""
                    raise ValueError(f"{name}{of_part}: must be finite{', and not negative' * (lowest == 0.0)}")
            object.__setattr__(self, name, arrays if isinstance(given, Mapping) else arrays[""])
        if _shapes(self.mean) != _shapes(self.variance):
            raise ValueError(f"variance: has shape {_shapes(self.variance)}, but mean has {_shapes(self.mean)}")
        if not is_number(self.clip) or not self.clip > 0:
            raise ValueError(f"clip={self.clip!r}: must be a positive number")
        if not is_number(self.epsilon) or not self.epsilon >= 0:
            raise ValueError(f"epsilon={self.epsilon!r}: must be a number that is not negative")

    @property
    def shapes(self) -> Any:
        """The shape of an observation, or of each part."""
        return _shapes(self.mean)

    def __call__(self, observation: Any) -> Any:
        """The observation, (n, size) or a dict of such parts, normalised, float32."""
        if not isinstance(self.mean, dict):
            return self._scaled(observation, self.mean, self.variance)
        named = {part: self._scaled(observation[part], mean, self.variance[part]) for part, mean in self.mean.items()}
        return {**observation, **named}

    def _scaled(self, values: Any, mean: Any, variance: Any) -> NDArray[np.float32]:
        scaled = (values - mean) / np.sqrt(variance + self.epsilon)
        clipped: NDArray[np.float32] = np.clip(scaled, -self.clip, self.clip).astype(np.float32)
        return clipped

    def __repr__(self) -> str:
        """One line."""
        return f"Normaliser(of {self.shapes}, clip={self.clip:g}, epsilon={self.epsilon:g})"


@dataclass(frozen=True, repr=False)
class MetaLearner:
    """A meta-learner.

    `MetaLearner.from_sb3` makes one of an agent that Stable-Baselines3 trained.

    Attributes:
        name: what tables call it.
        policy: picks actions.
        pool: what networks are built from.
        arguments: of the environment, without family, shots, queries, pool, learn and device; plain data.
        normaliser: applied to observations before the policy sees them, or None.
        algorithm: name of the policy's SB3 class if it is one, which is what can be saved; follows from the policy.
    """

    name: str
    policy: Policy
    pool: LayerPool
    arguments: dict[str, Any] = field(default_factory=dict)
    normaliser: Normaliser | None = None
    algorithm: str | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be right.

        Raises:
            ValueError: something that is no name, policy, pool or normaliser; an argument that is not a learner's;
                another algorithm than the policy's; or an SB3 policy that was made for other observations or actions,
                or trained with other arguments or with a normaliser that is missing.
        """
        if not isinstance(self.name, str):
            raise ValueError(f"name={self.name!r}: must be a text")
        if not callable(getattr(self.policy, "predict", None)):
            raise ValueError(f"policy={self.policy!r}: must have Stable-Baselines3's predict")
        if not isinstance(self.pool, LayerPool):
            raise ValueError(f"pool={self.pool!r}: must be a LayerPool")
        if not isinstance(self.normaliser, Normaliser | None):
            raise ValueError(f"normaliser={self.normaliser!r}: must be a Normaliser or None")
        if not isinstance(self.arguments, Mapping):
            raise ValueError(f"arguments={self.arguments!r}: must be a dict")
        own = [name for name in known_arguments() if name not in OF_OTHERS]
        for name in self.arguments:
            if name not in own:
                why = "not a learner's" if name in OF_OTHERS else "no such argument"
                raise ValueError(f"arguments: {name!r} is {why}; choices: {', '.join(own)}")
        object.__setattr__(self, "arguments", deepcopy(dict(self.arguments)))
        if self.algorithm is not None:
            names = [name for group in ALGORITHMS.values() for name in group]
            if self.algorithm not in names:
                raise ValueError(f"algorithm={self.algorithm!r}: must be one of {', '.join(map(repr, names))}")
        found = algorithm_of(self.policy)
        if self.algorithm is not None and self.algorithm != found:
            raise ValueError(f"algorithm={self.algorithm!r}: the policy is {found or type(self.policy).__name__!r}")
        object.__setattr__(self, "algorithm", found)
        if isinstance(getattr(self.policy, "action_space", None), gym.Space):
            _check_spaces(self)
        if found is not None:
            _check_training(self)

    @classmethod
    def from_sb3(cls, model: Any, env: Any = None, name: str | None = None) -> MetaLearner:
        """What Stable-Baselines3 trained: all that belongs to it is read from the agent and its environment.

        It is a copy: what the agent and the pool learn from here on does not reach it.

        Args:
            model: an algorithm of Stable-Baselines3 or sb3-contrib.
            env: where it was trained, with its wrappers; None for the environment that the model has.
            name: what tables call it; None for the algorithm's name.

        Raises:
            ValueError: no such algorithm; no environment, one that is none of `NetBuild-v0`'s kind, or not like the
                model's own; wrappers that change what the policy sees or does; a trained model in a VecNormalize that
                has seen nothing; or environments that differ from each other, such as by pools that have learned one by
                one.
        """
        algorithm = algorithm_of(model)
        if algorithm is None:
            raise ValueError(f"model={model!r}: must be an algorithm of stable_baselines3 or sb3_contrib")
        own = model.get_env()
        env = own if env is None else env
        if env is None:
            raise ValueError("env=None: the model has no environment; give the one that it was trained in")
        found, pools = _look(env, "arguments"), _look(env, "pool")
        if not found or not pools:
            raise ValueError(f"env={env!r}: must be one of {', '.join(gym_reml.ENVIRONMENTS)}")
        normaliser, seen = None, True
        for kind, wrapper in _wrappers(env):
            if kind not in HARMLESS_WRAPPERS:
                raise ValueError(
                    f"env: under {kind} a policy may see or do something else than the environment shows, which a "
                    "MetaLearner cannot hold. If it leaves observations and actions alone, hand in the environment "
                    "inside"
                )
            if kind == "VecNormalize" and wrapper.norm_obs:
                if normaliser is not None:
                    raise ValueError("env: two VecNormalize normalise observations; a MetaLearner has one normaliser")
                normaliser, seen = _normaliser_of(wrapper), _has_seen(wrapper)
        trained_with = _normaliser_of(model.get_vec_normalize_env())
        if trained_with is not None and normaliser is not None and not _alike(vars(trained_with), vars(normaliser)):
            raise ValueError("env: normalises by other statistics than the model's own environment; leave env out")
        if model.num_timesteps and not seen:
            raise ValueError(
                f"env: its VecNormalize has seen nothing, but the model was trained for {model.num_timesteps} steps; "
                "VecNormalize.load(path, env) brings back what was saved beside the model"
            )
        if any(not _alike(arguments, found[0]) for arguments in found):
            raise ValueError("env: its environments were made with different arguments")
        if any(not _alike(pool.state(), pools[0].state()) for pool in pools[1:] if pool is not pools[0]):
            raise ValueError(
                f"env: its {len(pools)} environments have learned a pool each, and they differ; "
                "gym_reml.sb3.make_vec_env lets them share one"
            )
        own_pools = _look(own, "pool")
        if own_pools and own is not env and not _alike(own_pools[0].state(), pools[0].state()):
            raise ValueError("env: has another pool than the model's own environment; leave env out")
        plain = to_plain("arguments", found[0])
        learner = cls(name or algorithm, model, pools[0].to("cpu").clone(), plain, normaliser, algorithm)
        return replace(learner, policy=copy_policy(model))

    def act(self, observation: Any, state: Any, start: NDArray[np.bool_], masks: Any) -> tuple[Any, Any]:
        """Deterministic actions; `masks` is a function that gives them to policies that take any."""
        if self.normaliser is not None:
            observation = self.normaliser(observation)
        extra = {"action_masks": masks()} if "action_masks" in inspect.signature(self.policy.predict).parameters else {}
        return self.policy.predict(observation, state, start, deterministic=True, **extra)

    def save(self, folder: str | os.PathLike[str], classes: Mapping[str, type] | None = None) -> None:
        """Writes the learner to a folder, in one file, `learner.pt`, whole or not at all: tensors and JSON, no pickle.

        Args:
            folder: made if it is not there.
            classes: of your own that the policy is made of, by name; loading takes the same.

        Raises:
            ValueError: a policy that is no SB3 algorithm, or made of classes that nobody else knows.
            TypeError: an argument that is no plain data. In both cases nothing was written.
        """
        if self.algorithm is None:
            raise ValueError(f"policy={self.policy!r}: only SB3 algorithms can be saved")
        policy, weights = policy_state(self.policy, classes)
        about: dict[str, Any] = {
            "name": self.name,
            "policy": policy,
            "arguments": {name: to_plain(name, value) for name, value in self.arguments.items()},
            "normaliser": None,
            "version": gym_reml.__version__,
        }
        if self.normaliser is not None:
            # JSON has no infinity, and no number lies between it and the largest one.
            finite = replace(self.normaliser, clip=min(self.normaliser.clip, sys.float_info.max))
            about["normaliser"] = {
                name: to_plain(name, getattr(finite, name)) for name in ("mean", "variance", "clip", "epsilon")
            }
        text = json.dumps(about, allow_nan=False)
        state = {"format": FORMAT, "about": text, "policy": weights, "pool": self.pool.state()}
        save_atomically(state, as_path(folder) / "learner.pt")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], classes: Mapping[str, type] | None = None) -> MetaLearner:
        """Reads what `save` wrote, executing nothing that the file holds.

        The policy needs stable-baselines3, and sb3-contrib if it is one of theirs. It predicts; it has no environment.

        Args:
            folder: of the learner.
            classes: of your own, as they were named when it was saved.

        Raises:
            FileNotFoundError: no learner there.
            ValueError: another version, or damaged.
        """
        path = as_path(folder) / "learner.pt"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; a training keeps its learner in RUN/learner")
        state = load_safely(path)
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        if found == OLD_FORMAT:
            raise ValueError(
                f"{path}: of an earlier version, whose policy.zip is a pickle, which runs whatever somebody put there. "
                "If you trust it, rewrite it by MetaLearner.convert(folder)"
            )
        if found != FORMAT:
            raise ValueError(f"{path}: not a learner this version reads (found {found!r}, expected {FORMAT!r})")
        pool = LayerPool.from_state(state.get("pool"), str(path))
        try:
            about = json.loads(state["about"])
            normaliser = None if about["normaliser"] is None else Normaliser(**about["normaliser"])
            policy = policy_from_state(about["policy"], state["policy"], classes)
            return cls(about["name"], policy, pool, about["arguments"], normaliser, about["policy"]["algorithm"])
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: damaged learner, {type(error).__name__}: {error}") from error

    @classmethod
    def convert(cls, folder: str | os.PathLike[str]) -> MetaLearner:
        """Rewrites a folder of an earlier version in place, and returns the learner.

        Its policy.zip is a pickle: reading it runs whatever its sender put there. Convert only what you trust.

        Raises:
            ValueError: no learner of that version.
        """
        folder = as_path(folder)
        state = load_safely(folder / "learner.pt")
        if not isinstance(state, dict) or state.get("format") != OLD_FORMAT:
            raise ValueError(f"{folder / 'learner.pt'}: not a learner of an earlier version")
        # Schedules belong to training, and may be classes that are not here.
        left_out = dict.fromkeys(("learning_rate", "lr_schedule", "clip_range", "exploration_schedule"), 0.0)
        model = find_algorithm(state["algorithm"]).load(folder / "policy.zip", device="cpu", custom_objects=left_out)
        normaliser = None if state["normaliser"] is None else Normaliser(**state["normaliser"])
        pool = LayerPool.from_state(state["pool"], str(folder))
        learner = cls(state["name"], model, pool, json.loads(state["arguments"]), normaliser, state["algorithm"])
        learner.save(folder)
        (folder / "policy.zip").unlink()
        return cls.load(folder)

    def __repr__(self) -> str:
        """One line."""
        parts = [repr(self.name), self.algorithm or type(self.policy).__name__, repr(self.pool)]
        parts += [f"{name}={value!r}" for name, value in self.arguments.items()]
        return f"MetaLearner({', '.join(parts + ['normalised'] * (self.normaliser is not None))})"


@dataclass(frozen=True, repr=False)
class Ensemble:
    """Several learners as one, whose networks' mean output counts (MAML++'s ensemble; Antoniou et al. 2019).

    Attributes:
        name: what tables call it.
        members: the learners, one or more.
    """

    name: str
    members: tuple[MetaLearner, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members=(): an ensemble needs at least one learner")

    def __repr__(self) -> str:
        """One line."""
        return f"Ensemble({self.name!r}, {len(self.members)} members, the first {self.members[0]!r})"


# -- what cannot be right ---------------------------------------------------------------------------------------------


REMEDY = "MetaLearner.from_sb3(model) reads it all"


def _check_spaces(learner: MetaLearner) -> None:
    """Raises a ValueError if the policy's spaces are not those of the learner's other parts."""
    policy: Any = learner.policy
    shown, observation = policy.observation_space, learner.arguments.get("observation", "flat")
    is_dict = isinstance(shown, gym.spaces.Dict)
    if (observation == "dict") != is_dict:
        raise ValueError(f"arguments: observation={observation!r}, but the policy takes {shown}; {REMEDY}")
    action, bins = learner.arguments.get("action", "box"), learner.arguments.get("step_bins", 13)
    space = make_encoding(action, layer_and_step(learner.pool.layers), step_bins=bins).space
    if space != policy.action_space:
        raise ValueError(
            f"arguments: with action={action!r}, step_bins={bins!r} and the pool's {learner.pool.layers} layers, "
            f"actions are {space}, but the policy's are {policy.action_space}; {REMEDY}"
        )
    if learner.normaliser is not None:
        normalised: Any = learner.normaliser.shapes
        shapes = {part: space.shape for part, space in shown.items()} if is_dict else shown.shape
        named = {part: shapes.get(part) for part in normalised} if is_dict and isinstance(normalised, dict) else shapes
        if normalised != named:
            raise ValueError(f"normaliser: is of {normalised}, but the policy's observations of {shapes}; {REMEDY}")


def _check_training(learner: MetaLearner) -> None:
    """Raises a ValueError if the SB3 model still has its environment, and that is not what the learner says."""
    model: Any = learner.policy
    given, own = learner.normaliser, _normaliser_of(model.get_vec_normalize_env())
    if own is not None and given is None:
        raise ValueError(
            "normaliser=None: the policy was trained under VecNormalize, and would not know what it is shown without; "
            f"{REMEDY}"
        )
    if own and given and any(getattr(given, name) != getattr(own, name) for name in ("shapes", "clip", "epsilon")):
        raise ValueError(f"normaliser: is {given}, but the policy was trained under {own}; {REMEDY}")
    found = _look(model.get_env(), "arguments")
    if not found:
        return
    low, high = learner.pool.step_range
    plain = {"depth": 2, "horizon": 5, "action": "box", "step_bins": 13, "observation": "flat"}
    for name, default in {**plain, "min_step": low, "max_step": high}.items():
        value = learner.arguments.get(name)
        value = default if value is None else value
        if not _same(value, found[0][name]) and (name, found[0]["action"]) != ("step_bins", "box"):
            raise ValueError(
                f"arguments: {name}={value!r}, but the policy was trained with {name}={found[0][name]!r}; {REMEDY}"
            )


def _same(value: Any, other: Any) -> bool:
    if is_number(value) and is_number(other):
        return math.isclose(value, other, rel_tol=1e-6)  # float32 is what sweeps make of numbers
    return bool(value == other)


def _look(env: Any, attribute: str) -> list[Any] | None:
    """An attribute of each environment under all wrappers, or None where there is none."""
    try:
        if isinstance(env, gym.Env | gym.vector.VectorEnv):
            return [getattr(env.unwrapped, attribute)]
        return None if env is None else list(env.get_attr(attribute))
    except (AttributeError, EOFError, OSError):  # others' environments; workers that are gone
        return None


def _wrappers(env: Any) -> list[tuple[str, Any]]:
    """The wrappers by the names of their classes from the outside in, and SB3's themselves."""
    found = []
    while hasattr(env, "venv"):
        found.append((type(env).__name__, env))
        env = env.venv
    if isinstance(getattr(env, "env", None), gym.vector.VectorEnv):
        env = env.env
    # Workers may be other processes, and what they hold need not pickle; but everyone can say what it is.
    shown = env.env_method("__str__")[0] if hasattr(env, "env_method") else str(env)
    inside = re.search(r"<\w+(<[^<>]*>| instance)>", shown)
    outside = shown[: inside.start()] if inside else shown
    return [*found, *((name, None) for name in re.findall(r"<(\w+)", outside))]


def _normaliser_of(env: Any) -> Normaliser | None:
    """What a `VecNormalize` does to observations; None if it is none, or leaves them as they are."""
    if env is None or not env.norm_obs:
        return None
    if isinstance(env.obs_rms, dict):
        means, variances = ({part: getattr(rms, of) for part, rms in env.obs_rms.items()} for of in ("mean", "var"))
        return Normaliser(means, variances, env.clip_obs, env.epsilon)
    return Normaliser(env.obs_rms.mean, env.obs_rms.var, env.clip_obs, env.epsilon)


def _has_seen(env: Any) -> bool:
    """Whether the statistics of a `VecNormalize` are others than those that it is born with."""
    all_statistics = env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
    return any(rms.count >= 1 or np.any(rms.mean != 0) or np.any(rms.var != 1) for rms in all_statistics)


def _alike(one: Any, other: Any) -> bool:
    """Whether plain data, arrays and tensors in it are the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(part, other[name]) for name, part in one.items())
    return bool(np.array_equal(one, other))


def _shapes(values: Any) -> Any:
    return {name: part.shape for name, part in values.items()} if isinstance(values, dict) else values.shape

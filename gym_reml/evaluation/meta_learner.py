"""A meta-learner as one object: policy, pool, arguments of its environment, and observation normaliser."""

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
from gym_reml.envs.common.versions import VectorEnv
from gym_reml.envs.training.setup import known_arguments
from gym_reml.evaluation.open_loop import Plan
from gym_reml.evaluation.saved_policy import ALGORITHMS as ALGORITHMS
from gym_reml.evaluation.saved_policy import (
    algorithm_of,
    copy_policy,
    policy_from_state,
    policy_state,
    to_plain,
    with_decision,
)
from gym_reml.evaluation.saved_policy import find_algorithm as find_algorithm
from gym_reml.files import as_path, load_safely, save_atomically
from gym_reml.networks.modules import Modules
from gym_reml.networks.weights import CLIP
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.spaces import ActionEncoding, Decision, layer_and_step, make_encoding

FORMAT, OLD_FORMAT = "gym_reml.Learner/2", "gym_reml.Learner/1"

NOT_A_LEARNERS = ("family", "family_kwargs", "shots", "queries", "pool", "learn", "learn_kwargs")
"""Arguments of the environment that do not belong to a learner: they set the tasks, and the pool and its learning."""

HARMLESS_WRAPPERS = {
    *("Monitor", "OrderEnforcing", "PassiveEnvChecker", "TimeLimit", "Autoreset", "RecordEpisodeStatistics"),
    *("RecordVideo", "HumanRendering", "RenderCollection"),
    *("TransformReward", "NormalizeReward", "ClipReward"),
    *("VecMonitor", "VecCheckNan", "VecVideoRecorder", "VecNormalize"),
}
"""Wrappers of Gymnasium and Stable-Baselines3 that leave observations and actions as they are, and `VecNormalize`,
whose statistics become the learner's normaliser."""


class Policy(Protocol):
    """Any object with Stable-Baselines3's `predict`."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Acts on n observations.

        Args:
            observation: (n, size), or a dict of such parts.
            state: recurrent state that the previous call returned, or None.
            episode_start: (n,) bool, whether an episode begins with this observation.
            deterministic: whether to take the most likely action rather than to sample.

        Returns:
            The n actions, and the recurrent state for the next call.
        """
        ...


@dataclass(frozen=True, repr=False)
class Normaliser:
    """Normalises observations as SB3's `VecNormalize`: (x - mean) / sqrt(variance + epsilon), clipped.

    Attributes:
        mean, variance: (size,) float64; for dict observations a dict by part, where parts left out are not normalised.
        clip: largest magnitude of a normalised value.
        epsilon: added to the variance, so that constant features stay finite.
    """

    mean: Any
    variance: Any
    clip: float = 10.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Checks the attributes, and copies the arrays.

        Raises:
            ValueError: means and variances of different shapes or not finite, negative variances, a clip that is not
                positive, or a negative epsilon.
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
        """The normalised observation, (n, size) float32, or a dict of such parts."""
        if not isinstance(self.mean, dict):
            return self._scaled(observation, self.mean, self.variance)
        normalised = {
            part: self._scaled(observation[part], mean, self.variance[part]) for part, mean in self.mean.items()
        }
        return {**observation, **normalised}

    def _scaled(self, values: Any, mean: Any, variance: Any) -> NDArray[np.float32]:
        scaled = (values - mean) / np.sqrt(variance + self.epsilon)
        clipped: NDArray[np.float32] = np.clip(scaled, -self.clip, self.clip).astype(np.float32)
        return clipped

    def __repr__(self) -> str:
        """One line."""
        return f"Normaliser(of {self.shapes}, clip={self.clip:g}, epsilon={self.epsilon:g})"


@dataclass(frozen=True, repr=False)
class MetaLearner:
    """A meta-learner: a policy that builds and trains networks, and the pool that it builds them from.

    `MetaLearner.from_sb3` makes one from an agent trained by Stable-Baselines3.

    Attributes:
        name: in tables.
        policy: chooses actions.
        pool: layers that networks are built from.
        arguments: plain data; arguments of the environment other than family, family_kwargs, shots, queries, pool,
            learn, learn_kwargs and device.
        normaliser: applied to observations before the policy sees them, or None.
        algorithm: name of the policy's SB3 algorithm, set from the policy; None for other policies, of which only a
            `gym_reml.evaluation.plans.Plan` can be saved.
    """

    name: str
    policy: Policy
    pool: LayerPool
    arguments: dict[str, Any] = field(default_factory=dict)
    normaliser: Normaliser | None = None
    algorithm: str | None = None

    def __post_init__(self) -> None:
        """Checks the parts, and that they fit together.

        Raises:
            ValueError: an attribute of a wrong type; an unknown argument, or one that does not belong to a learner; an
                algorithm other than the policy's; or an SB3 policy with other observation or action spaces, or trained
                with other arguments or another normaliser.
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
        allowed = [name for name in known_arguments() if name not in NOT_A_LEARNERS]
        for name in self.arguments:
            if name not in allowed:
                why = "not a learner's" if name in NOT_A_LEARNERS else "no such argument"
                raise ValueError(f"arguments: {name!r} is {why}; choices: {', '.join(allowed)}")
        object.__setattr__(self, "arguments", deepcopy(dict(self.arguments)))
        if self.algorithm is not None:
            names = [name for group in ALGORITHMS.values() for name in group]
            if self.algorithm not in names:
                raise ValueError(f"algorithm={self.algorithm!r}: must be one of {', '.join(map(repr, names))}")
        algorithm = algorithm_of(self.policy)
        if self.algorithm is not None and self.algorithm != algorithm:
            raise ValueError(f"algorithm={self.algorithm!r}: the policy is {algorithm or type(self.policy).__name__!r}")
        object.__setattr__(self, "algorithm", algorithm)
        if isinstance(getattr(self.policy, "action_space", None), gym.Space):
            _check_spaces(self)
        if algorithm is not None:
            _check_training(self)

    @classmethod
    def from_sb3(cls, model: Any, env: Any = None, *, name: str | None = None) -> MetaLearner:
        """Makes a learner from an agent trained by Stable-Baselines3 and the environment that it was trained in.

        Policy and pool are copied: later training of the agent or the pool does not change the learner.

        Args:
            model: an algorithm of Stable-Baselines3 or sb3-contrib.
            env: the training environment with its wrappers; None for the one that the model holds.
            name: in tables; None for the algorithm's name.

        Raises:
            ValueError: another kind of model; no environment, one that does not build networks, or one that differs
                from the model's own; wrappers that change observations or actions; a `VecNormalize` without statistics
                although the model is trained; or parallel environments with different arguments or pools.
        """
        algorithm = algorithm_of(model)
        if algorithm is None:
            raise ValueError(f"model={model!r}: must be an algorithm of stable_baselines3 or sb3_contrib")
        model_env = model.get_env()
        env = model_env if env is None else env
        if env is None:
            raise ValueError("env=None: the model has no environment; give the one that it was trained in")
        arguments, pools = _attribute_of_each(env, "arguments"), _attribute_of_each(env, "pool")
        if not arguments or not pools:
            raise ValueError(f"env={env!r}: must be one of {', '.join(gym_reml.ENVIRONMENTS)}")
        normaliser, has_statistics = None, True
        for kind, wrapper in _wrappers(env):
            if kind not in HARMLESS_WRAPPERS:
                raise ValueError(
                    f"env: {kind} may change observations or actions, which a MetaLearner cannot reproduce. If it does "
                    "not, give the environment inside it"
                )
            if kind == "VecNormalize" and wrapper.norm_obs:
                if normaliser is not None:
                    raise ValueError("env: two VecNormalize normalise observations; a MetaLearner has one normaliser")
                normaliser, has_statistics = _normaliser_of(wrapper), _has_statistics(wrapper)
        trained_with = _normaliser_of(model.get_vec_normalize_env())
        if trained_with is not None and normaliser is not None and not _equal(vars(trained_with), vars(normaliser)):
            raise ValueError("env: its normalisation differs from that of the model's own environment; leave env out")
        if model.num_timesteps and not has_statistics:
            raise ValueError(
                f"env: its VecNormalize has no statistics, but the model was trained for {model.num_timesteps} steps; "
                "load those saved with the model by VecNormalize.load(path, env)"
            )
        if any(not _equal(other, arguments[0]) for other in arguments):
            raise ValueError("env: its environments were made with different arguments")
        if any(not _equal(pool.state(), pools[0].state()) for pool in pools[1:] if pool is not pools[0]):
            raise ValueError(
                f"env: each of its {len(pools)} environments has trained its own pool, and these differ; "
                "with gym_reml.sb3.make_vec_env they share one"
            )
        model_pools = _attribute_of_each(model_env, "pool")
        if model_pools and model_env is not env and not _equal(model_pools[0].state(), pools[0].state()):
            raise ValueError("env: its pool differs from that of the model's own environment; leave env out")
        plain = to_plain("arguments", arguments[0])
        learner = cls(name or algorithm, model, pools[0].to("cpu").clone(), plain, normaliser, algorithm)
        return replace(learner, policy=copy_policy(model))

    def act(self, observation: Any, state: Any, start: NDArray[np.bool_], masks: Any) -> tuple[Any, Any]:
        """Takes deterministic actions.

        Args:
            observation: (n, size) float32, or a dict of such parts; not yet normalised.
            state: recurrent state that the previous call returned, or None.
            start: (n,) bool, whether an episode begins with this observation.
            masks: function that returns action masks, (n, options) bool; called only for policies that take them.

        Returns:
            The n actions, and the recurrent state for the next call.
        """
        if self.normaliser is not None:
            observation = self.normaliser(observation)
        extra = {"action_masks": masks()} if "action_masks" in inspect.signature(self.policy.predict).parameters else {}
        return self.policy.predict(observation, state, start, deterministic=True, **extra)

    def save(self, folder: str | os.PathLike[str], classes: Mapping[str, type] | None = None) -> None:
        """Writes the learner atomically to `folder/learner.pt`: tensors and JSON that load without pickle.

        Args:
            folder: created if it is missing.
            classes: custom classes that the policy is made of, by name; `load` takes the same.

        Raises:
            ValueError: a policy that is neither an SB3 algorithm nor a `Plan`, is made of unknown classes, or plans
                actions of another encoding than the arguments'; nothing is written.
            TypeError: an argument that is not plain data; nothing is written.
        """
        policy: dict[str, Any]
        weights: dict[str, Any] = {}
        if isinstance(self.policy, Plan):
            if self.policy.encoding.space != _encoding_of(self.pool, self.arguments).space:
                raise ValueError(f"policy: plans actions of {self.policy.encoding.space}, not those of the arguments")
            planned = {name: to_plain(name, values) for name, values in self.policy.planned.items()}
            policy = {"plan": planned}
        elif self.algorithm is None:
            raise ValueError(f"policy={self.policy!r}: only SB3 algorithms and plans can be saved")
        else:
            policy, weights = policy_state(self.policy, classes)
        description: dict[str, Any] = {
            "name": self.name,
            "policy": policy,
            "arguments": {name: to_plain(name, value) for name, value in self.arguments.items()},
            "normaliser": None,
            "version": gym_reml.__version__,
        }
        if self.normaliser is not None:
            # JSON has no infinity; clipping at the largest float is equivalent.
            finite = replace(self.normaliser, clip=min(self.normaliser.clip, sys.float_info.max))
            description["normaliser"] = {
                name: to_plain(name, getattr(finite, name)) for name in ("mean", "variance", "clip", "epsilon")
            }
        text = json.dumps(description, allow_nan=False)
        state = {"format": FORMAT, "about": text, "policy": weights, "pool": self.pool.state()}
        save_atomically(state, as_path(folder) / "learner.pt")

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        classes: Mapping[str, type] | None = None,
        *,
        modules: Modules | None = None,
    ) -> MetaLearner:
        """Reads a learner that `save` wrote, without executing any content of the file.

        A policy of Stable-Baselines3 needs stable-baselines3, and sb3-contrib for algorithms of that library; a `Plan`
        needs neither. It can predict, and has no environment.

        Args:
            folder: of the learner.
            classes: custom classes, by the names given to `save`.
            modules: the user's own modules that the pool was made of, see `LayerPool.load`.

        Raises:
            FileNotFoundError: there is no learner in the folder.
            ValueError: the file has another format, or is damaged.
        """
        path = as_path(folder) / "learner.pt"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; a training run keeps its learner in RUN/learner")
        state = load_safely(path)
        file_format = state.get("format") if isinstance(state, dict) else type(state).__name__
        if file_format == OLD_FORMAT:
            raise ValueError(
                f"{path}: of an earlier version, whose policy.zip is a pickle: loading it can execute arbitrary code. "
                "If you trust it, rewrite it by MetaLearner.convert(folder)"
            )
        if file_format != FORMAT:
            raise ValueError(f"{path}: not a learner this version reads (found {file_format!r}, expected {FORMAT!r})")
        pool = LayerPool.from_state(state.get("pool"), str(path), modules)
        try:
            description = json.loads(state["about"])
            name, arguments, saved = description["name"], description["arguments"], description["normaliser"]
            normaliser = None if saved is None else Normaliser(**saved)
            described = description["policy"]
            if set(described) == {"plan"}:
                plan = Plan(_encoding_of(pool, arguments), **described["plan"])
                return cls(name, plan, pool, arguments, normaliser)
            if arguments.get("action", "box") == "box":
                described = with_decision(described, decision_of(pool, arguments))
            policy = policy_from_state(described, state["policy"], classes=classes)
            return cls(name, policy, pool, arguments, normaliser, described["algorithm"])
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: damaged learner, {type(error).__name__}: {error}") from error

    @classmethod
    def convert(cls, folder: str | os.PathLike[str]) -> MetaLearner:
        """Rewrites the folder of an earlier version in place, and returns its learner.

        The folder's policy.zip is a pickle: loading it can execute arbitrary code. Convert only files that you trust.

        Raises:
            ValueError: there is no learner of that version.
        """
        folder = as_path(folder)
        state = load_safely(folder / "learner.pt")
        if not isinstance(state, dict) or state.get("format") != OLD_FORMAT:
            raise ValueError(f"{folder / 'learner.pt'}: not a learner of an earlier version")
        # Schedules are for training only, and may be of classes that cannot be imported here.
        ignored = dict.fromkeys(("learning_rate", "lr_schedule", "clip_range", "exploration_schedule"), 0.0)
        model = find_algorithm(state["algorithm"]).load(folder / "policy.zip", device="cpu", custom_objects=ignored)
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
    """Several learners whose networks' outputs are averaged (MAML++, Antoniou et al. 2019, arXiv:1810.09502).

    Attributes:
        name: in tables.
        members: one or more learners.
    """

    name: str
    members: tuple[MetaLearner, ...]

    def __post_init__(self) -> None:
        """Raises a ValueError without members."""
        if not self.members:
            raise ValueError("members=(): an ensemble needs at least one learner")

    def __repr__(self) -> str:
        """One line."""
        return f"Ensemble({self.name!r}, {len(self.members)} members, the first {self.members[0]!r})"


# -- consistency checks -----------------------------------------------------------------------------------------------


REMEDY = "MetaLearner.from_sb3(model) reads all of it from the model"


def _check_spaces(learner: MetaLearner) -> None:
    """Raises a ValueError if the policy's spaces do not match pool, arguments and normaliser."""
    policy: Any = learner.policy
    observation_space, observation = policy.observation_space, learner.arguments.get("observation", "flat")
    is_dict = isinstance(observation_space, gym.spaces.Dict)
    if (observation == "dict") != is_dict:
        raise ValueError(f"arguments: observation={observation!r}, but the policy takes {observation_space}; {REMEDY}")
    space = _encoding_of(learner.pool, learner.arguments).space
    if space != policy.action_space:
        action, bins = learner.arguments.get("action", "box"), learner.arguments.get("step_bins", 13)
        raise ValueError(
            f"arguments: with action={action!r}, step_bins={bins!r} and the pool's {learner.pool.layers} layers, "
            f"actions are {space}, but the policy's are {policy.action_space}; {REMEDY}"
        )
    if learner.normaliser is not None:
        normalised: Any = learner.normaliser.shapes
        shapes = observation_space.shape
        if is_dict:
            shapes = {part: space.shape for part, space in observation_space.items()}
        expected = shapes
        if is_dict and isinstance(normalised, dict):  # which may leave parts out
            expected = {part: shapes.get(part) for part in normalised}
        if normalised != expected:
            raise ValueError(f"normaliser: is of {normalised}, but the policy's observations of {shapes}; {REMEDY}")


def _encoding_of(pool: LayerPool, arguments: Mapping[str, Any]) -> ActionEncoding:
    """The encoding of actions on this pool in an environment with these arguments."""
    action, bins = arguments.get("action", "box"), arguments.get("step_bins", 13)
    return make_encoding(action, decision_of(pool, arguments), step_bins=bins)


def decision_of(pool: LayerPool, arguments: Mapping[str, Any]) -> Decision:
    """The decision in each step, on this pool in an environment with these arguments, of which any may be left out."""
    by_position = arguments.get("step_sizes", "single") == "layer"
    return layer_and_step(pool.layers, int(arguments.get("depth", 2)) if by_position else None)


def _check_training(learner: MetaLearner) -> None:
    """Raises a ValueError if the SB3 model still has its environment, and the learner differs from it."""
    model: Any = learner.policy
    given, trained_with = learner.normaliser, _normaliser_of(model.get_vec_normalize_env())
    if trained_with is not None and given is None:
        raise ValueError(f"normaliser=None: the policy was trained on observations of VecNormalize; {REMEDY}")
    compared = ("shapes", "clip", "epsilon")
    if trained_with and given and any(getattr(given, name) != getattr(trained_with, name) for name in compared):
        raise ValueError(f"normaliser: is {given}, but the policy was trained under {trained_with}; {REMEDY}")
    arguments = _attribute_of_each(model.get_env(), "arguments")
    if not arguments:
        return
    trained, (low, high) = arguments[0], learner.pool.step_range
    defaults = {"depth": 2, "horizon": 5, "action": "box", "step_bins": 13, "observation": "flat"}
    defaults |= {"optimizer": "sgd", "step_sizes": "single"}
    for name, default in {**defaults, "min_step": low, "max_step": high, "clip": CLIP, "batch_size": None}.items():
        value = learner.arguments.get(name, default)
        value = default if value is None and name != "clip" else value
        if not _same(value, trained[name]) and (name, trained["action"]) != ("step_bins", "box"):
            raise ValueError(
                f"arguments: {name}={value!r}, but the policy was trained with {name}={trained[name]!r}; {REMEDY}"
            )


def _same(value: Any, other: Any) -> bool:
    """Whether two arguments are equal; numbers up to float32 rounding, which sweeps apply."""
    if is_number(value) and is_number(other):
        return math.isclose(value, other, rel_tol=1e-6)
    return bool(value == other)


def _attribute_of_each(env: Any, attribute: str) -> list[Any] | None:
    """An attribute of each parallel environment, beneath all wrappers; None if there is no such attribute."""
    try:
        if isinstance(env, gym.Env | VectorEnv):
            return [getattr(env.unwrapped, attribute)]
        return None if env is None else list(env.get_attr(attribute))
    except (AttributeError, EOFError, OSError):  # other kinds of environments; worker processes that have ended
        return None


def _wrappers(env: Any) -> list[tuple[str, Any]]:
    """The wrappers from the outside in: class name and wrapper; of Gymnasium's the name only, with None."""
    vec_wrappers = []
    while hasattr(env, "venv"):
        vec_wrappers.append((type(env).__name__, env))
        env = env.venv
    if isinstance(getattr(env, "env", None), VectorEnv):
        env = env.env
    # In worker processes, whose wrappers need not pickle, only their text is accessible.
    text = env.env_method("__str__")[0] if hasattr(env, "env_method") else str(env)
    innermost = re.search(r"<\w+(<[^<>]*>| instance)>", text)
    outside = text[: innermost.start()] if innermost else text
    return [*vec_wrappers, *((name, None) for name in re.findall(r"<(\w+)", outside))]


def _normaliser_of(env: Any) -> Normaliser | None:
    """The observation normaliser of a `VecNormalize`; None without one, or if it does not normalise observations."""
    if env is None or not env.norm_obs:
        return None
    if isinstance(env.obs_rms, dict):
        means = {part: statistics.mean for part, statistics in env.obs_rms.items()}
        variances = {part: statistics.var for part, statistics in env.obs_rms.items()}
        return Normaliser(means, variances, env.clip_obs, env.epsilon)
    return Normaliser(env.obs_rms.mean, env.obs_rms.var, env.clip_obs, env.epsilon)


def _has_statistics(env: Any) -> bool:
    """Whether the statistics of a `VecNormalize` differ from their initial values."""
    all_statistics = env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
    return any(rms.count >= 1 or np.any(rms.mean != 0) or np.any(rms.var != 1) for rms in all_statistics)


def _equal(one: Any, other: Any) -> bool:
    """Whether plain data, with arrays and tensors in it, is equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(part, other[name]) for name, part in one.items())
    return bool(np.array_equal(one, other))


def _shapes(values: Any) -> Any:
    """The shape of an array, or of each array of a dict."""
    return {name: part.shape for name, part in values.items()} if isinstance(values, dict) else values.shape

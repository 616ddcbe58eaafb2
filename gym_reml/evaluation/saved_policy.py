"""The policy of a Stable-Baselines3 algorithm as tensors and plain data, and back, without pickles.

Saved is what `predict` needs: the spaces, the policy's class and arguments by name, and its weights. Class names are
resolved among PyTorch, Stable-Baselines3, sb3-contrib and this package; custom classes must be passed by the caller.
Stable-Baselines3 is imported when a function needs it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gym_reml.spaces import Decision, DecisionBox

ALGORITHMS = {
    "stable_baselines3": ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3"),
    "sb3_contrib": ("ARS", "CrossQ", "MaskablePPO", "QRDQN", "RecurrentPPO", "TQC", "TRPO"),
}
"""The thirteen algorithms of Stable-Baselines3 and sb3-contrib."""

CLASSES = {
    "gym_reml.sb3.hybrid_policy": ("HybridPolicy", "ReadParts"),
    "gym_reml.sb3.recurrent_policy": ("RecurrentHybridPolicy",),
    "stable_baselines3.common.sb2_compat.rmsprop_tf_like": ("RMSpropTFLike",),
    "stable_baselines3.common.torch_layers": ("CombinedExtractor", "FlattenExtractor", "NatureCNN"),
}
"""Further classes that policies may be made of, by module: besides `torch`'s and the algorithms' own policies."""

TORCH = {"torch.nn": nn.Module, "torch.optim": torch.optim.Optimizer}
"""Modules of PyTorch whose classes policies may be made of, and the base class that these must have."""

DECISION = ("choices", "numbers", "names")
"""Attributes of a decision that are saved."""

LARGEST_SPACE = 10_000_000
"""Largest size of an observation or action that is accepted from a file."""


def find_algorithm(name: str) -> Any:
    """The class of an algorithm.

    Raises:
        ValueError: an unknown name; the message lists the choices.
        ImportError: the library of the algorithm is not installed.
    """
    for module, names in ALGORITHMS.items():
        if name in names:
            try:
                return getattr(importlib.import_module(module), name)
            except ImportError as error:
                raise ImportError(f"{name} needs {module}: pip install {module.replace('_', '-')}") from error
    choices = ", ".join(repr(choice) for names in ALGORITHMS.values() for choice in names)
    raise ValueError(f"algorithm={name!r}: must be one of {choices}")


def algorithm_of(model: Any) -> str | None:
    """The name of the SB3 algorithm that `model` is an instance of, also by inheritance; None for other objects."""
    for kind in type(model).__mro__:
        if kind.__name__ in ALGORITHMS.get(kind.__module__.partition(".")[0], ()):
            return kind.__name__
    return None


def policy_state(model: Any, classes: Mapping[str, type] | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The policy of an SB3 algorithm as data for JSON, and weights on the CPU.

    Args:
        model: one of the thirteen algorithms.
        classes: custom classes by the names under which they will be passed to `policy_from_state`.

    Returns:
        The description of the policy, and its weights by name.

    Raises:
        ValueError: another kind of model, or a policy with an unknown class or an argument that is not finite.
        TypeError: an argument of the policy that is not plain data.
    """
    algorithm = algorithm_of(model)
    if algorithm is None:
        raise ValueError(f"policy={type(model).__name__}: only SB3 algorithms can be saved")
    custom, policy = dict(classes or {}), _policy_of(model)
    description = {
        "algorithm": algorithm,
        "class": _class_name("policy", type(policy), algorithm, custom),
        "arguments": {
            str(name): _encode(f"policy_kwargs[{name!r}]", value, algorithm, custom)
            for name, value in policy_arguments(model).items()
        },
        "observation_space": encode_space(model.observation_space),
        "action_space": encode_space(model.action_space),
    }
    return description, {name: tensor.detach().cpu().clone() for name, tensor in policy.state_dict().items()}


def policy_from_state(description: Any, weights: Any, *, classes: Mapping[str, type] | None = None) -> Any:
    """The algorithm from the two results of `policy_state`, on the CPU; it can predict, and has no environment.

    Args:
        description: of the policy.
        weights: tensors by name.
        classes: custom classes, by the names given to `policy_state`.

    Raises:
        ValueError: a malformed description, an unknown name, or weights that do not fit the policy.
    """
    names = {"algorithm", "class", "arguments", "observation_space", "action_space"}
    if not isinstance(description, dict) or set(description) != names:
        raise ValueError(f"its policy is described by {_names(description)} instead of {_names(names)}")
    algorithm, custom = description["algorithm"], dict(classes or {})
    if not isinstance(algorithm, str) or not isinstance(description["arguments"], dict):
        raise ValueError("its policy's algorithm is no name, or its arguments are no dict")
    find_algorithm(algorithm)
    return build(
        algorithm,
        _find_class(description["class"], algorithm, custom),
        arguments={name: _decode(value, algorithm, custom) for name, value in description["arguments"].items()},
        both_spaces=(decode_space(description["observation_space"]), decode_space(description["action_space"])),
        weights=weights,
    )


def with_decision(description: Any, decision: Decision) -> Any:
    """The description with a `DecisionBox` as action space, if its own is the equal `Box`.

    Policies that were saved before there was a `DecisionBox` have the plain one.
    """
    space = DecisionBox(decision)
    is_equal = decode_space(description["action_space"]) == space
    return {**description, "action_space": encode_space(space)} if is_equal else description


def copy_policy(model: Any) -> Any:
    """A new object of the same algorithm with a copy of the policy, on the CPU; it can predict, without environment."""
    algorithm = algorithm_of(model)
    assert algorithm is not None
    policy = _policy_of(model)
    weights = {name: tensor.detach().cpu() for name, tensor in policy.state_dict().items()}
    return build(
        algorithm,
        type(policy),
        arguments=policy_arguments(model),
        both_spaces=(model.observation_space, model.action_space),
        weights=weights,
    )


def _policy_of(model: Any) -> Any:
    """The policy, unwrapped if it was compiled by `torch.compile`."""
    return getattr(model.policy, "_orig_mod", model.policy)


def policy_arguments(model: Any) -> dict[str, Any]:
    """The arguments with which the algorithm makes its policy, without spaces and learning rate."""
    return dict(model.policy_kwargs) | ({"use_sde": True} if model.use_sde else {})


def build(
    algorithm: str,
    policy_class: Any,
    *,
    arguments: Mapping[str, Any],
    both_spaces: tuple[spaces.Space[Any], spaces.Space[Any]],
    weights: Any,
) -> Any:
    """An algorithm that holds a policy with these weights.

    Args:
        algorithm: name of the algorithm.
        policy_class: class of the policy.
        arguments: of the policy, without spaces and learning rate.
        both_spaces: observation space and action space.
        weights: finite tensors by name.

    Raises:
        ValueError: weights that are malformed, or do not fit a policy of this class with these arguments.
    """
    problem = _problem_of_weights(weights)
    if problem:
        raise ValueError(f"its policy's weights {problem}")
    kind = find_algorithm(algorithm)
    # Policies of ARS, which follows no gradient, take no learning-rate schedule.
    schedule = () if algorithm == "ARS" else (_zero_schedule,)
    elements = sum(tensor.numel() for tensor in weights.values())
    model = kind(policy_class, None, device="cpu", policy_kwargs=dict(arguments), _init_setup_model=False)
    try:
        # Construction draws random weights: without touching the global generator, and never many more than are saved.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]), torch.device("cpu"), _SizeLimit(elements):
            policy = policy_class(*both_spaces, *schedule, **arguments)
        floats = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
        policy.to(next(iter(floats)))
        policy.load_state_dict(weights, strict=True)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise ValueError(f"its policy, a {policy_class.__name__} of {algorithm}, cannot be made: {error}") from error
    policy.set_training_mode(False)
    model.observation_space, model.action_space = both_spaces
    model.use_sde = bool(arguments.get("use_sde", False))
    model.policy = policy
    return model


def _zero_schedule(remaining: float) -> float:
    """The learning-rate schedule of a policy that is not trained further."""
    return 0.0


class _SizeLimit(TorchFunctionMode):
    """Limits how many elements are allocated while a policy is built, since its sizes come from an untrusted file."""

    def __init__(self, elements: int) -> None:
        """Takes the number of elements of the saved weights."""
        super().__init__()
        self.left = 4 * elements + 1_000_000

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            size = args[0] if args and isinstance(args[0], Sequence) else args
            self.left -= math.prod(int(length) for length in size if isinstance(length, int)) + 1
            if self.left < 0:
                raise ValueError("its policy is described as much larger than its weights are")
        return func(*args, **(kwargs or {}))


def _problem_of_weights(weights: Any) -> str | None:
    """What is wrong with saved weights, as the end of a sentence; None if nothing is."""
    if not isinstance(weights, dict) or not weights:
        return "are no tensors by name"
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()):
        return "are no tensors by name"
    floats = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if floats not in ({torch.float32}, {torch.float64}):
        return "are not of one floating type"
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    return f"are not finite: {', '.join(broken)}" if broken else None


# -- classes and arguments by name ----------------------------------------------------------------------------------


def _known_classes(algorithm: str, custom: Mapping[str, type]) -> dict[str, type]:
    """All classes but PyTorch's, by name. Policies of different algorithms share names, so these depend on it."""
    classes: dict[str, type] = {kind.__name__: kind for kind in find_algorithm(algorithm).policy_aliases.values()}
    for module, names in CLASSES.items():
        try:
            classes |= {name: getattr(importlib.import_module(module), name) for name in names}
        except ImportError:  # sb3-contrib is optional
            continue
    return {**classes, **custom}


def _class_name(argument: str, kind: type, algorithm: str, custom: Mapping[str, type]) -> str:
    """The name under which a class is saved; a ValueError that names the argument if it is unknown."""
    for module in TORCH:
        if getattr(importlib.import_module(module), kind.__name__, None) is kind:
            return f"{module}.{kind.__name__}"
    for name, candidate in _known_classes(algorithm, custom).items():
        if candidate is kind:
            return name
    raise ValueError(
        f"{argument}: {kind.__module__}.{kind.__qualname__} is none of the classes of torch, stable_baselines3, "
        f"sb3_contrib and gym_reml. Name it when saving and loading: classes={{{kind.__name__!r}: {kind.__name__}}}"
    )


def _find_class(name: Any, algorithm: str, custom: Mapping[str, type]) -> type:
    """The class that was saved under this name, or a ValueError."""
    if isinstance(name, str):
        module, _, last = name.rpartition(".")
        if module in TORCH:
            kind = getattr(importlib.import_module(module), last, None)
            if isinstance(kind, type) and issubclass(kind, TORCH[module]):
                return kind
        classes = _known_classes(algorithm, custom)
        if name in classes:
            return classes[name]
    raise ValueError(
        f"its policy's class {name!r} is none of those of torch, stable_baselines3, sb3_contrib and gym_reml. If you "
        f"have it, pass it: classes={{{name!r}: ...}}"
    )


def _encode(argument: str, value: Any, algorithm: str, custom: Mapping[str, type]) -> Any:
    """An argument of a policy as data for JSON: {"class": name} for a class, {"dict": ...} for a dict."""
    if isinstance(value, type):
        return {"class": _class_name(argument, value, algorithm, custom)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        pairs = value.items()
        return {"dict": {key: _encode(f"{argument}[{key!r}]", part, algorithm, custom) for key, part in pairs}}
    if isinstance(value, list | tuple):
        return [_encode(argument, part, algorithm, custom) for part in value]
    return to_plain(argument, value)


def _decode(value: Any, algorithm: str, custom: Mapping[str, type]) -> Any:
    """The argument that `_encode` encoded, or a ValueError."""
    if isinstance(value, list):
        return [_decode(part, algorithm, custom) for part in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"class"}:
        return _find_class(value["class"], algorithm, custom)
    if set(value) != {"dict"} or not isinstance(value["dict"], dict):
        raise ValueError(f"its policy has an argument {value!r}")
    return {name: _decode(part, algorithm, custom) for name, part in value["dict"].items()}


def to_plain(argument: str, value: Any) -> Any:
    """The value as data for JSON: numpy and torch become numbers and lists, tuples lists, and paths strings.

    Raises:
        ValueError: a number that is not finite; the message names the argument.
        TypeError: a type that JSON does not have; the message names the argument.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"{argument}={value!r}: must be a finite number")
        return value
    if isinstance(value, list | tuple):
        return [to_plain(argument, part) for part in value]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: to_plain(f"{argument}[{name!r}]", part) for name, part in value.items()}
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(
        f"{argument}={value!r}: a {type(value).__name__} cannot be saved; numbers, texts, None, and lists and dicts of "
        "them can"
    )


# -- spaces ---------------------------------------------------------------------------------------------------------


def encode_space(space: Any) -> dict[str, Any]:
    """A space as data for JSON; a ValueError unless SB3 has policies for this kind of space."""
    if isinstance(space, spaces.Dict):
        return {"Dict": {name: encode_space(part) for name, part in space.items()}}
    if isinstance(space, DecisionBox):
        decision = space.decision
        return {"DecisionBox": {name: to_plain(name, getattr(decision, name)) for name in DECISION}}
    if isinstance(space, spaces.Box):
        limits = {name: _limits(getattr(space, name)) for name in ("low", "high")}
        return {"Box": {**limits, "shape": list(space.shape), "dtype": np.dtype(space.dtype).name}}
    if isinstance(space, spaces.Discrete):
        return {"Discrete": {"n": int(space.n), "start": int(space.start)}}
    if isinstance(space, spaces.MultiDiscrete):
        return {"MultiDiscrete": {"nvec": space.nvec.tolist(), "start": space.start.tolist()}}
    if isinstance(space, spaces.MultiBinary):
        return {"MultiBinary": {"n": to_plain("n", space.n)}}
    raise ValueError(f"{space}: must be a Box, Discrete, MultiDiscrete, MultiBinary or Dict to be saved")


def decode_space(content: Any) -> spaces.Space[Any]:
    """The space that `encode_space` encoded, or a ValueError."""
    try:
        ((kind, given),) = content.items()
        if kind == "Dict":
            return spaces.Dict({name: decode_space(part) for name, part in given.items()})
        if kind == "DecisionBox":
            choices, numbers, names = (given[name] for name in DECISION)
            decision = Decision(tuple(choices), numbers, names=tuple(names))
            if decision.size > LARGEST_SPACE:
                raise ValueError("too large")
            return DecisionBox(decision)
        if kind == "Box":
            shape, dtype = tuple(given["shape"]), np.dtype(given["dtype"])
            if math.prod(shape) > LARGEST_SPACE or dtype.kind not in "fiu":
                raise ValueError("too large, or of no number type")
            low, high = (np.broadcast_to(np.array(given[name], dtype), shape) for name in ("low", "high"))
            return spaces.Box(low.copy(), high.copy(), shape, dtype.type)
        if kind == "Discrete":
            return spaces.Discrete(int(given["n"]), start=int(given["start"]))
        if kind == "MultiDiscrete":
            return spaces.MultiDiscrete(np.array(given["nvec"]), start=np.array(given["start"]))
        if kind == "MultiBinary" and np.prod(given["n"]) <= LARGEST_SPACE:
            return spaces.MultiBinary(given["n"])
    except Exception as error:  # Gymnasium and numpy raise various errors on bad values
        raise ValueError(f"its policy has a space {str(content)[:100]} ({error})") from error
    raise ValueError(f"its policy has a space {str(content)[:100]}")


def _limits(values: np.ndarray[Any, Any]) -> Any:
    """Bounds of a Box: one number where all are equal; infinities as strings, since JSON has none."""

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return [plain(value) for value in part]
        return part if math.isfinite(part) else str(part)

    uniform = values.size > 0 and bool((values == values.flat[0]).all())
    return plain(values.flat[0].item() if uniform else values.tolist())


def _names(names: Any) -> str:
    """The names of a dict or set, for a message; the type of anything else."""
    return ", ".join(sorted(map(repr, names))) if isinstance(names, dict | set) else type(names).__name__

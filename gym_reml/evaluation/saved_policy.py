"""The policy of a Stable-Baselines3 algorithm as tensors and plain data, and back, without pickles.

What is kept is what `predict` needs: spaces, the policy's class and arguments by name, and its weights. Classes are
looked up among those of PyTorch, Stable-Baselines3, sb3-contrib and this package; others must be handed in.
Stable-Baselines3 is loaded when a function is called.
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
"""Classes that policies are made of, by module, beside the algorithms' own policies and those of `torch`."""

TORCH = {"torch.nn": nn.Module, "torch.optim": torch.optim.Optimizer}
"""Modules of PyTorch whose classes policies are made of, and what these must be."""

DECISION = ("choices", "numbers", "names")
"""What of a decision a file holds."""

LARGEST_SPACE = 10_000_000
"""Numbers of an observation or action that a file may speak of."""


def find_algorithm(name: str) -> Any:
    """The algorithm's class, or a ValueError that lists the choices."""
    for module, names in ALGORITHMS.items():
        if name in names:
            try:
                return getattr(importlib.import_module(module), name)
            except ImportError as error:
                raise ImportError(f"{name} needs {module}: pip install {module.replace('_', '-')}") from error
    choices = ", ".join(repr(choice) for names in ALGORITHMS.values() for choice in names)
    raise ValueError(f"algorithm={name!r}: must be one of {choices}")


def algorithm_of(model: Any) -> str | None:
    """The name of the SB3 algorithm that `model` is or derives from; None if it is none."""
    for kind in type(model).__mro__:
        if kind.__name__ in ALGORITHMS.get(kind.__module__.partition(".")[0], ()):
            return kind.__name__
    return None


def policy_state(model: Any, classes: Mapping[str, type] | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an SB3 algorithm predicts by: JSON-able data, and weights on the CPU.

    Args:
        model: one of the thirteen algorithms.
        classes: of the user's own, by the names under which they will be handed in again.

    Raises:
        ValueError: no such algorithm, or an argument of its policy that is no plain data and none of the known classes.
    """
    algorithm = algorithm_of(model)
    if algorithm is None:
        raise ValueError(f"policy={type(model).__name__}: only SB3 algorithms can be saved")
    known, policy = dict(classes or {}), _policy_of(model)
    about = {
        "algorithm": algorithm,
        "class": _class_name("policy", type(policy), algorithm, known),
        "arguments": {
            str(name): _encode(f"policy_kwargs[{name!r}]", value, algorithm, known)
            for name, value in policy_arguments(model).items()
        },
        "observation_space": encode_space(model.observation_space),
        "action_space": encode_space(model.action_space),
    }
    return about, {name: tensor.detach().cpu().clone() for name, tensor in policy.state_dict().items()}


def policy_from_state(about: Any, weights: Any, classes: Mapping[str, type] | None = None) -> Any:
    """The algorithm that `policy_state` described, on the CPU and without an environment: it predicts.

    Raises:
        ValueError: data of another form, unknown names, or weights that are not those of such a policy.
    """
    wanted = {"algorithm", "class", "arguments", "observation_space", "action_space"}
    if not isinstance(about, dict) or set(about) != wanted:
        raise ValueError(f"its policy is described by {_names(about)} instead of {_names(wanted)}")
    algorithm, known = about["algorithm"], dict(classes or {})
    if not isinstance(algorithm, str) or not isinstance(about["arguments"], dict):
        raise ValueError("its policy's algorithm is no name, or its arguments are no dict")
    find_algorithm(algorithm)
    return build(
        algorithm,
        _find_class(about["class"], algorithm, known),
        {name: _decode(value, algorithm, known) for name, value in about["arguments"].items()},
        (decode_space(about["observation_space"]), decode_space(about["action_space"])),
        weights,
    )


def copy_policy(model: Any) -> Any:
    """The algorithm with a copy of its policy, on the CPU and without an environment: it predicts the same."""
    algorithm = algorithm_of(model)
    assert algorithm is not None
    policy = _policy_of(model)
    weights = {name: tensor.detach().cpu() for name, tensor in policy.state_dict().items()}
    both = model.observation_space, model.action_space
    return build(algorithm, type(policy), policy_arguments(model), both, weights)


def _policy_of(model: Any) -> Any:
    """The policy, without `torch.compile` around it."""
    return getattr(model.policy, "_orig_mod", model.policy)


def policy_arguments(model: Any) -> dict[str, Any]:
    """What the algorithm makes its policy with, but for spaces and learning rate."""
    return dict(model.policy_kwargs) | ({"use_sde": True} if model.use_sde else {})


def build(
    algorithm: str,
    policy_class: Any,
    arguments: Mapping[str, Any],
    both_spaces: tuple[spaces.Space[Any], spaces.Space[Any]],
    weights: Any,
) -> Any:
    """The algorithm around a policy with these weights.

    Raises:
        ValueError: weights that are no finite tensors by name, or not those of a policy of that class and arguments.
    """
    problem = _problem_of_weights(weights)
    if problem:
        raise ValueError(f"its policy's weights {problem}")
    kind = find_algorithm(algorithm)
    # ARS has no gradient, and so no learning rate that its policy would know.
    schedule = () if algorithm == "ARS" else (_no_schedule,)
    numbers = sum(tensor.numel() for tensor in weights.values())
    model = kind(policy_class, None, device="cpu", policy_kwargs=dict(arguments), _init_setup_model=False)
    try:
        # A policy is born with random weights: not from anybody's stream, nor larger than those that it will get.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]), torch.device("cpu"), _Budget(numbers):
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


def _no_schedule(remaining: float) -> float:
    """A learning rate for what learns no more."""
    return 0.0


class _Budget(TorchFunctionMode):
    """Stops whoever makes many more numbers than a file holds: its layers' sizes are what a stranger wrote."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = 4 * numbers + 1_000_000

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            size = args[0] if args and isinstance(args[0], Sequence) else args
            self.left -= math.prod(int(length) for length in size if isinstance(length, int)) + 1
            if self.left < 0:
                raise ValueError("its policy is described as much larger than its weights are")
        return func(*args, **(kwargs or {}))


def _problem_of_weights(weights: Any) -> str | None:
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


def _known_classes(algorithm: str, own: Mapping[str, type]) -> dict[str, type]:
    """Everything but PyTorch's, by name. Two policies of different algorithms may share a name, so it takes one."""
    found: dict[str, type] = {kind.__name__: kind for kind in find_algorithm(algorithm).policy_aliases.values()}
    for module, names in CLASSES.items():
        try:
            found |= {name: getattr(importlib.import_module(module), name) for name in names}
        except ImportError:  # of sb3-contrib, which not everyone has
            continue
    return {**found, **own}


def _class_name(argument: str, kind: type, algorithm: str, own: Mapping[str, type]) -> str:
    for module in TORCH:
        if getattr(importlib.import_module(module), kind.__name__, None) is kind:
            return f"{module}.{kind.__name__}"
    for name, known in _known_classes(algorithm, own).items():
        if known is kind:
            return name
    raise ValueError(
        f"{argument}: {kind.__module__}.{kind.__qualname__} is none of the classes of torch, stable_baselines3, "
        f"sb3_contrib and gym_reml. Name it when saving and loading: classes={{{kind.__name__!r}: {kind.__name__}}}"
    )


def _find_class(name: Any, algorithm: str, own: Mapping[str, type]) -> type:
    if isinstance(name, str):
        module, _, last = name.rpartition(".")
        if module in TORCH:
            kind = getattr(importlib.import_module(module), last, None)
            if isinstance(kind, type) and issubclass(kind, TORCH[module]):
                return kind
        known = _known_classes(algorithm, own)
        if name in known:
            return known[name]
    raise ValueError(
        f"its policy's class {name!r} is none of those of torch, stable_baselines3, sb3_contrib and gym_reml. If you "
        f"have it, hand it in: classes={{{name!r}: ...}}"
    )


def _encode(argument: str, value: Any, algorithm: str, own: Mapping[str, type]) -> Any:
    if isinstance(value, type):
        return {"class": _class_name(argument, value, algorithm, own)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        pairs = value.items()
        return {"dict": {key: _encode(f"{argument}[{key!r}]", part, algorithm, own) for key, part in pairs}}
    if isinstance(value, list | tuple):
        return [_encode(argument, part, algorithm, own) for part in value]
    return to_plain(argument, value)


def _decode(value: Any, algorithm: str, own: Mapping[str, type]) -> Any:
    if isinstance(value, list):
        return [_decode(part, algorithm, own) for part in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"class"}:
        return _find_class(value["class"], algorithm, own)
    if set(value) != {"dict"} or not isinstance(value["dict"], dict):
        raise ValueError(f"its policy has an argument {value!r}")
    return {name: _decode(part, algorithm, own) for name, part in value["dict"].items()}


def to_plain(argument: str, value: Any) -> Any:
    """The value as JSON has it: numbers and arrays of numpy and torch, tuples and paths become plain ones.

    Raises:
        ValueError: a number that is not finite.
        TypeError: anything else; both name the argument.
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
    """A space as JSON-able data; a ValueError if it is none of those that SB3 has policies for."""
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
    """The space that `encode_space` described, or a ValueError."""
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
    except Exception as error:  # gymnasium asserts, numpy raises this and that
        raise ValueError(f"its policy has a space {str(content)[:100]} ({error})") from error
    raise ValueError(f"its policy has a space {str(content)[:100]}")


def _limits(values: np.ndarray[Any, Any]) -> Any:
    """One number where all are the same; infinities as texts, because JSON has none."""

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return [plain(one) for one in part]
        return part if math.isfinite(part) else str(part)

    alike = values.size > 0 and bool((values == values.flat[0]).all())
    return plain(values.flat[0].item() if alike else values.tolist())


def _names(names: Any) -> str:
    return ", ".join(sorted(map(repr, names))) if isinstance(names, dict | set) else type(names).__name__

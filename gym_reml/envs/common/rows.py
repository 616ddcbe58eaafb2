"""A native vector environment seen row by row, for adapters to libraries whose environments are single ones."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gymnasium.envs.registration import EnvSpec

import gym_reml
from gym_reml.envs.common.vector import ProcessVectorEnv, make_native
from gym_reml.envs.common.versions import AutoresetMode

VECTOR_ARGUMENTS = ("num_envs", "autoreset_mode", "vectorization_mode", "output")
"""Arguments that only vector environments have."""

FIXED = ("action_space", "observation_space", "metadata", "spec", "render_mode")
"""Attributes that cannot be set."""

NOT_OF_ROWS = (
    *("num_envs", "single_action_space", "single_observation_space", "autoreset_mode", "output"),
    *("closed", "unwrapped", "np_random", "np_random_seed"),
)
"""Attributes of the vector environment as a whole, which no row has."""


def make_rows(
    env_id: Any,
    num_envs: int,
    *,
    instead: str,
    arguments: Mapping[str, Any],
    mode: AutoresetMode = AutoresetMode.SAME_STEP,
    output: str = "numpy",
) -> ProcessVectorEnv:
    """Makes the native vector environment of any id of this package, or of one like them; see `make_native`."""
    return make_native(
        env_id,
        num_envs,
        kind=ProcessVectorEnv,
        known=gym_reml.REGISTRATIONS,
        instead=instead,
        arguments=arguments,
        mode=mode,
        output=output,
    )


def infos_of_rows(env: ProcessVectorEnv, info: dict[str, Any]) -> list[dict[str, Any]]:
    """A vector info as each row's own, as a single environment would return it."""
    # Rows without an entry have no info: in a partial reset, or of a last step in the middle of an episode.
    return [env._format_info(row) if row else row for row in _split(info, env.num_envs)]


def _split(info: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A vector info as a list of infos, one for each row, with the entries that its masks mark as present."""
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, values in info.items():
        if name.startswith("_") or name in ("final_obs", "final_info"):
            continue
        if isinstance(values, dict):
            column: Any = _split(values, count)
        else:
            column = values.tolist() if values.ndim == 1 else values
        for row, value, present in zip(rows, column, info[f"_{name}"].tolist(), strict=True):
            if present:
                row[name] = value
    return rows


def attribute_of_row(env: ProcessVectorEnv, name: str, row: int) -> Any:
    """The attribute as a single environment would have it; rows may share one object.

    Raises:
        AttributeError: there is no such attribute, or only the vector environment as a whole has it.
    """
    if name in ("action_space", "observation_space"):
        return getattr(env, f"single_{name}")
    if name == "metadata":
        return {key: value for key, value in env.metadata.items() if key != "autoreset_mode"}
    if name == "spec":
        return _single_spec(env.spec)
    if name in NOT_OF_ROWS or name.startswith("_"):
        raise AttributeError(f"{name!r}: belongs to the vector environment, not to its rows; see `env.{name}`")
    value = getattr(env, name)
    return partial(_call_for_row, env, name, row) if inspect.ismethod(value) else value


def set_attribute(env: ProcessVectorEnv, name: str, value: Any) -> None:
    """Sets an attribute, which all rows share.

    Raises:
        ValueError: an attribute that cannot be set.
    """
    if name in FIXED or name in NOT_OF_ROWS or inspect.ismethod(getattr(env, name, None)):
        raise ValueError(f"attr_name={name!r}: cannot be set")
    setattr(env, name, value)


def call_for_rows(env: ProcessVectorEnv, name: str, rows: Sequence[int], *args: Any, **kwargs: Any) -> list[Any]:
    """Calls a method that is marked by `gym_reml.envs.common.view.for_rows`; one result for each row.

    Raises:
        AttributeError: there is no such method.
        ValueError: the method is not marked: it acts on all rows at once.
    """
    method = getattr(env, name)
    takes_row = getattr(method, "takes_row", None)
    if takes_row is None:
        choices = [repr(other) for other in dir(type(env)) if hasattr(getattr(type(env), other), "takes_row")]
        raise ValueError(
            f"method_name={name!r}: cannot be called for single rows, which are computed together; "
            f"choices: {', '.join(choices)}"
        )
    if takes_row:
        return [method(*args, row=row, **kwargs) for row in rows]
    results = method(*args, **kwargs)
    return [None if results is None else results[row] for row in rows]


def _call_for_row(env: ProcessVectorEnv, name: str, row: int, *args: Any, **kwargs: Any) -> Any:
    return call_for_rows(env, name, [row], *args, **kwargs)[0]


def _single_spec(spec: EnvSpec | None) -> EnvSpec | None:
    """The `EnvSpec` of a single environment equal to each row."""
    if spec is None:
        return None
    kwargs = {name: value for name, value in spec.kwargs.items() if name not in VECTOR_ARGUMENTS}
    # gym.make applies the limit by a wrapper.
    limit = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    return dataclasses.replace(spec, kwargs=kwargs, max_episode_steps=limit)

"""What is known of a registered environment: from its registration, its docstring and an instance of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import gymnasium as gym

from gym_reml import REGISTRATIONS


class Argument(NamedTuple):
    """An argument of an environment; of the id, where that sets another default."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Description:
    """A registered environment.

    Attributes:
        env_id: its id.
        summary: what it is, one line.
        decision: what its agent decides, by name, with the number of options of each choice; of trials the action.
        spaces: action and observation space.
        arguments: with defaults and meaning, in the order of its docstring.
        made_by: how it is made: one alone, many at once, for another library.
        siblings: the other ids of the same environment, which differ in the encoding of actions.
        page: its page in docs/environments.
    """

    env_id: str
    summary: str
    decision: str
    spaces: Mapping[str, str]
    arguments: tuple[Argument, ...]
    made_by: Mapping[str, str]
    siblings: tuple[str, ...]
    page: str


def describe(env_id: str) -> Description:
    """The description of a registered id.

    Raises:
        ValueError: no such id; the message lists the choices.
    """
    env_id = env_id.removeprefix("gym_reml:")
    if env_id not in REGISTRATIONS:
        raise ValueError(f"{env_id!r}: no environment of this package; choices: {', '.join(REGISTRATIONS)}")
    row = REGISTRATIONS[env_id]
    module, _, name = row.entry_point.partition(":")
    docstring = inspect.getdoc(getattr(import_module(module), name)) or ""
    env = gym.make(env_id)
    decision = getattr(env.unwrapped, "decision", None)
    spaces = {"actions": str(env.action_space), "observations": str(env.observation_space)}
    env.close()
    made_by = {
        "one": f'gymnasium.make("gym_reml:{env_id}")',
        "many, native": f'gymnasium.make_vec("gym_reml:{env_id}", num_envs=n)',
        "Stable-Baselines3": f'gym_reml.sb3.make_vec_env("{env_id}", n_envs=n)',
    }
    return Description(
        env_id,
        docstring.partition("\n")[0],
        spaces["actions"] if decision is None else _in_words(decision),
        spaces,
        tuple(_arguments(docstring, row.kwargs)),
        made_by,
        tuple(other for other, its in REGISTRATIONS.items() if its.entry_point == row.entry_point and other != env_id),
        f"docs/environments/{module.rpartition('.')[2]}.md",
    )


def _in_words(decision: Any) -> str:
    """A decision's names, with the options of choices."""
    choices = [f"{name} (of {options})" for name, options in zip(decision.choice_names, decision.choices, strict=True)]
    return ", ".join([*choices, *decision.number_names])


def _arguments(docstring: str, kwargs: Mapping[str, Any]) -> list[Argument]:
    """The table of arguments of a docstring, with the defaults that a registration sets."""
    section = docstring.partition("## Arguments\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", section, re.MULTILINE)
    meanings = [re.sub("see (above|below)", "see its page", meaning.replace("`", "")) for *_, meaning in found]
    return [
        Argument(name, repr(kwargs[name]) if name in kwargs else default, meaning)
        for (name, default, _), meaning in zip(found, meanings, strict=True)
    ]


def competitors(env_id: str) -> dict[str, tuple[str, ...]]:
    """Who is compared on an environment: the entrants by the names of the benchmarks that `compare --family` takes.

    Raises:
        ModuleNotFoundError: the extra `agents` is not installed.
    """
    from ..comparison.benchmarks import BENCHMARKS
    from ..comparison.few_shot import FewShotBenchmark
    from ..comparison.trials import TrialBenchmark
    from ..comparison.tuning import TuningBenchmark

    def played(benchmark: Any) -> str | None:
        if isinstance(benchmark, FewShotBenchmark):
            return "NetBuild-v0"
        if isinstance(benchmark, TrialBenchmark):
            return benchmark.trained[0].env_id
        return benchmark.setting.env_id if isinstance(benchmark, TuningBenchmark) else None

    own = REGISTRATIONS[env_id].entry_point
    ids = {name: played(benchmark) for name, benchmark in BENCHMARKS.items()}
    return {
        name: BENCHMARKS[name].learners or tuple(BENCHMARKS[name].choices)
        for name, played_id in ids.items()
        if played_id is not None and REGISTRATIONS[played_id].entry_point == own
    }

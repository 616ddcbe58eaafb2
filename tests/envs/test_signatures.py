"""Constructors have their real arguments in their signature, and docstrings document them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import gym_reml
from gym_reml.envs.common.arguments import argument_names
from gym_reml.envs.training.setup import make_setup

SINGLE = sorted({row.entry_point for row in gym_reml.REGISTRATIONS.values()})
VECTOR_ONLY = {"num_envs", "autoreset_mode", "max_episode_steps", "output"}
SECTIONS = (
    *("Description", "Action space", "Observation space", "Rewards", "Starting state", "Episode end"),
    *("Information", "Arguments", "Version history"),
)

every_environment = pytest.mark.parametrize("place", SINGLE, ids=lambda place: place.partition(":")[2])


def load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The names of the parameters, none of which collects others."""
    found = dict(inspect.signature(function).parameters)
    kinds = {parameter.kind for parameter in found.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return found


@every_environment
def test_signatures_are_real(place: str) -> None:
    for cls in (load(place), load(place.removesuffix("Env") + "VectorEnv")):
        found = parameters(cls)
        assert all(parameter.default is not inspect.Parameter.empty for parameter in found.values())
        positional = [name for name, one in found.items() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert positional == (["render_mode"] if cls is load(place) else ["num_envs", "autoreset_mode"])
        assert set(get_type_hints(cls.__init__)) == {*found, "return"}


@every_environment
def test_vectors_take_what_single_environments_take(place: str) -> None:
    single, vector = load(place), load(place.removesuffix("Env") + "VectorEnv")
    ours = {name: (one.default, one.annotation) for name, one in parameters(vector).items() if name not in VECTOR_ONLY}
    theirs = {name: (one.default, one.annotation) for name, one in parameters(single).items()}
    assert ours == theirs
    assert list(argument_names(vector.__init__))[: len(theirs)] == list(argument_names(single.__init__))


def test_net_build_takes_what_its_process_takes() -> None:
    ours = parameters(load("gym_reml.envs.net_build:NetBuildEnv"))
    theirs = parameters(make_setup)
    (count, *names) = theirs
    assert (count, list(ours)) == ("count", ["render_mode", *names])
    assert all(ours[name].default == theirs[name].default for name in names)
    assert all(ours[name].annotation == theirs[name].annotation for name in names)


@every_environment
def test_the_table_of_arguments_is_the_signature(place: str) -> None:
    cls = load(place)
    text = (inspect.getdoc(cls) or "").partition("## Arguments\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^|]+)` \| .+ \|$", text, flags=re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| `", text, flags=re.MULTILINE)), "a default is written as Python writes it"
    assert [name for name, _ in rows] == list(argument_names(cls.__init__))
    defaults = {name: one.default for name, one in parameters(cls).items()}
    assert {name: repr(defaults[name]).replace("'", '"') for name, _ in rows} == dict(rows)


@every_environment
def test_docstrings_have_the_sections_of_gymnasiums_in_their_order(place: str) -> None:
    text = inspect.getdoc(load(place)) or ""
    found = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert [section for section in found if section in SECTIONS] == list(SECTIONS)
    assert found[: SECTIONS.index("Information")] == list(SECTIONS[: SECTIONS.index("Information")])

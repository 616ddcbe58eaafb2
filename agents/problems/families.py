"""How commands name a family of tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from inspect import isabstract, isclass, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gym_reml.tasks import FAMILIES, make_family
from gym_reml.tasks.base import TaskFamily

from .own import find_own, is_own, names_or_own
from .recipes import Recipe, recipe_for

if TYPE_CHECKING:
    Family = str
    FamilyOrNone = str | None
else:
    # The command line lists the choices, whatever they are by now.
    Family = FamilyOrNone = names_or_own(str | None, FAMILIES, "MODULE:FAMILY")


@dataclass(frozen=True)
class FamilyChoice:
    """A configuration that names a family of tasks."""

    family: Family = "sinusoid"
    """family of tasks; MODULE:FAMILY is your own: a TaskFamily in a module here or installed, or what makes one"""
    family_kwargs: str = "{}"
    """further arguments of the family, as JSON, such as '{"domains": ["identity", "inverted"]}'"""
    shots: int | None = None
    """support points of a task (per class where there are classes)"""


def family_of(choice: FamilyChoice) -> TaskFamily:
    """The family of a configuration, with its number of shots.

    Without a number, families of the package have their recipe's, and others their own.
    """
    family = named_family(choice.family, parse_arguments(choice.family_kwargs))
    if choice.shots is not None:
        return family.replace(shots=choice.shots)
    return family if is_own(choice.family) else family.replace(shots=recipe_for(family).shots)


def implied_by_family(choice: FamilyChoice) -> tuple[Recipe, int | tuple[int, int]]:
    """The recipe of a configuration's family, and the default number of shots.

    Of a family of the package whose data is not there, or whose arguments are wrong, what its class implies.
    """
    try:
        family = family_of(replace(choice, shots=None))
    except (ValueError, OSError):
        if is_own(choice.family):
            raise
        recipe = recipe_for(FAMILIES[choice.family])
        return recipe, recipe.shots
    return recipe_for(family), family.shots


def named_family(name: str, arguments: dict[str, Any]) -> TaskFamily:
    """The family of a name, or of MODULE:FAMILY, for training.

    Raises:
        ValueError: something else than a family; the message says what was found, or what the choices are.
        ImportError: a module that is not there, or that imports one that is not there.
    """
    if not is_own(name):
        return make_family(name, **arguments)
    thing = find_own("--family", name, _is_family, "families")
    if not isinstance(thing, TaskFamily):
        if not callable(thing) or isabstract(thing):
            raise ValueError(f"--family {name}: {thing!r} is no TaskFamily, and nothing that makes one")
        try:
            signature(thing).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"--family {name}: does not take --family-kwargs {arguments} ({error})") from error
        thing, arguments = thing(**arguments), {}
        if not isinstance(thing, TaskFamily):
            raise ValueError(f"--family {name}: {thing!r} is no TaskFamily")
    if not isinstance(getattr(thing, "name", None), str):
        raise ValueError(f"--family {name}: {type(thing).__name__} lacks the class attribute `name`, a text")
    return make_family(thing, **arguments, split="train")


def check_own(name: str, folder: Path) -> None:
    """Lets a file name code of the user's alone: whoever sent it must not choose what is imported or called here.

    Args:
        name: a family, or MODULE:FAMILY.
        folder: of the run that names it.

    Raises:
        ValueError: a module that does not lie in the working directory, or lies in the run's; or something in it that
            is neither a family nor defined there.
    """
    if not is_own(name):
        return
    top = name.partition(":")[0].partition(".")[0]
    found = PathFinder.find_spec(top, [str(Path.cwd())])
    places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
    sent = not any(places) or any(Path(place).resolve().is_relative_to(folder.resolve()) for place in places if place)
    if not sent:
        thing = find_own("--family", name, _is_family, "families")
        home = getattr(thing, "__module__", None) or ""
        sent = not _is_family(thing) and home.partition(".")[0] != top
    if sent:
        raise ValueError(
            f"{folder}: its config.json names code, {name}, which does not lie in the working directory; if you trust "
            f"it, say so by --family {name}"
        )


def _is_family(value: Any) -> bool:
    return isinstance(value, TaskFamily) or (isclass(value) and issubclass(value, TaskFamily) and not isabstract(value))


def parse_arguments(text: str) -> dict[str, Any]:
    """The arguments that a --family-kwargs holds, or a ValueError that says what is wrong with it."""
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--family-kwargs {text!r}: no JSON ({error})") from error
    if not isinstance(arguments, dict):
        raise ValueError(f"--family-kwargs {text!r}: must be a JSON object")
    for name, instead in (("split", "training and evaluation choose it themselves"), ("shots", "use --shots")):
        if name in arguments:
            raise ValueError(f"--family-kwargs: {name!r} cannot be given here; {instead}")
    return arguments

"""What users name of their own on the command line: MODULE:NAME, an attribute of a module here or installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec


def is_own(name: str) -> bool:
    """Whether it is MODULE:NAME."""
    return ":" in name


def names_or_own(kind: Any, names: Iterable[str], own: str) -> Any:
    """How a command line takes one of these names, or MODULE:NAME.

    Args:
        kind: the type, `str` or `str | None`.
        names: the choices.
        own: what stands for MODULE:NAME in messages, such as "MODULE:FAMILY".
    """
    names = tuple(names)

    def read(words: list[str]) -> str:
        if not is_own(words[0]) and words[0] not in names:
            raise ValueError(f"{words[0]!r}: must be one of {', '.join(names)}, or {own}")
        return words[0]

    return Annotated[
        kind,
        PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{{{','.join(names)}}}|{own}",
            instance_from_str=read,
            is_instance=lambda value: value is None or isinstance(value, str),
            str_from_instance=lambda value: [str(value)],
        ),
    ]


def find_own(option: str, name: str, fits: Callable[[Any], bool], what: str) -> Any:
    """The attribute of a module that MODULE:NAME names. Importing the module runs its code.

    Args:
        option: of the command, for messages.
        name: MODULE:NAME.
        fits: whether an attribute is of the kind that is meant, to list what is there instead.
        what: the kind in the plural, such as "families".

    Raises:
        ValueError: no such attribute, or no such name.
        ImportError: a module that is not there, or that imports one that is not there.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise ValueError(f"{option} {name}: must be MODULE:NAME, such as my_module:my_name")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ImportError(f"{option} {name}: {module_name} needs a module that is missing ({error})") from error
        raise ImportError(f"{option} {name}: no module {error.name!r}, neither in {folder} nor installed") from error
    try:
        return attrgetter(attribute)(module)
    except AttributeError as error:
        found = [key for key, value in vars(module).items() if fits(value)]
        there = f"; {what} there: {', '.join(found)}" if found else ""
        raise ValueError(f"{option} {name}: {module_name} has no {attribute!r}{there}") from error

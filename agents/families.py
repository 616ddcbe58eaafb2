"""How commands name a family of tasks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gym_reml.tasks import FAMILIES, make_family
from gym_reml.tasks.base import TaskFamily

from .recipes import recipe_for

if TYPE_CHECKING:
    Family = str
else:
    # The command line lists the choices, whatever they are by now.
    Family = Literal[tuple(FAMILIES)]


class Choice(Protocol):
    """A configuration that names a family."""

    @property
    def family(self) -> str:
        """Its name."""
        ...

    @property
    def family_kwargs(self) -> str:
        """Its further arguments, as JSON."""
        ...

    @property
    def shots(self) -> int | None:
        """Support points of a task, None for the recipe's."""
        ...


def family_of(choice: Choice) -> TaskFamily:
    """The family that a configuration names."""
    family = make_family(choice.family, **parse_arguments(choice.family_kwargs))
    return family.replace(shots=recipe_for(family).shots if choice.shots is None else choice.shots)


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

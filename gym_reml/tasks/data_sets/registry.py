"""The table of distributions of data sets, and those made by name. A new one is a file and an entry of `DATA_SETS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gym_reml.tasks.data_sets.base import DataSets
from gym_reml.tasks.data_sets.characters import FewCharacters
from gym_reml.tasks.data_sets.glyphs import Glyphs
from gym_reml.tasks.data_sets.pictures import Pictures
from gym_reml.tasks.data_sets.synthetic import Clusters

DATA_SETS: dict[str, tuple[type[DataSets], dict[str, Any]]] = {
    Clusters.name: (Clusters, {}),
    Glyphs.name: (Glyphs, {}),
    FewCharacters.name: (FewCharacters, {}),
    "fashion_mnist": (Pictures, {"collection": "fashion_mnist"}),
    # Smaller collections.
    "digits": (Pictures, {"collection": "digits", "side": 8, "examples": (50, 150), "held_out": 100}),
    "sign_digits": (Pictures, {"collection": "sign_digits", "examples": (50, 150), "held_out": 120}),
}
"""Every named distribution: its class, a dataclass, and the fields that differ from the class's defaults."""


def make_data_sets(family: str | DataSets, defaults: Mapping[str, Any] | None = None, /, **arguments: Any) -> DataSets:
    """Creates a distribution of data sets by name, or a copy of one with changed fields.

    Args:
        family: a key of `DATA_SETS`, or a distribution.
        defaults: fields of a distribution by name that are neither among the arguments nor in the table; those that it
            does not have are left out.
        **arguments: fields of the distribution.

    Raises:
        ValueError: an unknown name or argument (the message lists the choices), or an invalid value.
    """
    kind: Any
    preset: dict[str, Any] = {}
    if isinstance(family, DataSets):
        kind = type(family)
        if not dataclasses.is_dataclass(kind):
            if arguments:
                raise ValueError(f"family_kwargs: {kind.__name__} is no dataclass, whose fields could be changed")
            return family
    elif isinstance(family, str) and family in DATA_SETS:
        kind, preset = DATA_SETS[family]
    else:
        raise ValueError(f"family={family!r}: must be one of {', '.join(map(repr, DATA_SETS))}, or a DataSets")
    choices = [field.name for field in dataclasses.fields(kind)]
    for argument in arguments:
        if argument not in choices:
            raise ValueError(f"family_kwargs: {kind.__name__} takes no {argument!r}; choices: {', '.join(choices)}")
    # Lists come from JSON, as do specifications of environments.
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    if isinstance(family, DataSets):
        return dataclasses.replace(family, **arguments)  # type: ignore[type-var]
    own = {name: value for name, value in (defaults or {}).items() if name in choices}
    return kind(**(own | preset | arguments))

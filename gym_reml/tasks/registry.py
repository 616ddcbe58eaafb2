"""The table of task families, and families made by name. A new family is a file and an entry of `FAMILIES`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.functions.absolute import Absolute
from gym_reml.tasks.functions.bump import Bump
from gym_reml.tasks.functions.cubic import Cubic
from gym_reml.tasks.functions.linear import Linear
from gym_reml.tasks.functions.network import Network
from gym_reml.tasks.functions.quadratic import Quadratic
from gym_reml.tasks.functions.ramp import Ramp
from gym_reml.tasks.functions.sawtooth import Sawtooth
from gym_reml.tasks.functions.sinusoid import Sinusoid
from gym_reml.tasks.functions.step import Step
from gym_reml.tasks.functions.two_sinusoids import TwoSinusoids
from gym_reml.tasks.images.few_shot import Digits, FashionMNIST, SignDigits
from gym_reml.tasks.images.omniglot import Omniglot
from gym_reml.tasks.mixture import Mixture
from gym_reml.tasks.policies.mujoco import AntDirection, HalfCheetahDirection, HalfCheetahVelocity
from gym_reml.tasks.policies.navigation import Navigation

FAMILIES: dict[str, type[TaskFamily]] = {
    family.name: family
    for family in (
        *(Sinusoid, Linear, Quadratic, Step, Sawtooth),
        *(Absolute, Bump, Cubic, Network, Ramp, TwoSinusoids),
        *(Mixture, Omniglot, FashionMNIST, Digits, SignDigits),
        *(Navigation, HalfCheetahDirection, HalfCheetahVelocity, AntDirection),
    )
}
"""Every named family, by name."""


def make_family(family: str | TaskFamily, **arguments: Any) -> TaskFamily:
    """Creates a family by name, or a copy of a family with changed arguments.

    Args:
        family: a key of `FAMILIES`, or a family.
        **arguments: fields of the family. A mixture's `members` may be families, names, or dicts with a "name" and
            arguments.

    Raises:
        ValueError: an unknown name or argument (the message lists the choices), or an invalid value.
    """
    if "members" in arguments:
        members = arguments["members"]
        if isinstance(members, str) or not isinstance(members, Sequence):
            raise ValueError(f"members={members!r}: must be a list of families")
        common: dict[str, Any] = {name: arguments[name] for name in ("shots", "queries", "split") if name in arguments}
        arguments["members"] = tuple(_make_member(member, common) for member in members)
    if isinstance(family, TaskFamily):
        kind: type[TaskFamily] = type(family)
    elif isinstance(family, str) and family in FAMILIES:
        kind = FAMILIES[family]
    else:
        raise ValueError(f"family={family!r}: must be one of {', '.join(map(repr, FAMILIES))}, or a TaskFamily")
    choices = [field.name for field in dataclasses.fields(kind)]
    for argument in arguments:
        if argument not in choices:
            raise ValueError(f"family_kwargs: {kind.name!r} takes no {argument!r}; choices: {', '.join(choices)}")
    return family.replace(**arguments) if isinstance(family, TaskFamily) else kind(**arguments)


def _make_member(member: str | dict[str, Any] | TaskFamily, common: dict[str, Any]) -> TaskFamily:
    """A mixture's member, made with the mixture's `common` arguments unless it is a family already."""
    if isinstance(member, TaskFamily):
        return member
    arguments: dict[str, Any] = dict(member) if isinstance(member, dict) else {"name": member}
    name: Any = arguments.pop("name", None)
    return make_family(name, **(arguments | common))

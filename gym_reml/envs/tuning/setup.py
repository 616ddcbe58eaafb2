"""Construction of a process with an agent at the dials, from keyword arguments: checks and defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from gym_reml.checks import check_integer
from gym_reml.decisions.losses import Loss
from gym_reml.envs.common.arguments import argument_names
from gym_reml.envs.common.devices import find_device
from gym_reml.mdp.augmentation import AugmentProcess
from gym_reml.mdp.loss_alignment import LossProcess
from gym_reml.mdp.rule_search import RuleProcess
from gym_reml.mdp.runs import MakeNetwork, NetworkProcess
from gym_reml.mdp.tuning import TuningProcess
from gym_reml.spaces import ActionEncoding, make_encoding
from gym_reml.streams import check_split
from gym_reml.tasks.data_sets.base import DataSets, given_data
from gym_reml.tasks.data_sets.registry import make_data_sets


class TuningSetup(NamedTuple):
    """The parts of a single or vector environment.

    Attributes:
        process: of n rows.
        encoding: of the actions.
        observation: form of the observations, see `make_observation_space`.
    """

    process: NetworkProcess
    encoding: ActionEncoding
    observation: str = "flat"


def make_tuning(
    count: int,
    *,
    module: MakeNetwork | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    batch_size: int | None = None,
    family: str | DataSets | None = None,
    family_kwargs: Mapping[str, Any] | None = None,
    optimizer: str = "momentum",
    dials: Sequence[str] = ("step_size",),
    min_step: float | None = None,
    max_step: float | None = None,
    step_sizes: str = "single",
    horizon: int = 40,
    updates: int = 25,
    observation: str = "flat",
    device: str | torch.device = "cpu",
    action: str = "box",
    step_bins: int = 13,
) -> TuningSetup:
    """Makes a process of `count` rows.

    Args:
        count: number of rows, n; the other arguments are those of `NetTuneEnv`.

    Raises:
        ValueError: an invalid value; the message names the argument and the choices.
    """
    check_integer("step_bins", step_bins)
    data_sets = _data_sets(train, validation, test, batch_size=batch_size, family=family, family_kwargs=family_kwargs)
    process = TuningProcess(
        count,
        data_sets,
        module=module,
        optimizer=optimizer,
        dials=dials,
        step_range=(min_step, max_step),
        step_sizes=step_sizes,
        horizon=horizon,
        updates=updates,
        device=find_device(device),
    )
    return TuningSetup(process, make_encoding(action, process.decision, step_bins=step_bins), observation)


VARIED: dict[str, Any] = {
    "imbalances": (1.0, 10.0, 50.0),
    "label_noises": (0.0, 0.2, 0.4),
    "examples": (400,),
    "widths": (64,),
    "batch_sizes": (32,),
    "input_scales": (1.0,),
}
"""Fields of families by name, where losses are decided."""


def make_loss_alignment(
    count: int,
    *,
    losses: Sequence[str | Loss] = ("logit_adjustment", "focal", "smoothing", "trust"),
    metric: str = "balanced_accuracy",
    reward: str = "gain",
    module: MakeNetwork | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    batch_size: int | None = None,
    family: str | DataSets | None = None,
    family_kwargs: Mapping[str, Any] | None = None,
    optimizer: str = "momentum",
    step_size: float = 0.05,
    horizon: int = 20,
    updates: int = 15,
    observation: str = "flat",
    device: str | torch.device = "cpu",
    action: str = "box",
    step_bins: int = 3,
) -> TuningSetup:
    """Makes a process of `count` rows.

    Args:
        count: number of rows, n; the other arguments are those of `NetLossEnv`.

    Raises:
        ValueError: an invalid value; the message names the argument and the choices.
    """
    check_integer("step_bins", step_bins)
    process = LossProcess(
        count,
        _data_sets(
            train,
            validation,
            test,
            batch_size=batch_size,
            family=family,
            family_kwargs=family_kwargs,
            varied=VARIED,
        ),
        losses=losses,
        metric=metric,
        reward=reward,
        module=module,
        optimizer=optimizer,
        step_size=step_size,
        horizon=horizon,
        updates=updates,
        device=find_device(device),
    )
    return TuningSetup(process, make_encoding(action, process.decision, step_bins=step_bins), observation)


ALIKE: dict[str, Any] = {
    "examples": (400,),
    "widths": (16,),
    "batch_sizes": (32,),
    "label_noises": (0.0,),
    "input_scales": (1.0,),
}
"""Fields of families by name, where update rules are searched for."""


def make_rule_search(
    count: int,
    *,
    module: MakeNetwork | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    batch_size: int | None = None,
    family: str | DataSets | None = None,
    family_kwargs: Mapping[str, Any] | None = None,
    tasks: int = 1,
    rates: Sequence[float] = (0.01, 0.1, 1.0),
    horizon: int = 3,
    updates: int = 100,
    device: str | torch.device = "cpu",
    action: str = "multidiscrete",
) -> TuningSetup:
    """Makes a process of `count` rows.

    Args:
        count: number of rows, n; the other arguments are those of `NetRuleEnv`.

    Raises:
        ValueError: an invalid value; the message names the argument and the choices.
    """
    data_sets = _data_sets(
        train, validation, test, batch_size=batch_size, family=family, family_kwargs=family_kwargs, varied=ALIKE
    )
    process = RuleProcess(
        count,
        data_sets,
        module=module,
        tasks=tasks,
        rates=rates,
        horizon=horizon,
        updates=updates,
        device=find_device(device),
    )
    return TuningSetup(process, make_encoding(action, process.decision))


FEW_IMAGES: dict[str, Any] = {
    "imbalances": (1.0,),
    "label_noises": (0.0,),
    "examples": (100,),
    "widths": (64,),
    "batch_sizes": (25,),
}
"""Fields of families by name, where augmentations are decided."""


def make_augmentation(
    count: int,
    *,
    reward: str = "final",
    module: MakeNetwork | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    batch_size: int | None = None,
    family: str | DataSets | None = None,
    family_kwargs: Mapping[str, Any] | None = None,
    optimizer: str = "momentum",
    step_size: float = 0.05,
    horizon: int = 10,
    updates: int = 120,
    device: str | torch.device = "cpu",
    action: str = "box",
    step_bins: int = 11,
) -> TuningSetup:
    """Makes a process of `count` rows.

    Args:
        count: number of rows, n; the other arguments are those of `NetAugmentEnv`.

    Raises:
        ValueError: an invalid value; the message names the argument and the choices.
    """
    check_integer("step_bins", step_bins)
    process = AugmentProcess(
        count,
        _data_sets(
            train,
            validation,
            test,
            batch_size=batch_size,
            family=family,
            family_kwargs=family_kwargs,
            varied=FEW_IMAGES,
            usual="glyphs",
        ),
        reward=reward,
        module=module,
        optimizer=optimizer,
        step_size=step_size,
        horizon=horizon,
        updates=updates,
        device=find_device(device),
    )
    return TuningSetup(process, make_encoding(action, process.decision, step_bins=step_bins))


def select_arguments(make: Callable[..., TuningSetup], names: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `make` among a function's local variables."""
    return {name: names[name] for name in argument_names(make)}


def _data_sets(
    train: Any,
    validation: Any,
    test: Any,
    *,
    batch_size: int | None,
    family: str | DataSets | None,
    family_kwargs: Mapping[str, Any] | None,
    varied: Mapping[str, Any] | None = None,
    usual: str = "clusters",
) -> DataSets:
    if family_kwargs is not None and not isinstance(family_kwargs, Mapping):
        raise ValueError(f"family_kwargs={family_kwargs!r}: must be a dict, or None")
    if train is not None:
        if family is not None or family_kwargs:
            raise ValueError(f"family={family!r}: must be None where train is given, which it would replace")
        return given_data(train, validation, test, batch_size=32 if batch_size is None else batch_size)
    for argument, value in (("validation", validation), ("test", test), ("batch_size", batch_size)):
        if value is not None:
            raise ValueError(f"{argument}: is given without train; a family draws its own")
    data_sets = make_data_sets(usual if family is None else family, varied, **(family_kwargs or {}))
    check_split(data_sets.split)
    return data_sets

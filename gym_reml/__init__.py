"""gym-reml: training a neural network as a reinforcement-learning environment.

Importing this package registers its environments with Gymnasium and loads nothing else. From then on, processes that
are forked from this one compute with one torch thread.
"""

import multiprocessing
import os
import sys
from importlib import import_module
from typing import Any, NamedTuple

from gymnasium.envs.registration import register

__version__ = "0.1.0"

__all__ = ["ENVIRONMENTS", "REGISTRATIONS", "TRIALS", "TUNERS", "__version__", "load"]


class Registration(NamedTuple):
    """How an id is registered with Gymnasium.

    Attributes:
        process: "training" where an episode builds and trains a network, "tuning" where it sets the dials of a training
            run, of its loss or of its augmentation, or writes its update rule, "trial" where it is several inner
            episodes.
        entry_point, vector_entry_point: "module:Class" of the single and of the vector environment.
        kwargs: arguments that both are constructed with.
    """

    process: str
    entry_point: str
    vector_entry_point: str
    kwargs: dict[str, Any]


def _registration(process: str, name: str, **kwargs: Any) -> Registration:
    """The registration of `gym_reml.envs.<name>Env` and `gym_reml.envs.<name>VectorEnv`."""
    return Registration(process, f"gym_reml.envs.{name}Env", f"gym_reml.envs.{name}VectorEnv", kwargs)


REGISTRATIONS = {
    "NetBuild-v0": _registration("training", "net_build:NetBuild", action="box"),
    "NetBuildMultiDiscrete-v0": _registration("training", "net_build:NetBuild", action="multidiscrete"),
    "NetBuildDiscrete-v0": _registration("training", "net_build:NetBuild", action="discrete"),
    "NetBuildHybrid-v0": _registration("training", "net_build:NetBuild", action="hybrid"),
    "NetTune-v0": _registration("tuning", "net_tune:NetTune", action="box"),
    "NetTuneMultiDiscrete-v0": _registration("tuning", "net_tune:NetTune", action="multidiscrete"),
    "NetTuneDiscrete-v0": _registration("tuning", "net_tune:NetTune", action="discrete"),
    "NetTuneHybrid-v0": _registration("tuning", "net_tune:NetTune", action="hybrid"),
    "NetLoss-v0": _registration("tuning", "net_loss:NetLoss", action="box"),
    "NetLossMultiDiscrete-v0": _registration("tuning", "net_loss:NetLoss", action="multidiscrete"),
    "NetLossDiscrete-v0": _registration("tuning", "net_loss:NetLoss", action="discrete"),
    "NetLossHybrid-v0": _registration("tuning", "net_loss:NetLoss", action="hybrid"),
    "NetRule-v0": _registration("tuning", "net_rule:NetRule", action="multidiscrete"),
    "NetRuleBox-v0": _registration("tuning", "net_rule:NetRule", action="box"),
    "NetRuleHybrid-v0": _registration("tuning", "net_rule:NetRule", action="hybrid"),
    "NetAugment-v0": _registration("tuning", "net_augment:NetAugment", action="box"),
    "NetAugmentMultiDiscrete-v0": _registration("tuning", "net_augment:NetAugment", action="multidiscrete"),
    "NetAugmentDiscrete-v0": _registration("tuning", "net_augment:NetAugment", action="discrete"),
    "NetAugmentHybrid-v0": _registration("tuning", "net_augment:NetAugment", action="hybrid"),
    "BanditTrial-v0": _registration("trial", "bandit_trial:BanditTrial"),
    "TabularTrial-v0": _registration("trial", "tabular_trial:TabularTrial"),
    "NavigationTrial-v0": _registration("trial", "navigation_trial:NavigationTrial"),
}
"""Every registered id, with how it is registered."""

ENVIRONMENTS = {env_id: row.kwargs["action"] for env_id, row in REGISTRATIONS.items() if row.process == "training"}
"""The ids of environments that build and train networks, each with its action encoding."""

TUNERS = {env_id: row.kwargs["action"] for env_id, row in REGISTRATIONS.items() if row.process == "tuning"}
"""The ids of environments whose agent decides how networks are trained, each with its encoding."""

TRIALS = tuple(env_id for env_id, row in REGISTRATIONS.items() if row.process == "trial")
"""The ids of environments whose episode is a trial."""


def load(name: str) -> Any:
    """A trained learner that the package ships.

    Args:
        name: FAMILY/NAME, such as "sinusoid/meta_sgd"; a wrong one lists the choices.

    Returns:
        A `gym_reml.evaluation.MetaLearner`; what is known of it is in `gym_reml.evaluation.trained.about(name)`.

    Raises:
        ValueError: no such learner; the message lists the choices.
        ImportError: its policy is one of Stable-Baselines3, which is not installed.
    """
    return import_module("gym_reml.evaluation.trained").load(name)


for _id, _row in REGISTRATIONS.items():
    register(_id, _row.entry_point, vector_entry_point=_row.vector_entry_point, kwargs=_row.kwargs)


def _use_one_thread() -> None:
    """Limits torch to one thread, as its DataLoader does in its own workers; called in a forked child.

    A fork copies only the thread that forks. OpenMP would wait forever for the parent's other threads.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _was_forked() -> bool:
    """Whether multiprocessing forked this process from another one."""
    if multiprocessing.parent_process() is None:
        return False
    # None means the default start method, which spawned children inherit.
    method = getattr(multiprocessing.current_process(), "_start_method", None)
    return (method or multiprocessing.get_start_method(allow_none=True)) == "fork"


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_use_one_thread)
    if _was_forked():
        # The parent had not imported this package, but may have used several threads.
        _use_one_thread()

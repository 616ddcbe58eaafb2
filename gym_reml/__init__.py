"""gym-reml: training a neural network as a reinforcement-learning environment.

Importing this package registers its environments with Gymnasium and loads nothing else. From then on, processes that
are forked from this one compute with one torch thread.
"""

import multiprocessing
import os
import sys
from typing import Any, NamedTuple

from gymnasium.envs.registration import register

__version__ = "0.1.0"

__all__ = ["ENVIRONMENTS", "REGISTRATIONS", "TRIALS", "__version__"]


class Registration(NamedTuple):
    """How an id is registered with Gymnasium.

    Attributes:
        process: "training" where an episode builds and trains a network, "trial" where it is several inner episodes.
        entry_point, vector_entry_point: where the single and the vector environment are.
        kwargs: their arguments.
    """

    process: str
    entry_point: str
    vector_entry_point: str
    kwargs: dict[str, Any]


def _registration(process: str, place: str, **kwargs: Any) -> Registration:
    """Of the environments `<place>Env` and `<place>VectorEnv` in `gym_reml.envs`."""
    return Registration(process, f"gym_reml.envs.{place}Env", f"gym_reml.envs.{place}VectorEnv", kwargs)


REGISTRATIONS = {
    "NetBuild-v0": _registration("training", "net_build:NetBuild", action="box"),
    "NetBuildMultiDiscrete-v0": _registration("training", "net_build:NetBuild", action="multidiscrete"),
    "NetBuildDiscrete-v0": _registration("training", "net_build:NetBuild", action="discrete"),
    "NetBuildHybrid-v0": _registration("training", "net_build:NetBuild", action="hybrid"),
    "BanditTrial-v0": _registration("trial", "bandit_trial:BanditTrial"),
    "TabularTrial-v0": _registration("trial", "tabular_trial:TabularTrial"),
    "NavigationTrial-v0": _registration("trial", "navigation_trial:NavigationTrial"),
}
"""Every registered id."""

ENVIRONMENTS = {env_id: row.kwargs["action"] for env_id, row in REGISTRATIONS.items() if row.process == "training"}
"""The ids of the training process, and the action encoding that each of them stands for."""

TRIALS = tuple(env_id for env_id, row in REGISTRATIONS.items() if row.process == "trial")
"""The ids of trials."""

for _id, _row in REGISTRATIONS.items():
    register(_id, _row.entry_point, vector_entry_point=_row.vector_entry_point, kwargs=_row.kwargs)


def _compute_alone() -> None:
    """In a forked child, leaves torch one thread to compute with.

    A fork copies the thread that forks and none of those that the parent had computed with. OpenMP counts on them all
    the same and waits for ever. torch's own DataLoader workers compute with one thread too.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _was_forked() -> bool:
    """Whether multiprocessing forked this process from another one."""
    if multiprocessing.parent_process() is None:
        return False
    # None stands for the default, which spawned children inherit.
    method = getattr(multiprocessing.current_process(), "_start_method", None)
    return (method or multiprocessing.get_start_method(allow_none=True)) == "fork"


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_compute_alone)
    if _was_forked():
        # The parent did not know this package yet, but may have computed.
        _compute_alone()

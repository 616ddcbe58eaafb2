"""gym-reml: training a neural network as a reinforcement-learning environment.

Importing this package registers its environments with Gymnasium and loads nothing else. From then on, processes that
are forked from this one compute with one torch thread.
"""

import multiprocessing
import os
import sys

from gymnasium.envs.registration import register

__version__ = "0.1.0"

__all__ = ["ENVIRONMENTS", "TRIALS", "__version__"]

ENVIRONMENTS = {
    "NetBuild-v0": "box",
    "NetBuildMultiDiscrete-v0": "multidiscrete",
    "NetBuildDiscrete-v0": "discrete",
    "NetBuildHybrid-v0": "hybrid",
}
"""The registered ids of the training process, and the action encoding each of them stands for."""

TRIALS = {
    "BanditTrial-v0": "bandit_trial:BanditTrial",
    "TabularTrial-v0": "tabular_trial:TabularTrial",
    "NavigationTrial-v0": "navigation_trial:NavigationTrial",
}
"""The registered ids of trials, and where their classes are in `gym_reml.envs`, less the endings."""

for _id, _action in ENVIRONMENTS.items():
    register(
        id=_id,
        entry_point="gym_reml.envs.net_build:NetBuildEnv",
        vector_entry_point="gym_reml.envs.net_build:NetBuildVectorEnv",
        kwargs={"action": _action},
    )

for _id, _place in TRIALS.items():
    register(
        id=_id,
        entry_point=f"gym_reml.envs.{_place}Env",
        vector_entry_point=f"gym_reml.envs.{_place}VectorEnv",
    )


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
    # None stands for the default, which spawned children are told too.
    method = getattr(multiprocessing.current_process(), "_start_method", None)
    return (method or multiprocessing.get_start_method(allow_none=True)) == "fork"


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_compute_alone)
    if _was_forked():
        # The parent did not know this package yet, but may have computed.
        _compute_alone()

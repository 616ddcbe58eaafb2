"""gym-reml: training a neural network as a reinforcement-learning environment.

Importing this package registers its environments with Gymnasium and loads nothing else.
"""

from gymnasium.envs.registration import register

__version__ = "0.1.0"

__all__ = ["ENVIRONMENTS", "__version__"]

ENVIRONMENTS = {
    "NetBuild-v0": "box",
    "NetBuildMultiDiscrete-v0": "multidiscrete",
    "NetBuildDiscrete-v0": "discrete",
    "NetBuildHybrid-v0": "hybrid",
}
"""The registered ids, and the action encoding each of them stands for."""

for _id, _action in ENVIRONMENTS.items():
    register(
        id=_id,
        entry_point="gym_reml.envs.net_build:NetBuildEnv",
        vector_entry_point="gym_reml.envs.net_build_vector:NetBuildVectorEnv",
        kwargs={"action": _action},
    )

"""gym-reml: training a neural network as a reinforcement-learning environment.

Importing this package registers its environments with Gymnasium and loads nothing else.
"""

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
        vector_entry_point="gym_reml.envs.net_build_vector:NetBuildVectorEnv",
        kwargs={"action": _action},
    )

for _id, _place in TRIALS.items():
    register(
        id=_id,
        entry_point=f"gym_reml.envs.{_place}Env",
        vector_entry_point=f"gym_reml.envs.trial_vector:{_place.partition(':')[2]}VectorEnv",
    )

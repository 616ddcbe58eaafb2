"""Markov decision processes of n rows, independent of Gymnasium."""

from gym_reml.mdp.objective import Objective
from gym_reml.mdp.training import TrainingMDP

__all__ = ["Objective", "TrainingMDP"]

"""Markov decision processes of n rows, without Gymnasium."""

from gym_reml.mdp.objective import Objective
from gym_reml.mdp.training import TrainingMDP

__all__ = ["Objective", "TrainingMDP"]

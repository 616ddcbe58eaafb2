"""The environments: single and vector ones over processes of n rows, and a wrapper for other environments."""

from gym_reml.envs.trials.wrapper import Trial as Trial

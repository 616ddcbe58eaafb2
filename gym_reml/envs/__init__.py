"""The environments: faces of processes whose rows are computed together, and a wrapper for environments of others."""

from gym_reml.envs.trials.wrapper import Trial as Trial

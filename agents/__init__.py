"""Meta-learners and their commands, one a file. A wheel installs this folder as `gym_reml_agents`."""

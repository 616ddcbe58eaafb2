"""RL² and classical policies on trials."""

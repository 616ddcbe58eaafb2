"""Gymnasium environments. Each is a file here and a row in `gym_reml.ENVIRONMENTS`."""

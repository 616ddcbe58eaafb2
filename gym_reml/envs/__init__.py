"""Gymnasium environments. Each is a file here and is registered in `gym_reml/__init__.py`."""

"""Agents and schedules at the dials of training, in `NetTune`."""

"""Run directories, checkpoints, and how a dataclass becomes a command."""

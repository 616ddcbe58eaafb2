"""CleanRL: its own scripts, unedited, by the command lines that its users type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

REQUIREMENTS = (
    *("gymnasium==0.29.1", "numpy==1.26.4", "tensorboard==2.21.0", "tyro==1.0.17"),
    *("moviepy==2.2.1", "pillow==11.3.0"),  # for --capture-video
)

REPOSITORY = "https://github.com/vwxyzjn/cleanrl"
"""Where the scripts are cloned from; the environment variable CLEANRL_REPOSITORY names another place."""
COMMIT = "fe8d8a03c41a7ef5b523e2e354bd01c363e786bb"

LAST = 200
"""Training episodes that a return is the mean of."""


class Script(NamedTuple):
    """A script, the id that it trains on, the steps of its run, and what else its command line says."""

    name: str
    env_id: str
    steps: int
    options: str


SCRIPTS = (
    Script("ppo", "NetBuildDiscrete-v0", 20_000, "--num-envs 8 --num-steps 64 --learning-rate 1e-3"),
    Script("dqn", "NetBuildDiscrete-v0", 8_000, "--learning-starts 500 --learning-rate 1e-3 --train-frequency 1"),
)

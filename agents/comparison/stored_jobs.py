"""What every entry of a table has in common: a folder that holds its log and what it found, once it is finished."""

from __future__ import annotations

import json
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from gym_reml.evaluation.results import write_text

from ..runs.run import commit, versions


class StoredJob(ABC):
    """A piece of work that is done once, and whose results are read from then on."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where it writes."""

    @property
    @abstractmethod
    def held_out(self) -> int:
        """How many held-out tasks it is judged on: results on other numbers stand beside each other."""

    @abstractmethod
    def run(self) -> float:
        """Trains and evaluates; returns the seconds of training."""

    @property
    def log(self) -> Path:
        """Where all goes that it prints."""
        return self.folder / "log.txt"

    @property
    def summary_path(self) -> Path:
        """The file that is written last."""
        return self.folder / f"finished-{self.held_out}.json"

    @property
    def finished(self) -> bool:
        """Whether its results are there."""
        return self.summary_path.is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """What is known of a finished job.

        These are seconds, parameters, meta_training_tasks, commit and versions (where it recorded them), and what else
        it tells.
        """
        found: dict[str, Any] = json.loads(self.summary_path.read_text(encoding="utf-8"))
        return found

    def finish(self, about: Mapping[str, Any]) -> None:
        """Writes what is known of the job, and by which code it was done: the last that it does."""
        write_text(self.summary_path, json.dumps({**about, "commit": commit(), "versions": versions()}))


def run_job(job: StoredJob) -> float:
    """Runs it, everything that is printed going to its log; returns the seconds of training."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with open(job.log, "a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            return job.run()
        except Exception:
            traceback.print_exc()
            raise


def single_thread() -> None:
    """What a process that runs jobs does first: small matrices want a single thread."""
    torch.set_num_threads(1)

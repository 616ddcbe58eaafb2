"""Counts the work of training: gradients of networks, and steps of their environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Work:
    """Work that was done.

    Attributes:
        inner_gradients: gradients of a single network's support loss, each for one step: in environments, and in
            replays for meta-gradients and searches, each time that an episode is replayed.
        environment_steps: steps of single rows of `gym_reml.mdp.TrainingMDP`, whoever decided them.
        whole: whether that is all; not where some was done before an interruption that did not record it.
    """

    inner_gradients: int = 0
    environment_steps: int = 0
    whole: bool = True


_counted: ContextVar[Work | None] = ContextVar("counted", default=None)


@contextmanager
def counting_work() -> Iterator[Work]:
    """Context in which work is counted, that of a context inside it too."""
    work, around = Work(), _counted.get()
    token = _counted.set(work)
    try:
        yield work
    finally:
        _counted.reset(token)
        if around is not None:
            around.inner_gradients += work.inner_gradients
            around.environment_steps += work.environment_steps
            around.whole &= work.whole


@contextmanager
def uncounted() -> Iterator[None]:
    """Context in which work is not counted, as it is counted elsewhere."""
    token = _counted.set(None)
    try:
        yield
    finally:
        _counted.reset(token)


def work_so_far() -> Work | None:
    """The work of the context around; None where none is counted."""
    return _counted.get()


def count_work(*, inner_gradients: int = 0, environment_steps: int = 0, whole: bool = True) -> None:
    """Adds to the work of the context around, if there is one."""
    work = _counted.get()
    if work is not None:
        work.inner_gradients += inner_gradients
        work.environment_steps += environment_steps
        work.whole &= whole

"""Settings of all tests."""

from pathlib import Path

import pytest
import torch

from gym_reml.tasks.images import downloads

# Small matrices: a second thread costs more than it gives, and pytest already runs two workers.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small Omniglot archives."""
    from tests.support.omniglot_archive import write_archives

    return write_archives(tmp_path_factory.mktemp("omniglot"))


@pytest.fixture
def no_omniglot_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the user's environment nor the user's cache decides a test."""
    monkeypatch.delenv("GYM_REML_DATA", raising=False)
    monkeypatch.setattr(downloads, "DEFAULT_ROOT", str(tmp_path / "cache"))

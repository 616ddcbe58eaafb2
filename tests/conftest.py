"""Settings of all tests."""

from pathlib import Path

import pytest
import torch

from gym_reml.networks.compiled import CORES, find_core
from gym_reml.networks.dense import dense
from gym_reml.pool import subnetworks
from gym_reml.tasks.images import downloads

# Small matrices: a second thread costs more than it gives, and pytest already runs two workers.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--core numba`: the same tests, with dense networks computed by compiled loops wherever they can be."""
    parser.addoption("--core", choices=CORES, default="torch", help="what computes networks where a test does not say")


def pytest_configure(config: pytest.Config) -> None:
    core = config.getoption("--core")
    if core != "torch":
        find_core("numba", dense("relu"), torch.device("cpu"))  # or an error that says what to install
        subnetworks.find_core = lambda asked, *rest: find_core("auto" if asked == "torch" else asked, *rest)


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

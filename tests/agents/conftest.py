"""Fixtures of several tests of agents."""

from pathlib import Path

import pytest

from tests.support.omniglot_archive import write_archives


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives with enough characters for tasks of five in every split."""
    return write_archives(tmp_path_factory.mktemp("images"), {"Alpha": 35, "Beta_(old)": 30, "Gamma": 30})

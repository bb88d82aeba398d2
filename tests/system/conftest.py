"""Fixtures that start real processes, and end what they started and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.processes import Started


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Starts processes for one test."""
    with Started(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def started_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Starts processes that the tests of a module share."""
    with Started(tmp_path_factory.mktemp("shared")) as started:
        yield started

"""Real processes for the planner's tests, and a small site with a planner."""

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

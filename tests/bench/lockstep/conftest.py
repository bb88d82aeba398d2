"""The demo site in lockstep, and stories told on a virtual loop."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from config.loading import load_profiles, load_site, shipped_sites
from config.profile import Profile
from config.site import Site
from gateway.bench.lockstep.request import LockstepRequest
from gateway.bench.lockstep.run import run_lockstep
from gateway.bench.lockstep.virtual_loop import VirtualLoop

T = TypeVar("T")


@pytest.fixture
def on_virtual_time() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a story on a virtual loop to its end."""

    def run(story: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(story)

    return run


class Lockstep:
    """Runs of the demo site, changed as a test wants it, and what they leave behind."""

    def __init__(self, out: Path) -> None:
        self.out = out
        path = shipped_sites()["demo"]
        self.site: Site = load_site(path)
        by_name = load_profiles(self.site, path)
        self.profiles: dict[str, Profile] = {name: by_name[one.profile] for name, one in self.site.devices.items()}

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the site as a site file would say it."""
        data = self.site.model_dump()
        change(data)
        self.site = Site.model_validate(data)

    def run(self, duration_s: float, **settings: Any) -> None:
        run_lockstep(LockstepRequest(self.site, self.profiles, self.out, duration_s, **settings))

    def journal(self, event: str) -> list[dict[str, Any]]:
        """The gateway's entries of one kind."""
        return [entry for entry in _lines(self.out / "gateway.jsonl") if entry["event"] == event]

    def failed_checks(self) -> list[str]:
        """What the operator's checks found."""
        done = [entry for entry in _lines(self.out / "dso.jsonl") if entry["event"] == "done"]
        return list(done[-1]["failed"])

    def problems(self) -> list[str]:
        return list(json.loads((self.out / "end.json").read_text())["problems"])

    def physics(self) -> list[dict[str, float]]:
        """A row for each recorded step."""
        with (self.out / "physics.csv").open() as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def lockstep(tmp_path: Path) -> Lockstep:
    return Lockstep(tmp_path / "out")

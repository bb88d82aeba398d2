"""`gateway demo --tiers`: three tiers as processes, a building's gateway killed on the way, and the report of each."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import Running, Started, until

SITES = ("tiers_microgrid", "tiers_building_a", "tiers_building_b", "tiers_building_c")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    with Started(tmp_path) as processes:
        yield processes


def demo(started: Started) -> tuple[Running, Path]:
    out = started.folder / "out"
    return started.run("demo", "gateway", "demo", "--tiers", "--duration", "30", "--headless", "--out", str(out)), out


def events(out: Path, site: str, name: str) -> list[dict[str, Any]]:
    try:
        lines = (out / site / "gateway.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [event for event in found if event["event"] == name]


def dispatches(out: Path, site: str) -> list[dict[str, Any]]:
    orders = [each for each in events(out, site, "order") if each["kind"] == "dispatch"]
    return [each for each in orders if each["status"] == "accepted"]


@pytest.mark.timeout(150)
async def test_what_is_asked_at_the_top_reaches_every_building_and_all_is_reported(started: Started) -> None:
    running, out = demo(started)
    code = await running.ended(within_s=120.0)
    assert code in (0, 1), running.errors
    assert "ended by itself" not in running.out
    tiers = json.loads((out / "report.json").read_text())["tiers"]
    assert [tier["site"] for tier in tiers] == list(SITES)
    assert [tier["tier"] for tier in tiers] == [0, 1, 1, 1]
    for tier in tiers:
        assert tier["excursions"]["count"] is not None, tier
        assert tier["dispatches"] >= 4, tier
        assert tier["net_min_w"] < 0.0 < tier["net_max_w"], tier
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(site in page for site in SITES)
    # What the buildings heard came from the microgrid alone, and none of it names a device or the operator.
    for site in SITES[1:]:
        assert {each["source"] for each in dispatches(out, site)} == {"microgrid"}
        assert not [each for each in dispatches(out, site) if "dso" in each["id"]]
    assert not running.alive()


@pytest.mark.timeout(150)
async def test_a_killed_building_is_lost_and_the_demo_says_so(started: Started) -> None:
    running, out = demo(started)
    await until(lambda: bool(dispatches(out, SITES[0])), "the operator asks for something", within_s=60.0)
    pids = [pid for pid, line in running.alive().items() if "gateway run" in line and SITES[3] in line]
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)
    assert await running.ended(within_s=60.0) == 1
    assert f"gateway of {SITES[3]} ended by itself" in running.out
    assert (out / "report.html").exists()
    assert not running.alive()

"""The planner beside a running gateway: killed, stalled, without a plan, or talking nonsense, it never touches a limit.

Real processes and sockets; the twins' physics says what the net power was.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cvxpy")

from gateway.planning.process import SOCKET_NAME
from tests.planning.states import plan
from tests.system.processes import Gateway, Started, Twins, lasting, until
from tests.system.sites import SiteFile, steady_site, written

LIMIT_W = 14_000.0
TOLERANCE_W = 1_000.0
LOADING_S = 60.0
"""The solver takes seconds to load, at a low priority on a busy machine many."""


def planned_site(**planning: Any) -> SiteFile:
    """More car than the connection lets in, a battery, and a planner in a hurry; nobody above."""
    site = steady_site("battery_a", "charger_2", load_w=8_000.0)
    site["parents"] = []
    site["connection"]["max_import_w"] = LIMIT_W
    site["fallback"]["net_import_w"] = LIMIT_W
    site["control"] = {"period_ms": 500}
    site["planning"] = {"replan_s": 1.0, "time_limit_s": 2.0, "curves_valid_s": 4.0, "horizon_h": 6} | planning
    return site


async def running(started: Started, site: SiteFile, **environment: str) -> tuple[Gateway, Twins]:
    path = written(site, started.folder)
    twins = await started.twins(path)
    gateway = started.gateway(path, started.folder / "state", "--twin", "all", twins=twins)
    await gateway.ready()
    return gateway, twins


def planner_of(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = gateway.snapshot()["planner"]
    return found


def planner_pid(gateway: Gateway) -> int:
    return int(gateway.journal("plan", state="planner started")[-1]["pid"])


async def in_force(gateway: Gateway) -> None:
    await until(lambda: planner_of(gateway)["state"] == "in force", lambda: planner_of(gateway), LOADING_S)


async def kept(gateway: Gateway, twins: Twins, for_s: float) -> None:
    """The import limit holds for so long, in the physics."""
    await lasting(lambda: twins.net_w <= LIMIT_W + TOLERANCE_W, for_s, lambda: twins.net_w)
    assert gateway.snapshot()["cycle"]["missed"] == 0


async def test_killed_and_stalled_it_comes_back_and_no_limit_is_touched(started: Started) -> None:
    gateway, twins = await running(started, planned_site())
    await kept(gateway, twins, 1.0)
    await in_force(gateway)
    await until(lambda: gateway.device("charger_2")["power_w"] > 4_000.0, "the car charges")
    first = planner_pid(gateway)
    os.kill(first, signal.SIGKILL)
    await until(lambda: gateway.journal("plan", state="planner ended"), "its end is noticed")
    taken = planner_of(gateway)["taken"]
    await kept(gateway, twins, 1.0)
    await until(lambda: planner_of(gateway)["taken"] > taken, "another one plans", LOADING_S)

    second = planner_pid(gateway)
    assert second != first
    os.kill(second, signal.SIGSTOP)
    await until(lambda: planner_of(gateway)["state"] == "default curves", "its curves expire")
    assert gateway.journal("plan", state="expired")
    await kept(gateway, twins, 2.0)
    await until(lambda: gateway.journal("plan", state="planner ended")[1:], "it is ended", LOADING_S)
    await in_force(gateway)
    await kept(gateway, twins, 1.0)
    assert gateway.journal("crash") == []
    assert gateway.snapshot()["cycle"]["missed"] == 0

    gateway.running.send(signal.SIGTERM)
    assert await gateway.running.ended() == 0
    await until(lambda: set(gateway.running.alive()) == set(), gateway.running.alive)


async def test_a_planner_that_finds_no_plan_leaves_the_default_curves(started: Started) -> None:
    gateway, twins = await running(started, planned_site(time_limit_s=1e-6))
    await until(lambda: planner_of(gateway)["failed"] > 2, lambda: planner_of(gateway), LOADING_S)
    assert "user_limit" in planner_of(gateway)["reason"]
    assert planner_of(gateway)["state"] == "default curves"
    await kept(gateway, twins, 2.0)
    assert gateway.device("charger_2")["power_w"] > 4_000.0, "the car charges all the same"


async def test_nonsense_and_torn_messages_are_counted_and_a_second_planner_is_not_heard(started: Started) -> None:
    gateway, twins = await running(started, planned_site())
    path = started.folder / "state" / SOCKET_NAME
    # Before the real one has loaded its solver, somebody else talks.
    await until(path.exists, "control listens")
    with connected(path) as impostor, impostor.makefile("rb") as lines:
        request = json.loads(await asyncio.to_thread(lines.readline))
        assert request["type"] == "state"
        for line in (
            b"nonsense\n",
            b'{"type": "plan"}\n',
            plan(id=request["id"] + 7).model_dump_json().encode() + b"\n",
        ):
            impostor.sendall(line)
        impostor.sendall(b'{"type": "plan", "id"')
        await until(lambda: planner_of(gateway)["refused"] >= 3, lambda: planner_of(gateway))
    await until(lambda: planner_of(gateway)["reason"] == "a torn message", lambda: planner_of(gateway))
    await kept(gateway, twins, 1.0)
    await in_force(gateway)
    with connected(path) as second:
        assert await asyncio.to_thread(second.recv, 1) == b""
    assert planner_of(gateway)["reason"] == "a second planner"
    assert planner_of(gateway)["state"] == "in force"


async def test_the_control_process_never_loads_the_solver(started: Started) -> None:
    path = written(planned_site(), started.folder)
    arguments = ("gateway", "run", str(path), "--state", str(started.folder / "state"), "--until-eof", "--twin", "all")
    running_ = started.run("gateway", *arguments, PYTHONPROFILEIMPORTTIME="1")
    gateway = Gateway(running_, started.folder / "state")
    await gateway.ready()
    await in_force(gateway)
    running_.send(signal.SIGTERM)
    assert await running_.ended() == 0
    told = running_.errors.splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in told if line.startswith("import time:")}
    assert "gateway.planning.link" in loaded
    assert {name for name in loaded if name.split(".")[0] in {"cvxpy", "numpy", "scipy", "pandas", "clarabel"}} == set()


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LOADING_S)
    connection.connect(str(path))
    return connection

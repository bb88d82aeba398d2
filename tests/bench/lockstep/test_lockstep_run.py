"""Whole runs in lockstep: the demo's script, determinism, actions, faults, what can't be run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.bench.lockstep.request import LockstepError
from gateway.bench.lockstep.world import LockstepWorld
from gateway.bench.reports.report import write_report
from sim_devices.dso.script import load_script
from tests.bench.lockstep.conftest import Lockstep

FILES = {"physics.csv", "gateway.jsonl", "gateway.log", "dso.jsonl", "orders.json", "end.json"}
ONE_RUN = """
import sys
from pathlib import Path
from tests.bench.lockstep.conftest import Lockstep
from sim_devices.dso.script import load_script
run = Lockstep(Path(sys.argv[1]))
run.run(30.0, seed=int(sys.argv[2]), script=load_script())
"""


def test_the_demos_script_passes_all_its_checks_and_the_report_judges_the_run(lockstep: Lockstep) -> None:
    lockstep.run(30.0, script=load_script())
    assert lockstep.problems() == []
    assert lockstep.failed_checks() == []
    assert {path.name for path in lockstep.out.iterdir()} == FILES
    report = write_report(lockstep.out, lockstep.site)
    assert report.excursions.count == 0
    assert report.missed_cycles == 0
    assert len(report.orders) > 10


def _run_apart(out: Path, seed: int, hash_seed: int) -> dict[str, bytes]:
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", ONE_RUN, str(out), str(seed)], env=environment, cwd=root, check=True)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_a_seed_is_the_same_run_to_the_last_byte_under_any_hash_seed_and_another_is_another(tmp_path: Path) -> None:
    first = _run_apart(tmp_path / "first", seed=5, hash_seed=1)
    again = _run_apart(tmp_path / "again", seed=5, hash_seed=2)
    other = _run_apart(tmp_path / "other", seed=6, hash_seed=1)
    assert set(first) == FILES
    for name in FILES:
        assert first[name] == again[name], name
    assert first["physics.csv"] != other["physics.csv"]
    assert first["gateway.jsonl"] != other["gateway.jsonl"]


def test_actions_happen_at_their_times_in_their_order_and_reach_every_part(lockstep: Lockstep) -> None:
    seen: list[tuple[str, float]] = []

    def note(name: str) -> Any:
        return lambda world: seen.append((name, round(world.now_s, 6)))

    def add_load(world: LockstepWorld) -> None:
        note("load")(world)
        assert world.tell_twins({"load_step_w": 30_000.0}) is None

    async def waits(world: LockstepWorld) -> None:
        note("waits")(world)

    lockstep.change(lambda site: site["simulation"].update(load_steps=None, clouds=None, acceleration=1.0))
    lockstep.run(8.0, actions=[(5.0, note("late")), (2.0, add_load), (5.0, waits)], physics_every=5)
    assert seen == [("load", 2.0), ("late", 5.0), ("waits", 5.0)]
    rows = lockstep.physics()
    assert rows[1]["monotonic_s"] - rows[0]["monotonic_s"] == pytest.approx(0.5)
    risen_w = rows[-1]["load_w"] - rows[0]["load_w"]
    assert risen_w == pytest.approx(30_000.0, abs=500.0)


def test_an_action_that_fails_ends_the_run(lockstep: Lockstep) -> None:
    def fails(world: LockstepWorld) -> None:
        raise RuntimeError("planned")

    with pytest.raises(RuntimeError, match="planned"):
        lockstep.run(5.0, actions=[(1.0, fails)])


def test_a_defect_in_a_callback_is_not_only_logged(lockstep: Lockstep) -> None:
    def plant(world: LockstepWorld) -> None:
        def broken(*_: Any) -> bytes:
            raise ZeroDivisionError("planted")

        world.modbus["pv"].reply = broken  # type: ignore[method-assign]

    with pytest.raises(ZeroDivisionError):
        lockstep.run(5.0, actions=[(1.0, plant)])


def test_a_killed_gateway_writes_nothing_more_and_one_started_again_takes_the_site_over(lockstep: Lockstep) -> None:
    setpoints: dict[str, float | None] = {}

    def look(name: str) -> Any:
        return lambda world: setpoints.update({name: world.physics.devices["battery_a"].setpoint_w})

    actions = [
        (12.0, LockstepWorld.kill_gateway),
        (12.5, look("killed")),
        (23.0, look("reverted")),
        (23.5, LockstepWorld.start_gateway),
        (28.0, look("back")),
        (29.0, LockstepWorld.stop_gateway),
        (29.5, look("stopped")),
    ]
    lockstep.run(30.0, actions=actions)
    assert setpoints["killed"]
    assert setpoints["reverted"] is None
    assert setpoints["back"]
    assert setpoints["stopped"] in (None, 0.0)
    assert len(lockstep.journal("start")) == 2
    assert len(lockstep.journal("summary")) == 1


def test_links_are_lost_and_found_again(lockstep: Lockstep) -> None:
    actions = [
        (3.0, lambda world: world.network.block(world.address("grid_meter"))),
        (5.0, lambda world: world.network.restore(world.address("grid_meter"))),
        (8.0, lambda world: world.broker.stop()),
        (9.0, lambda world: world.broker.start()),
        (12.0, lambda world: world.opcua["battery_b"].restart()),
    ]
    lockstep.run(16.0, actions=actions)
    transitions = {(entry["name"].split(":")[0], entry["state"]) for entry in lockstep.journal("link")}
    for protocol in ("modbus", "mqtt", "opc.tcp"):
        assert (protocol, "lost") in transitions
    last = {entry["name"]: entry["state"] for entry in lockstep.journal("link")}
    assert set(last.values()) == {"up"}


def test_faults_at_the_wire_strike_modbus_devices_and_are_refused_where_there_is_no_wire(lockstep: Lockstep) -> None:
    answers: list[dict[str, Any]] = []

    def set_fault(device: str) -> Any:
        line = {"device": device, "fault": "no_answer", "parameters": {"duration_s": 2.0}}
        return lambda world: answers.append(world.tell_faults(line))

    lockstep.run(10.0, faults=True, actions=[(3.0, set_fault("pv")), (3.0, set_fault("battery_b"))])
    assert "set" in answers[0]
    assert "Modbus" in answers[1]["error"]
    (lost,) = (entry for entry in lockstep.journal("link") if entry["state"] == "lost")
    assert "poll of pv" in lost["reason"]
    assert lockstep.journal("link")[-1]["state"] == "up"


def test_units_of_a_serial_line_are_reached_through_a_device_server(lockstep: Lockstep) -> None:
    def on_a_line(site: dict[str, Any]) -> None:
        for unit, name in enumerate(("pv", "battery_a"), start=3):
            site["devices"][name]["address"] = {"driver": "modbus_rtu", "device": "/dev/ttyS9", "unit": unit}

    lockstep.change(on_a_line)
    lockstep.run(10.0)
    present = {entry["name"] for entry in lockstep.journal("device") if entry["present"]}
    assert present == set(lockstep.site.devices)


def test_a_site_is_run_at_a_period_that_its_file_does_not_say(lockstep: Lockstep) -> None:
    lockstep.run(20.0, period_ms=1000, trace=False)
    assert lockstep.journal("summary")[0]["cycles"] in (19, 20)
    assert lockstep.journal("cycle") == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"duration_s": 0.0}, "not above 0"),
        ({"physics_every": 0}, "0th"),
        ({"actions": [(-1.0, print)]}, "before the start"),
        ({"period_ms": 1}, "period_ms"),
        ({"step_ms": 5000}, "step_ms"),
        ({"duration_s": 5.0, "script": load_script()}, "at least 30 s"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    lockstep: Lockstep, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(LockstepError, match=words):
        lockstep.run(**{"duration_s": 30.0} | settings)
    assert not lockstep.out.exists()


def test_a_script_needs_a_parent_that_may_dispatch_and_a_device_a_twin(lockstep: Lockstep) -> None:
    lockstep.change(lambda site: site.update(parents=()))
    with pytest.raises(LockstepError, match="parent"):
        lockstep.run(30.0, script=load_script())
    lockstep.change(lambda site: site["devices"]["pv"].update(profile="nobodys_inverter"))
    with pytest.raises(LockstepError, match="pv: no twin"):
        lockstep.run(30.0)

"""Who is written to: nobody while observing, no read-only device, and real devices only by leave.

The real devices are twins of a process of their own, at the addresses of the site file: to the gateway they are real.
"""

from __future__ import annotations

import signal
from typing import Any, NamedTuple

from tests.system.processes import Gateway, Started, Twins, lasting, until
from tests.system.sites import SiteFile, steady_site, written

LIMIT_W = 5_000.0
LOAD_W = 25_000.0
TOLERANCE_W = 1_000.0
REAL = ("battery_a", "charger_2")
SIMULATED = ("grid_meter", "battery_c")
UNTOUCHED = {"setpoint_w": None, "reversions": 0}
CYCLES = 10


def limited_site(*devices: str) -> SiteFile:
    """More load than the connection may import: every controllable device is needed, without any parent."""
    site = steady_site(*devices, load_w=LOAD_W)
    site["connection"]["max_import_w"] = site["fallback"]["net_import_w"] = LIMIT_W
    site["parents"] = []
    return site


class Bench(NamedTuple):
    """A gateway between simulated and real devices."""

    gateway: Gateway
    simulated: Twins
    real: Twins


async def bench(started: Started, *options: str) -> Bench:
    """`gateway run --twin ...` for the simulated devices, beside the real ones."""
    path = written(limited_site("battery_a", "battery_c", "charger_2"), started.folder)
    simulated = await started.twins(path, *SIMULATED)
    real = await started.twins(path, *REAL, ports="declared")
    named = [option for name in SIMULATED for option in ("--twin", name)]
    gateway = started.gateway(path, started.folder / "state", *named, *options, twins=simulated)
    await gateway.ready()
    await until(lambda: simulated.state()["meters"]["grid_meter"]["valid"], "the meter knows the real devices' power")
    return Bench(gateway, simulated, real)


async def cycles(gateway: Gateway, count: int = CYCLES) -> None:
    """Wait until it has decided so many times more."""
    last = gateway.snapshot()["cycle"]["count"] + count
    await until(lambda: gateway.snapshot()["cycle"]["count"] >= last, f"{count} cycles")


def shown(device: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    return {key: device[key] for key in keys}


async def test_real_devices_are_read_and_not_written(started: Started) -> None:
    gateway, simulated, real = await bench(started)
    (warning,) = gateway.logged("real devices are read only")
    assert "battery_a" in warning
    assert "charger_2" in warning
    await until(
        lambda: simulated.device("battery_c")["power_w"] < -29_000.0,
        lambda: f"the simulated battery gives all it has: {simulated.state()} {gateway.snapshot()}",
    )
    await cycles(gateway)
    assert shown(real.device("battery_a"), UNTOUCHED) == UNTOUCHED
    assert real.device("charger_2")["offered_current_a"] == 32.0
    car_w = real.device("charger_2")["power_w"]
    assert car_w > 20_000.0
    assert abs(simulated.state()["real"]["charger_2"]["power_w"] - car_w) < 100.0
    expected_w = LOAD_W + car_w + simulated.device("battery_c")["power_w"]
    assert abs(simulated.net_w - expected_w) < 200.0, "the meter's twin sums what the real devices measure"
    assert gateway.snapshot()["connection"]["unmet"]


async def test_real_devices_are_written_by_leave(started: Started) -> None:
    gateway, simulated, real = await bench(started, "--allow-real-writes")
    await until(lambda: real.device("battery_a")["power_w"] < -5_000.0, "the real battery takes its share")
    await lasting(lambda: simulated.net_w <= LIMIT_W + TOLERANCE_W, 0.5, "the limit is kept by both worlds together")
    assert not gateway.logged("real devices are read only")

    real.running.send(signal.SIGSTOP)
    try:
        await until(lambda: not simulated.state()["meters"]["grid_meter"]["valid"], "the sum at the bus is not known")
        await until(lambda: gateway.snapshot()["connection"]["quality"] == "bad", "the gateway's meter is lost")
        await until(lambda: gateway.device("battery_a")["quality"] == "bad", "the real battery is lost")
        await cycles(gateway, 5)
    finally:
        real.running.send(signal.SIGCONT)
    await until(lambda: gateway.snapshot()["connection"]["quality"] == "good", "the meter is back with the devices")
    await lasting(lambda: simulated.net_w <= LIMIT_W + TOLERANCE_W, 0.5, "the limit is kept again")


async def test_the_gateway_starts_the_twins_it_is_asked_for_beside_real_ones(started: Started) -> None:
    path = written(limited_site("battery_a", "battery_c"), started.folder)
    real = await started.twins(path, "battery_a", ports="declared")
    options = ("--twin", "grid_meter", "--twin", "battery_c", "--allow-real-writes")
    gateway = started.gateway(path, started.folder / "state", *options)
    await gateway.ready()
    await until(lambda: real.device("battery_a")["power_w"] < -5_000.0, "the real battery takes its share")
    await until(lambda: gateway.snapshot()["connection"]["net_w"] <= LIMIT_W + TOLERANCE_W, "the limit is kept")
    gateway.running.send(signal.SIGTERM)
    assert await gateway.running.ended() == 0
    assert gateway.running.alive() == {}
    assert real.running.code is None
    await until(lambda: abs(real.device("battery_a")["power_w"]) < 100.0, "the real battery is at rest")
    at_rest = {"setpoint_w": 0.0, "reversions": 0}
    assert shown(real.device("battery_a"), at_rest) == at_rest


async def test_an_observer_decides_and_writes_nothing(started: Started) -> None:
    path = written(limited_site("battery_a", "battery_c", "pv", "charger_2"), started.folder)
    twins = await started.twins(path)
    before = twins.state()["devices"]
    gateway = started.gateway(path, started.folder / "state", "--twin", "all", "--observe", twins=twins)
    await gateway.ready()
    await cycles(gateway)
    snapshot = gateway.snapshot()
    assert snapshot["observe"] is True
    decided = {device["name"]: device["setpoint_w"] for device in snapshot["devices"]}
    assert None not in decided.values()
    assert gateway.logged("observing: nothing is written")
    gateway.running.send(signal.SIGTERM)
    assert await gateway.running.ended() == 0
    after = twins.state()["devices"]
    for name, untouched in (
        ("battery_a", UNTOUCHED),
        ("battery_c", UNTOUCHED),
        ("pv", {"ceiling_pu": None, "reversions": 0}),
        ("charger_2", {"offered_current_a": before["charger_2"]["offered_current_a"], "reversions": 0}),
    ):
        assert shown(after[name], untouched) == untouched, f"{name}, also at the end"


async def test_a_read_only_device_is_read_and_never_written(started: Started) -> None:
    site = limited_site("battery_a", "battery_c")
    site["devices"]["battery_a"]["read_only"] = True
    path = written(site, started.folder)
    twins = await started.twins(path)
    gateway = started.gateway(path, started.folder / "state", "--twin", "all", twins=twins)
    await gateway.ready()
    await until(lambda: twins.device("battery_c")["power_w"] < -15_000.0, "the other battery keeps the limit")
    await cycles(gateway)
    read = gateway.device("battery_a")
    assert (read["quality"], read["writable"], read["setpoint_w"], read["cause"]) == ("good", False, None, "read-only")
    assert shown(twins.device("battery_a"), UNTOUCHED) == UNTOUCHED
    gateway.running.send(signal.SIGTERM)
    assert await gateway.running.ended() == 0
    assert shown(twins.device("battery_a"), UNTOUCHED) == UNTOUCHED, "not even its rest state"

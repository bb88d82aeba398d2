"""A device that is absent at start, comes, is killed and comes back: one link's story, while the others keep the limit.

Two twins' processes share one bus: the meter's is told what the other's battery does, 0 W once that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

from tests.system.processes import Gateway, Started, Twins, lasting, until
from tests.system.sites import steady_site, written

LIMIT_W = 5_000.0
LOAD_W = 25_000.0
TOLERANCE_W = 1_000.0
WIRE_INTERVAL_S = 0.05


class Bus:
    """Carries the power of `battery_a`, wherever it is simulated, to the meter."""

    def __init__(self, meter: Twins) -> None:
        self._meter = meter
        self.battery: Twins | None = None

    def carry(self) -> None:
        """Once."""
        power_w = 0.0
        if self.battery is not None:
            with contextlib.suppress(OSError, ValueError):
                power_w = self.battery.device("battery_a")["power_w"]
        self._meter.ask({"real_power_w": {"battery_a": power_w}})

    async def carry_on(self) -> None:
        while True:
            await asyncio.to_thread(self.carry)
            await asyncio.sleep(WIRE_INTERVAL_S)


@contextlib.asynccontextmanager
async def bus_at(meter: Twins) -> AsyncIterator[Bus]:
    """A bus that carries in the background."""
    bus = Bus(meter)
    carrying = asyncio.create_task(bus.carry_on(), name="bus")
    try:
        yield bus
    finally:
        carrying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await carrying


def is_kept(meter: Twins) -> bool:
    return meter.net_w <= LIMIT_W + TOLERANCE_W


async def test_a_device_comes_late_is_killed_and_comes_back(started: Started) -> None:
    site = steady_site("battery_a", "battery_c", "charger_2", load_w=LOAD_W)
    site["fallback"] = {"net_import_w": LIMIT_W, "net_export_w": 0}
    site["parents"] = []
    site["connection"]["max_import_w"] = LIMIT_W
    path = written(site, started.folder)
    meter = await started.twins(path, "grid_meter", "battery_c", "charger_2", ports="free")
    async with bus_at(meter) as bus:
        gateway = started.gateway(path, started.folder / "state", "--twin", "all", twins=meter)
        await gateway.ready()
        await lasting(lambda: is_kept(meter), 0.5, "battery_c alone keeps the limit")
        assert gateway.link_of("battery_a")["state"] == "lost"
        assert not gateway.device("battery_a")["writable"] or gateway.device("battery_a")["quality"] == "bad"

        bus.battery = await started.twins(path, "battery_a", ports="declared")
        await until(lambda: shares(gateway, bus.battery), "the newcomer takes a share")
        await lasting(lambda: is_kept(meter), 0.5, "both keep the limit")
        assert gateway.device("battery_a")["quality"] == "good"

        bus.battery.running.send(signal.SIGKILL)
        await bus.battery.running.ended()
        await until(lambda: gateway.device("battery_a")["quality"] == "bad", "its samples turn bad")
        assert gateway.device("battery_a")["setpoint_w"] is None
        await lasting(lambda: is_kept(meter), 1.0, "battery_c takes its share as well")

        bus.battery = await started.twins(path, "battery_a", ports="declared")
        await until(lambda: shares(gateway, bus.battery), "it takes a share again")
        await lasting(lambda: is_kept(meter), 0.5, "both keep the limit again")

    link = gateway.link_of("battery_a")
    assert (link["state"], link["reconnects"]) == ("up", 2)
    states = [entry["state"] for entry in gateway.journal("link", name=link["name"])]
    assert states == ["connecting", "lost", "up", "lost", "up"]
    assert len(gateway.logged("link lost", link["name"])) == 2, "named once for each loss, however often it is tried"
    assert gateway.journal("link", state="lost") == gateway.journal("link", state="lost", name=link["name"])
    assert "Traceback" not in gateway.running.errors


def shares(gateway: Gateway, battery: Twins | None) -> bool:
    """Whether it is given a share and follows it."""
    if battery is None:
        return False
    setpoint_w = gateway.device("battery_a")["setpoint_w"]
    return setpoint_w is not None and setpoint_w < -1_000.0 and battery.device("battery_a")["power_w"] < -1_000.0

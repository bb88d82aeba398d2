"""`gateway bench cycle`: a whole control cycle over many Modbus TCP devices, as a ratio to the bare floor."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from config.profile import Profile
from config.site import ModbusTcpAddress, Site
from gateway.bench.children import Child, ChildFailedError
from gateway.bench.machine.floor import READ_COUNT, WRITE_ADDRESS, Floor, written_at
from gateway.composition import build_drivers
from gateway.control.model import build_site_model
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce
from gateway.cycle import ControlCycle, CycleReport, Figures
from gateway.image import ImageInbox
from gateway.writer import Writer

BLOCKS: Final = 5
PRESENT_S: Final = 5.0
WHOLE_S: Final = 10.0
NAMED: Final = 5
NOT_WHOLE: Final = f"the writes of a cycle were not all acknowledged within {WHOLE_S:g} s"
LAST_PORT: Final = 65535
RATING_W: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class CycleBenchRequest:
    """`servers`: host and port of the first of servers that already run, or None to start own ones."""

    devices: int
    period_ms: float
    duration_s: float
    servers: tuple[str, int] | None


def bench_profile_data() -> dict[str, Any]:
    """Reads 60 holding registers from 0, as 59 points; a setpoint is 2 registers at 100."""
    points: dict[str, Any] = {
        f"value_{address}": {"modbus": {"address": address, "type": "int16"}, "poll": "fast", "source": "bench"}
        for address in range(2, READ_COUNT)
    }
    points["power_w"] = {"modbus": {"address": 0, "type": "int32"}, "unit": "W", "poll": "fast", "source": "bench"}
    points["setpoint_w"] = {
        "modbus": {"address": WRITE_ADDRESS, "type": "int32"},
        "unit": "W",
        "access": "w",
        "source": "bench",
    }
    return {
        "profile": "bench_device",
        "title": "A device of the bench",
        "kind": "relay",
        "protocol": "modbus",
        "source": {"document": "gateway/bench/machine/floor.py", "version": "1", "publisher": "Lamina"},
        "pace": {"slow_poll_s": 3600.0},
        "points": points,
        "control": {"writes": [{"point": "setpoint_w", "quantity": "power_w"}], "volatile": True},
        # Its power register never moves: given less time, control would take it for stuck.
        "response": {"tr90_s": 86_400.0},
    }


def bench_profile() -> Profile:
    """The same as a profile."""
    return Profile.model_validate(bench_profile_data())


def bench_site(devices: int, host: str, ports: list[int], period_ms: float) -> Site:
    """Devices behind one connection; the first is also read as its meter's stand-in by the control path."""
    return Site.model_validate(
        {
            "site": "bench",
            "connection": {"rating_w": devices * RATING_W, "meter": "device_0"},
            "fallback": {"net_import_w": "unlimited", "net_export_w": "unlimited"},
            "control": {"period_ms": int(period_ms)},
            "devices": {
                f"device_{index}": {
                    "profile": "bench_device",
                    "address": {"driver": "modbus_tcp", "host": host, "port": port, "unit": 1},
                    "rating_w": RATING_W,
                }
                for index, port in enumerate(ports)
            },
        }
    )


@dataclass(slots=True)
class _Measured:
    """Whole cycles, from the tick to the last acknowledgement; one each period, and one after the other."""

    cycle_ms: Figures = field(default_factory=Figures)
    back_to_back_ms: Figures = field(default_factory=Figures)
    floor_ms: Figures = field(default_factory=Figures)
    paced_floor_ms: Figures = field(default_factory=Figures)
    started_s: dict[str, float] = field(default_factory=dict)


class CycleBench:
    """The real path on bare servers: drivers, image, control functions, writer, a changed setpoint each cycle."""

    def __init__(self, site: Site, clock: Callable[[], float] = time.monotonic) -> None:
        profile, self.site = bench_profile(), site
        profiles = dict.fromkeys(site.devices, profile)
        self.measured, self.clock = _Measured(), clock
        self.inbox = ImageInbox(lambda _: None, lambda *_: None)
        addresses = {name: device.address for name, device in site.devices.items()}
        self.drivers = build_drivers(site, profiles, self.inbox, clock, addresses, dict.fromkeys(site.devices, True))
        by_device = {device: driver for driver in self.drivers for device in driver.devices}
        self.writer = Writer(by_device, {}, clock, 1.0, self._written)
        self.inbox.on_write_result = self.writer.result
        self.cycle = ControlCycle(
            build_site_model(site, profiles),
            self.drivers,
            self.inbox,
            self.writer,
            clock,
            site.control.period_ms / 1e3,
            self._orders,
            self._on_cycle,
        )
        self._rating_w = site.connection.rating_w
        self._count = 0
        self._whole = asyncio.Event()
        self._whole.set()
        self._into = self.measured.cycle_ms
        self.cycle.follow("0")

    def _orders(self) -> OrdersInForce:
        share = 0.2 + 0.6 * (self._count * 0.382 % 1.0)
        return OrdersInForce(dispatch=DispatchInForce("bench", "b", share * self._rating_w, 0.0, None, 0.0, 0.0, None))

    def _on_cycle(self, report: CycleReport) -> None:
        if report.writes:
            self.measured.started_s[str(self._count)] = report.started_s
            self._whole.clear()
        self._count += 1
        self.cycle.follow(str(self._count))

    def _written(self, order_ids: tuple[str, ...], at_s: float) -> None:
        for order_id in order_ids:
            started_s = self.measured.started_s.pop(order_id, None)
            if started_s is not None:
                self._into.add((at_s - started_s) * 1e3)
        if not self.measured.started_s:
            self._whole.set()

    async def in_time(self, seconds: float) -> None:
        """Cycles in the period's rhythm, as in the field."""
        self._into = self.measured.cycle_ms
        cycle = asyncio.create_task(self.cycle.run(), name="control cycle")
        await asyncio.sleep(seconds)
        cycle.cancel()
        await asyncio.gather(cycle, return_exceptions=True)
        async with _within(WHOLE_S, NOT_WHOLE):
            await self._whole.wait()

    async def back_to_back(self, seconds: float) -> None:
        """One cycle after the other, as the floor is swept."""
        self._into = self.measured.back_to_back_ms
        until_s = time.perf_counter() + seconds
        async with _within(seconds + WHOLE_S, NOT_WHOLE):
            while time.perf_counter() < until_s:
                await self.cycle.once()
                await self._whole.wait()

    def absent(self) -> list[str]:
        """The servers that do not answer now."""
        return [driver.name for driver in self.drivers if not all(driver.stats.devices.values())]


@asynccontextmanager
async def _within(seconds: float, text: str) -> AsyncIterator[None]:
    """Wait, but not for ever: then it is ChildFailedError with this text."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ChildFailedError(text) from None


def server_address(text: str, devices: int) -> tuple[str, int]:
    """HOST:PORT as a pair; raises ValueError for anything else, and where fewer ports than devices follow."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= LAST_PORT:
        raise ValueError(f"{text}: HOST:PORT is asked for")
    if int(port) + devices - 1 > LAST_PORT:
        raise ValueError(f"{text}: {devices} ports from {port} on go beyond {LAST_PORT}")
    return host, int(port)


async def run_cycle_bench(request: CycleBenchRequest, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure in alternating blocks; the figures as the command prints them.

    Raises ChildFailedError where the servers do not come up or do not answer, OSError where they are not there.
    """
    if request.servers is not None:
        host, first = request.servers
        bench = CycleBench(
            bench_site(request.devices, host, [first + at for at in range(request.devices)], request.period_ms)
        )
        return await _measure(request, bench, Floor(), progress)
    with TemporaryDirectory(prefix="lamina-bench-") as logs, _apart() as core:
        arguments = ["gateway.bench.machine.floor", "--devices", str(request.devices), *core]
        child = await Child.start("servers", arguments, Path(logs) / "servers.log")
        try:
            ports = (await child.ready())["ports"]
            bench, floor = CycleBench(bench_site(request.devices, "127.0.0.1", ports, request.period_ms)), Floor()
            figures = await _measure(request, bench, floor, progress)
            # All writes but the floor's, each of which repeats its first.
            writes, changes = await written_at(child)
            ours = {"writes_at_servers": sum(writes) - floor.sweeps * request.devices}
            return figures | ours | {"changes_at_servers": sum(changes) - request.devices}
        finally:
            await child.stop()


@contextmanager
def _apart() -> Iterator[list[str]]:
    """One core for the servers, where there are several, and the others for us; as the servers' arguments.

    In the field devices have their own processors. Here the kernel often wakes a server on the core from which it was
    just written to, or us on the servers', and then they run in turn.
    """
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if len(cores) < 2:
        yield []
        return
    os.sched_setaffinity(0, cores[:-1])
    try:
        yield ["--core", str(cores[-1])]
    finally:
        os.sched_setaffinity(0, cores)


async def _connect(floor: Floor, site: Site) -> None:
    for device in site.devices.values():
        assert isinstance(device.address, ModbusTcpAddress)
        host, port = device.address.host, device.address.port
        try:
            await floor.connect(host, port)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ChildFailedError(f"{host}:{port}: {reason}") from None


async def _measure(
    request: CycleBenchRequest, bench: CycleBench, floor: Floor, progress: Callable[[str], None]
) -> dict[str, Any]:
    await _connect(floor, bench.site)
    links = [asyncio.create_task(driver.run(), name=driver.name) for driver in bench.drivers]
    block_s = request.duration_s / BLOCKS
    try:
        await _all_present(bench)
        missed, cpu_s, busy_s = 0, 0.0, 0.0
        # As the control process does: a pass over everything that lives would hold a cycle for 20 ms and more.
        gc.collect()
        gc.freeze()
        for block in range(BLOCKS):
            progress(f"block {block + 1} of {BLOCKS}")
            await _sweep(floor, bench.measured.floor_ms, block_s / 8.0, 0.0)
            await bench.back_to_back(block_s / 8.0)
            await _sweep(floor, bench.measured.paced_floor_ms, block_s / 4.0, request.period_ms / 1e3)
            cpu_0, wall_0, missed_0 = time.process_time(), time.perf_counter(), bench.cycle.missed
            await bench.in_time(block_s)
            cpu_s += time.process_time() - cpu_0
            busy_s += time.perf_counter() - wall_0
            missed += bench.cycle.missed - missed_0
            if absent := bench.absent():
                raise ChildFailedError(f"lost while it was measured: {', '.join(absent)}")
    except ConnectionError as error:
        raise ChildFailedError(f"lost while it was measured: {error}") from None
    finally:
        floor.close()
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
    figures = bench.measured
    cycle_ms, hot_ms, floor_ms, paced_ms = (
        each.summary() for each in (figures.cycle_ms, figures.back_to_back_ms, figures.floor_ms, figures.paced_floor_ms)
    )
    return {
        "devices": request.devices,
        "period_ms": request.period_ms,
        "cycles": bench.cycle.count,
        "cycle_ms": cycle_ms,
        "floor_ms": {"p50": floor_ms["p50"], "p99": floor_ms["p99"]},
        "ratio_p50": _ratio(cycle_ms, floor_ms),
        "paced_floor_ms": {"p50": paced_ms["p50"], "p99": paced_ms["p99"]},
        "ratio_paced_p50": _ratio(cycle_ms, paced_ms),
        "back_to_back_ms": hot_ms,
        "ratio_back_to_back_p50": _ratio(hot_ms, floor_ms),
        "missed_cycles": missed,
        "acknowledged_writes": bench.writer.acknowledged,
        "failed_writes": bench.writer.failed,
        "cpu_pct": round(100.0 * cpu_s / busy_s, 1),
    }


def _ratio(ours_ms: dict[str, float | None], floor_ms: dict[str, float | None]) -> float:
    return round((ours_ms["p50"] or 0.0) / (floor_ms["p50"] or 1.0), 3)


async def _sweep(floor: Floor, figures: Figures, seconds: float, period_s: float) -> None:
    """Bare sweeps for a while: back to back, or one each period as a cycle is."""
    until_s = time.perf_counter() + seconds
    async with _within(seconds + WHOLE_S, f"a server is silent: the floor was not swept within {WHOLE_S:g} s"):
        while time.perf_counter() < until_s:
            swept_ms = await floor.sweep()
            figures.add(swept_ms)
            await asyncio.sleep(max(period_s - swept_ms / 1e3, 0.0))


async def _all_present(bench: CycleBench) -> None:
    """Wait until every device has been read once; raises ChildFailedError where they are not."""
    until_s = time.monotonic() + PRESENT_S
    while time.monotonic() < until_s:
        for driver in bench.drivers:
            driver.poll()
        await asyncio.sleep(0.02)
        if not bench.absent():
            return
    absent = bench.absent()
    here, of = len(bench.drivers) - len(absent), len(bench.drivers)
    raise ChildFailedError(f"{here} of {of} servers answer as devices of the bench do; not {', '.join(absent[:NAMED])}")

"""A link that is cut again and again leaves nothing behind.

RECONNECTS=10000 pytest -s tests/drivers/test_modbus_reconnects.py gives the figures for more of them.
"""

import asyncio
import gc
import os
import resource
import sys
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from drivers.modbus.driver import ModbusDriver
from tests.drivers.modbus_server import Bench, battery_profile, bench, fill_battery

RECONNECTS = int(os.environ.get("RECONNECTS", "300"))
WARM_UP = 50
# asyncio keeps up to a hundred cancelled timers, and tracing itself some kilobytes. A connection that stayed would be
# over 2 kB, in dozens of objects, each time.
MOST_OBJECTS = 300
MOST_BYTES = 80_000


@pytest.fixture
async def on(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("drivers.modbus.link.FIRST_PAUSE_S", 0.0005)
    async with bench() as made:
        fill_battery(made.server)
        yield made


async def reconnect(on: Bench, driver: ModbusDriver, times: int) -> None:
    for _ in range(times):
        before = driver.stats.reconnects
        async with asyncio.timeout(5.0):
            while not all(driver.stats.devices.values()):
                driver.poll()
                await asyncio.sleep(0.0)
        driver.write(on.setpoint(100.0))
        on.server.reset()
        await on.until(lambda before=before: driver.stats.reconnects > before)
        for kept in (on.sink.deliveries, on.sink.links, on.sink.devices, on.sink.results, on.server.asked):
            kept.clear()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("units", [1, 2], ids=["a single unit", "a shared gateway"])
async def test_memory_stays_flat_over_reconnects(on: Bench, units: int) -> None:
    bindings = [on.bind(battery_profile(), f"unit_{number}", number) for number in range(1, units + 1)]
    async with on.running(*bindings) as driver:
        await on.present(units)
        await reconnect(on, driver, WARM_UP)
        tracemalloc.start()
        try:
            # The first rounds after tracing began replace what it does not know of.
            await reconnect(on, driver, WARM_UP)
            gc.collect()
            objects, memory = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
            await reconnect(on, driver, RECONNECTS)
            gc.collect()
            more_objects = len(gc.get_objects()) - objects
            more_memory = tracemalloc.get_traced_memory()[0] - memory
        finally:
            tracemalloc.stop()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = f"{RECONNECTS} reconnects: {more_objects} objects and {more_memory} bytes more, peak {peak_mb:.1f} MB\n"
    sys.stdout.write(figures)
    assert driver.stats.reconnects >= 2 * WARM_UP + RECONNECTS
    assert more_objects < MOST_OBJECTS, figures
    assert more_memory < MOST_BYTES, figures

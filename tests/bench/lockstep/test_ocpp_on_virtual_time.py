"""OCPP in lockstep: the driver's own WebSocket server and a charger's own client, over the virtual network."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from config.loading import load_profile
from config.site import OcppConnector
from config.vocabulary import Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.ocpp.driver import OcppDriver
from gateway.bench.lockstep.virtual_loop import BEGIN_S
from tests.drivers.field import Field
from tests.drivers.ocpp_field import online, power

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_charger_boots_measures_and_takes_a_setpoint_while_a_quarter_of_an_hour_passes(on_virtual_time: Run) -> None:
    async def story() -> float:
        loop, field = asyncio.get_running_loop(), Field()
        address = OcppConnector(driver="ocpp", listen_host="127.0.0.1", listen_port=0, charge_point="CP1")
        binding = DeviceBinding("charger", load_profile("ocpp16_charger"), address, 22_080.0, reversion_s=60.0)
        driver = OcppDriver("ocpp", [binding], field, loop.time, random.Random(1))
        running = loop.create_task(driver.run(), name="driver")
        await field.until(lambda: driver.port != 0)
        async with online(driver.port) as charger:
            await charger.is_set_up()
            await charger.starts()
            await charger.measures(power(11_040.0))
            assert field.sample("charger", "power_w").value == 11_040.0
            driver.write(Setpoint("charger", 8_280.0, "test", loop.time() + 5.0, 1))
            await field.until(lambda: bool(field.results))
            assert [result.status for result in field.results] == [WriteStatus.ACKNOWLEDGED]
            for _ in range(180):
                await asyncio.sleep(5.0)
                await charger.beats()
        running.cancel()
        await asyncio.wait((running,))
        return loop.time() - BEGIN_S

    assert on_virtual_time(story()) >= 900.0

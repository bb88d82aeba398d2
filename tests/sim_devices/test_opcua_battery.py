"""The battery container as a plain OPC UA client sees it, against docs/opcua_battery.md."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asyncua import Client, ua

from config.twin import DeviceTwin
from sim_devices.models import BatteryModel
from sim_devices.opcua_battery import NAMESPACE, OpcUaBattery

DOUBLE, BOOLEAN = ua.VariantType.Double, ua.VariantType.Boolean


class Bench:
    """A battery twin, its clock, and a client's view of it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.model = BatteryModel("container", 30_000.0, DeviceTwin(soc=0.25, tr90_s=0.1), capacity_wh=60_000.0)
        self.client: Any = None
        self.index = 0

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            self.now_s += 0.01
            self.model.step(0.01, self.now_s)

    def node(self, name: str) -> Any:
        return self.client.get_node(f"ns={self.index};s=BatteryContainer.{name}")

    async def read(self, name: str) -> Any:
        return await self.node(name).read_value()

    async def write(self, name: str, value: Any, kind: Any) -> None:
        await self.node(name).write_value(value, kind)

    async def sees(self, name: str, wanted: Callable[[Any], bool]) -> None:
        async def condition() -> bool:
            return wanted(await self.read(name))

        await eventually(condition)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    it = Bench()
    async with OpcUaBattery(it.model, lambda: it.now_s) as twin, Client(twin.url) as client:
        it.client = client
        it.index = await client.get_namespace_index(NAMESPACE)
        yield it


async def test_the_variables_have_the_pages_names_types_and_units() -> None:
    async with bench() as it:
        children = await it.client.nodes.objects.get_child([f"{it.index}:BatteryContainer"])
        names = {(await child.read_browse_name()).Name for child in await children.get_children()}
        assert names == {
            "ActivePower",
            "StateOfCharge",
            "MaxChargePower",
            "MaxDischargePower",
            "State",
            "Heartbeat",
            "ActivePowerSetpoint",
            "RemoteEnable",
            "SetpointTimeout",
        }
        assert (await it.node("State").read_data_type_as_variant_type()) is ua.VariantType.Int32
        assert (await it.node("Heartbeat").read_data_type_as_variant_type()) is ua.VariantType.UInt32
        assert await it.read("StateOfCharge") == 25.0
        assert await it.read("MaxChargePower") == 30.0
        assert await it.read("SetpointTimeout") == 10.0
        assert await it.read("State") == 1
        it.run(3.5)
        await it.sees("Heartbeat", lambda beat: beat == 3)


async def test_a_setpoint_is_followed_once_it_is_enabled_and_positive_discharges() -> None:
    async with bench() as it:
        await it.write("ActivePowerSetpoint", 12.0, DOUBLE)
        it.run(1.0)
        assert it.model.power_w == 0.0
        await it.write("RemoteEnable", True, BOOLEAN)
        it.run(1.0)
        assert it.model.power_w == pytest.approx(-12_000.0, rel=1e-3)
        await it.sees("ActivePower", lambda power: power == pytest.approx(12.0, rel=1e-3))
        await it.sees("State", lambda state: state == 2)
        await it.write("ActivePowerSetpoint", -8.0, DOUBLE)
        it.run(1.0)
        await it.sees("ActivePower", lambda power: power == pytest.approx(-8.0, rel=1e-3))
        await it.write("RemoteEnable", False, BOOLEAN)
        it.run(1.0)
        await it.sees("ActivePower", lambda power: power == pytest.approx(0.0, abs=0.001))


async def test_what_is_out_of_range_or_of_another_type_is_refused_and_changes_nothing() -> None:
    refused: list[tuple[str, Any, Any, type[Exception]]] = [
        ("ActivePowerSetpoint", 30.1, DOUBLE, ua.uaerrors.BadOutOfRange),
        ("ActivePowerSetpoint", -30.1, DOUBLE, ua.uaerrors.BadOutOfRange),
        ("ActivePowerSetpoint", float("nan"), DOUBLE, ua.uaerrors.BadOutOfRange),
        ("ActivePowerSetpoint", 3, ua.VariantType.Int32, ua.uaerrors.BadTypeMismatch),
        ("ActivePowerSetpoint", [1.0, 2.0], DOUBLE, ua.uaerrors.BadTypeMismatch),
        ("SetpointTimeout", 0.9, DOUBLE, ua.uaerrors.BadOutOfRange),
        ("SetpointTimeout", 3601.0, DOUBLE, ua.uaerrors.BadOutOfRange),
        ("RemoteEnable", 1.0, DOUBLE, ua.uaerrors.BadTypeMismatch),
        ("ActivePower", 5.0, DOUBLE, ua.uaerrors.BadUserAccessDenied),
    ]
    async with bench() as it:
        await it.write("ActivePowerSetpoint", 5.0, DOUBLE)
        await it.write("RemoteEnable", True, BOOLEAN)
        for name, value, kind, error in refused:
            with pytest.raises(error):
                await it.write(name, value, kind)
        assert await it.read("ActivePowerSetpoint") == 5.0
        assert await it.read("SetpointTimeout") == 10.0
        assert it.model.setpoint_w == -5_000.0


async def test_the_watchdog_disables_and_both_have_to_be_written_again() -> None:
    async with bench() as it:
        await it.write("SetpointTimeout", 4.0, DOUBLE)
        await it.write("ActivePowerSetpoint", 20.0, DOUBLE)
        await it.write("RemoteEnable", True, BOOLEAN)
        it.run(3.5)
        await it.write("ActivePowerSetpoint", 20.0, DOUBLE)
        it.run(3.5)
        assert it.model.power_w == pytest.approx(-20_000.0, rel=1e-3)
        it.run(1.5)
        assert it.model.power_w == pytest.approx(0.0, abs=1.0)
        await it.sees("RemoteEnable", lambda enabled: enabled is False)
        await it.write("RemoteEnable", True, BOOLEAN)
        it.run(1.0)
        assert it.model.power_w == pytest.approx(0.0, abs=1.0), "enabling alone revives no old setpoint"
        await it.write("ActivePowerSetpoint", 10.0, DOUBLE)
        it.run(1.0)
        assert it.model.power_w == pytest.approx(-10_000.0, rel=1e-3)


async def test_values_are_pushed_to_a_subscriber_when_they_change() -> None:
    class Listener:
        def __init__(self) -> None:
            self.charging = asyncio.Event()

        def datachange_notification(self, node: Any, value: float, data: Any) -> None:
            if value < -4.9:
                self.charging.set()

    async with bench() as it:
        listener = Listener()
        subscription = await it.client.create_subscription(50, listener)
        await subscription.subscribe_data_change(it.node("ActivePower"))
        await it.write("ActivePowerSetpoint", -5.0, DOUBLE)
        await it.write("RemoteEnable", True, BOOLEAN)
        it.run(1.0)
        async with asyncio.timeout(5):
            await listener.charging.wait()


async def test_a_port_in_use_is_an_error_of_the_system() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        model = BatteryModel("container", 30_000.0, DeviceTwin(), capacity_wh=60_000.0)
        with pytest.raises(OSError, match="address already in use"):
            await OpcUaBattery(model, lambda: 0.0, port=taken.getsockname()[1]).start()

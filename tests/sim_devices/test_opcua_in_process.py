"""The battery container within the process, held against the one behind sockets: same variables, same verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asyncua import Client, ua

from config.twin import DeviceTwin
from sim_devices.models import BatteryModel
from sim_devices.opcua_battery import NAMESPACE, OpcUaBattery
from sim_devices.opcua_in_process import InProcessOpcUa

DOUBLE, BOOLEAN, INT32 = ua.VariantType.Double, ua.VariantType.Boolean, ua.VariantType.Int32
NAMES = (
    "ActivePower",
    "StateOfCharge",
    "MaxChargePower",
    "MaxDischargePower",
    "State",
    "Heartbeat",
    "ActivePowerSetpoint",
    "RemoteEnable",
    "SetpointTimeout",
)
WRITES = (
    ("SetpointTimeout", 5.0, DOUBLE),
    ("SetpointTimeout", 0.5, DOUBLE),
    ("ActivePowerSetpoint", -12.5, DOUBLE),
    ("ActivePowerSetpoint", 30.5, DOUBLE),
    ("ActivePowerSetpoint", float("nan"), DOUBLE),
    ("ActivePowerSetpoint", True, BOOLEAN),
    ("RemoteEnable", True, BOOLEAN),
    ("RemoteEnable", 1.0, DOUBLE),
)
"""What both are asked to take, in this order; the first one that is allowed of each stays."""


def battery() -> BatteryModel:
    return BatteryModel("container", 30_000.0, DeviceTwin(soc=0.25, tr90_s=0.1), capacity_wh=60_000.0)


def node(name: str, server: InProcessOpcUa) -> Any:
    found = server.resolve(NAMESPACE, f"s=BatteryContainer.{name}", None)
    assert isinstance(found, ua.NodeId), found
    return found


async def shows_the_same(inside: InProcessOpcUa, name: str, variable: Any) -> None:
    """Each shows what a write has changed with its own next push."""
    async with asyncio.timeout(5):
        while True:
            if inside.read(node(name, inside)).Value == (await variable.read_data_value()).Value:
                return
            await asyncio.sleep(0.01)


async def test_variables_types_and_the_verdict_on_each_write_are_those_of_the_server_behind_sockets() -> None:
    now_s = 1_000.0
    inside = InProcessOpcUa(battery(), lambda: now_s, lambda: now_s)
    inside.start()
    try:
        async with OpcUaBattery(battery(), lambda: now_s) as behind, Client(behind.url) as client:
            index = await client.get_namespace_index(NAMESPACE)
            for name, value, kind in WRITES:
                variant = ua.Variant(value, kind)
                target = ua.NodeId(f"BatteryContainer.{name}", index)
                told = (await client.uaclient.write_attributes([target], [ua.DataValue(variant)]))[0]
                assert inside.write(node(name, inside), variant) == told, (name, value)
            for name in NAMES:
                variable = client.get_node(ua.NodeId(f"BatteryContainer.{name}", index))
                await shows_the_same(inside, name, variable)
    finally:
        inside.stop()


async def test_what_is_not_there_is_told_as_such() -> None:
    server = InProcessOpcUa(battery(), lambda: 0.0, lambda: 0.0)
    server.start()
    assert isinstance(server.resolve("urn:other", "s=BatteryContainer.State", None), str)
    assert isinstance(server.resolve(NAMESPACE, "s=BatteryContainer.Nothing", None), str)
    assert isinstance(server.resolve(NAMESPACE, "s=State", None), str)
    assert server.resolve(NAMESPACE, None, ("BatteryContainer", "State")) == node("State", server)
    old = node("State", server)
    server.restart()
    assert server.read(old).StatusCode.value == ua.StatusCodes.BadNodeIdUnknown
    assert server.write(old, ua.Variant(1, INT32)).value == ua.StatusCodes.BadNodeIdUnknown
    assert server.read(node("State", server)).Value.Value == 1
    server.stop()


async def test_a_subscription_begins_with_the_present_tells_changes_and_says_when_there_are_none() -> None:
    server = InProcessOpcUa(battery(), asyncio.get_running_loop().time, lambda: 1_000.0)
    server.start()
    published: asyncio.Queue[dict[int, Any]] = asyncio.Queue()

    def publish(changes: Mapping[int, Any], at: datetime) -> None:
        published.put_nowait({place: data.Value.Value for place, data in changes.items()})

    nodes = [node("SetpointTimeout", server), node("State", server)]
    subscription = server.subscribe(nodes, 0.01, publish)
    async with asyncio.timeout(5):
        assert [subscription.monitors(one) for one in nodes] == [True, True]
        assert await published.get() == {0: 10.0, 1: 1}
        server.write(nodes[0], ua.Variant(7.0, DOUBLE))
        server.write(nodes[0], ua.Variant(8.0, DOUBLE))
        assert await published.get() == {0: 8.0}
        assert await published.get() == {}
        server.stalled = True
    server.detach(lambda: None, subscription)
    server.stop()


async def test_a_status_can_be_shown_for_a_time() -> None:
    server = InProcessOpcUa(battery(), lambda: 0.0, lambda: 0.0)
    server.start()
    server.show_status("StateOfCharge", ua.StatusCodes.UncertainLastUsableValue)
    assert server.read(node("StateOfCharge", server)).StatusCode.is_uncertain()
    server.show_status("StateOfCharge", None)
    data = server.read(node("StateOfCharge", server))
    assert data.StatusCode.is_good()
    assert data.Value.Value == 25.0
    server.stop()

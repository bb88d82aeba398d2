"""Faults of OPC UA: a real server, a real client, and the messages on either side of the proxy between them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua

from config.twin import DeviceTwin
from sim_devices.faults import FAULTS, FaultError, Target, TcpFaultProxy
from sim_devices.faults.points import KnownDevice, known_device
from sim_devices.faults.registry import OPCUA
from sim_devices.models import BatteryModel
from sim_devices.opcua_battery import NAMESPACE, OpcUaBattery
from sim_devices.opcua_messages import decoded, service_of
from sim_devices.opcua_speech import UaUnderstanding
from tests.sim_devices.faults.field import until
from tests.sim_devices.faults.sites import shipped, site_of
from tests.sim_devices.faults.tap import Tap

BOUND_S = 10.0
ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
POWER, SETPOINT, ENABLE, BEAT = "ActivePower", "ActivePowerSetpoint", "RemoteEnable", "Heartbeat"


def known(url: str = "opc.tcp://127.0.0.1:4840/") -> KnownDevice:
    address = {"driver": "opcua", "url": url}
    device = {"profile": "opcua_battery", "address": address, "rating_w": 30_000.0}
    return known_device(site_of(device), shipped("opcua_battery"), "unit")


def messages(data: bytes, service: str) -> list[Any]:
    """The messages of a service in a stream."""
    found = []
    while len(data) >= 8:
        size = int.from_bytes(data[4:8], "little")
        if service_of(data[:size]) == service:
            found.append(decoded(data[:size]))
        data = data[size:]
    return found


class Site:
    """A battery twin, the proxy with a tap on either side, and what a client sees through them."""

    def __init__(self, twin: OpcUaBattery, model: BatteryModel) -> None:
        self.twin = twin
        self.model = model
        self.device = known()
        self.client: Any = None
        self.index = 0
        self.changes: list[tuple[str, Any]] = []
        self.near: Tap
        self.far: Tap
        self.proxy: TcpFaultProxy

    def set(self, fault: str, **options: Any) -> Any:
        return self.proxy.faults.set_by(fault, options, Target((OPCUA,), "unit", self.device, understood=True))

    def node(self, name: str) -> Any:
        return self.client.get_node(f"ns={self.index};s=BatteryContainer.{name}")

    async def connect(self) -> Any:
        self.client = Client(f"opc.tcp://127.0.0.1:{self.near.port}/", timeout=2)
        await self.client.connect()
        self.index = await self.client.get_namespace_index(NAMESPACE)
        return self.client

    async def connect_when_let(self) -> None:
        """Try until the server lets a client in."""
        async with asyncio.timeout(BOUND_S):
            while True:
                try:
                    await self.connect()
                except (TimeoutError, OSError, ua.UaError):
                    await asyncio.sleep(0.01)
                else:
                    return

    async def data(self, name: str) -> Any:
        (found,) = await self.client.uaclient.read_attributes([self.node(name).nodeid], ua.AttributeIds.Value)
        return found

    async def value(self, name: str) -> Any:
        return (await self.data(name)).Value.Value

    def truth(self, name: str) -> Any:
        """What the server itself holds."""
        return (self.twin._server.read_attribute_value(self.twin._nodes[name])).Value.Value

    async def write(self, *values: tuple[str, Any]) -> list[Any]:
        kinds = {float: ua.VariantType.Double, bool: ua.VariantType.Boolean}
        nodes = [self.node(name).nodeid for name, _ in values]
        data = [ua.DataValue(ua.Variant(value, kinds[type(value)])) for _, value in values]
        return list(await self.client.uaclient.write_attributes(nodes, data))

    async def subscribe(self) -> None:
        subscription = await self.client.create_subscription(50, self)
        await subscription.subscribe_data_change([self.node(POWER), self.node(BEAT)])

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.changes.append((node.nodeid.Identifier.rpartition(".")[2], data.monitored_item.Value))

    def run(self, power_w: float) -> None:
        """Have the battery deliver another power."""
        self.model.power_w = power_w


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twin() -> AsyncIterator[tuple[OpcUaBattery, BatteryModel]]:
    """One server for all: its address space takes a second."""
    model = BatteryModel("container", 30_000.0, DeviceTwin(soc=0.5, tr90_s=0.1), capacity_wh=60_000.0)
    async with OpcUaBattery(model, time.monotonic) as served:
        yield served, model


@pytest_asyncio.fixture(loop_scope="module")
async def it(twin: tuple[OpcUaBattery, BatteryModel]) -> AsyncIterator[Site]:
    it = Site(*twin)
    it.run(0.0)
    async with AsyncExitStack() as stack:
        it.far = await stack.enter_async_context(Tap(it.twin.port))
        it.proxy = TcpFaultProxy(("127.0.0.1", it.far.port), protocol=OPCUA, understanding=UaUnderstanding([it.device]))
        stack.push_async_callback(it.proxy.close)
        it.near = await stack.enter_async_context(Tap(await it.proxy.listen()))
        await it.connect()
        await it.write((SETPOINT, 0.0), (ENABLE, False))
        await until_value(it, 0.0)
        it.far.asked = it.far.answered = it.near.asked = it.near.answered = b""
        try:
            yield it
        finally:
            with suppress(Exception):
                await it.client.disconnect()


@ONE_LOOP
async def test_without_a_fault_both_sides_hear_the_same(it: Site) -> None:
    await it.subscribe()
    assert await it.value(SETPOINT) == 0.0
    assert (await it.write((SETPOINT, 5.0), (ENABLE, True)))[0].is_good()
    await until(lambda: any(name == BEAT for name, _ in it.changes))
    await it.client.disconnect()
    await until(lambda: len(it.near.answered) == len(it.far.answered))
    assert (it.near.asked, it.near.answered) == (it.far.asked, it.far.answered)


@ONE_LOOP
@pytest.mark.parametrize(
    ("fault", "options", "heard"),
    [
        ("nan", {}, math.nan),
        ("flipped_sign", {}, 5.0),
        ("scale_factor", {"by": 3}, -0.005),
        ("drift", {"pu_per_s": 0.0}, -5.0),
        ("spikes", {"chance": 1.0, "size_pu": 0.0}, -5.0),
    ],
)
async def test_a_value_that_goes_wrong_does_so_on_the_clients_side_alone(
    it: Site, fault: str, options: dict[str, Any], heard: float
) -> None:
    it.run(5_000.0)
    await until_value(it, -5.0)
    it.set(fault, **options)
    assert await it.value(POWER) == pytest.approx(heard, nan_ok=True)
    sent = messages(it.far.answered, "ReadResponse")[-1].Results[0].Value.Value
    got = messages(it.near.answered, "ReadResponse")[-1].Results[0].Value.Value
    assert sent == -5.0
    assert got == pytest.approx(heard, nan_ok=True)
    it.proxy.faults.clear()
    assert await it.value(POWER) == -5.0


async def until_value(it: Site, wanted: float) -> None:
    await until(lambda: it.truth(POWER) == wanted)


@ONE_LOOP
async def test_a_spike_and_a_drift_move_by_the_rating(it: Site) -> None:
    it.set("spikes", chance=1.0)
    assert abs(await it.value(POWER)) == 90.0
    it.proxy.faults.clear()
    it.set("drift", pu_per_s=10.0)
    async with asyncio.timeout(BOUND_S):
        while await it.value(POWER) < 10.0:
            pass
    assert it.truth(POWER) == 0.0


@ONE_LOOP
async def test_a_frozen_value_stands_still_while_the_heartbeat_goes_on_and_the_other_way_round(it: Site) -> None:
    it.set("frozen_value")
    first = await it.value(POWER)
    it.run(5_000.0)
    await until_value(it, -5.0)
    assert await it.value(POWER) == first == 0.0
    it.proxy.faults.clear()
    it.set("frozen_heartbeat")
    beat = await it.value(BEAT)
    await until(lambda: it.truth(BEAT) != beat)
    assert (await it.value(BEAT), await it.value(POWER)) == (beat, -5.0)


@ONE_LOOP
@pytest.mark.parametrize(
    ("fault", "status", "value"),
    [("bad_status", "BadSensorFailure", -5.0), ("uncertain_status", "UncertainLastUsableValue", -5.0)],
)
async def test_a_status_comes_with_reads_and_with_notifications(
    it: Site, fault: str, status: str, value: float | None
) -> None:
    it.set(fault)
    await it.subscribe()
    it.run(5_000.0)
    await until_value(it, -5.0)
    data = await it.data(POWER)
    assert (data.StatusCode.name, data.Value.Value) == (status, value)
    assert messages(it.far.answered, "ReadResponse")[-1].Results[0].StatusCode.is_good()
    await until(lambda: (POWER, value) in [(name, told.Value.Value) for name, told in it.changes])
    assert {told.StatusCode.name for _, told in it.changes} == {status}


@ONE_LOOP
@pytest.mark.parametrize("keep_alive", [0, 1])
async def test_a_stalled_subscription_tells_of_nothing_while_reads_go_on(it: Site, keep_alive: int) -> None:
    await it.subscribe()
    await until(lambda: any(name == POWER for name, _ in it.changes))
    fault = it.set("subscription_stalled", keep_alive=keep_alive)
    told = len(it.changes)
    it.run(5_000.0)
    await until_value(it, -5.0)
    await until(lambda: fault.acted > 0)
    assert await it.value(POWER) == -5.0
    assert len(it.changes) == told
    if keep_alive:
        it.proxy.faults.clear()
        it.run(6_000.0)
        await until(lambda: (POWER, -6.0) in [(name, data.Value.Value) for name, data in it.changes])


@ONE_LOOP
async def test_a_lost_session_is_refused_and_a_new_one_let_in(it: Site) -> None:
    fault = it.set("session_lost")
    with pytest.raises(ua.uaerrors.BadSessionIdInvalid):
        await it.value(POWER)
    assert not messages(it.far.answered, "ServiceFault")
    assert len(messages(it.near.answered, "ServiceFault")) == fault.acted
    old = it.client
    await it.connect()
    assert await it.value(POWER) == 0.0
    with suppress(Exception):
        await old.disconnect()


@ONE_LOOP
async def test_a_restarted_server_has_its_namespaces_elsewhere(it: Site) -> None:
    before, old = it.index, it.client
    it.set("server_restart", down_s=0.05, by=2)
    with suppress(Exception):
        await old.disconnect()
    await it.connect_when_let()
    assert it.index == before + 2
    it.run(5_000.0)
    await until_value(it, -5.0)
    assert await it.value(POWER) == -5.0
    assert (await it.write((SETPOINT, 3.0)))[0].is_good()
    assert it.truth(SETPOINT) == 3.0
    it.index = before
    assert (await it.data(POWER)).StatusCode.name == "BadNodeIdUnknown"
    it.index = before + 2
    await it.subscribe()
    await until(lambda: (POWER, -5.0) in [(name, data.Value.Value) for name, data in it.changes])


@ONE_LOOP
async def test_an_ignored_write_is_good_and_does_not_happen(it: Site) -> None:
    it.set("write_ignored", point="setpoint_readback_w", shown=1)
    asked = len(messages(it.far.asked, "WriteRequest"))
    assert [status.is_good() for status in await it.write((SETPOINT, 4.0), (ENABLE, True))] == [True, True]
    assert [status.is_good() for status in await it.write((SETPOINT, 4.0))] == [True]
    assert (it.truth(SETPOINT), it.truth(ENABLE)) == (0.0, True)
    assert len(messages(it.far.asked, "WriteRequest")) == asked + 1
    assert await it.value(SETPOINT) == 4.0
    it.proxy.faults.clear()
    assert await it.value(SETPOINT) == 0.0
    assert (await it.write((SETPOINT, 4.0)))[0].is_good()
    assert it.truth(SETPOINT) == 4.0


@ONE_LOOP
async def test_a_clipped_write_is_good_and_less(it: Site) -> None:
    it.set("write_clipped", most_pu=0.1)
    assert (await it.write((SETPOINT, -20.0)))[0].is_good()
    assert it.truth(SETPOINT) == -3.0


@ONE_LOOP
async def test_a_reversion_takes_the_setpoint_away_behind_the_clients_back(it: Site) -> None:
    await it.subscribe()
    await it.write((SETPOINT, 4.0), (ENABLE, True))
    fault = it.set("reversion", power_pu=-0.5)
    await until(lambda: it.truth(SETPOINT) == 15.0)
    assert fault.acted == 1
    assert (await it.write((SETPOINT, 4.0)))[0].is_good()
    assert await it.value(SETPOINT) == 4.0
    assert len(messages(it.near.answered, "WriteResponse")) == len(messages(it.near.asked, "WriteRequest")) == 2
    assert len(messages(it.far.asked, "WriteRequest")) == 3


@ONE_LOOP
async def test_a_rebooted_device_is_back_with_its_defaults(it: Site) -> None:
    await it.write((SETPOINT, 4.0), (ENABLE, True))
    old = it.client
    it.set("reboot", down_s=0.05)
    with suppress(Exception):
        await old.disconnect()
    await it.connect_when_let()
    async with asyncio.timeout(BOUND_S):
        while it.truth(SETPOINT) != 0.0:
            await it.value(POWER)
    assert await it.value(SETPOINT) == 0.0


@ONE_LOOP
async def test_a_point_that_can_not_be_meant_is_refused(it: Site) -> None:
    with pytest.raises(FaultError, match="drift: point: is of numbers that can be read; of unit those are power_w"):
        it.set("drift", point="state")


TESTS: dict[str, Callable[..., Awaitable[None]]] = {
    "nan": test_a_value_that_goes_wrong_does_so_on_the_clients_side_alone,
    "flipped_sign": test_a_value_that_goes_wrong_does_so_on_the_clients_side_alone,
    "scale_factor": test_a_value_that_goes_wrong_does_so_on_the_clients_side_alone,
    "drift": test_a_spike_and_a_drift_move_by_the_rating,
    "spikes": test_a_spike_and_a_drift_move_by_the_rating,
    "frozen_value": test_a_frozen_value_stands_still_while_the_heartbeat_goes_on_and_the_other_way_round,
    "frozen_heartbeat": test_a_frozen_value_stands_still_while_the_heartbeat_goes_on_and_the_other_way_round,
    "bad_status": test_a_status_comes_with_reads_and_with_notifications,
    "uncertain_status": test_a_status_comes_with_reads_and_with_notifications,
    "subscription_stalled": test_a_stalled_subscription_tells_of_nothing_while_reads_go_on,
    "session_lost": test_a_lost_session_is_refused_and_a_new_one_let_in,
    "server_restart": test_a_restarted_server_has_its_namespaces_elsewhere,
    "write_ignored": test_an_ignored_write_is_good_and_does_not_happen,
    "write_clipped": test_a_clipped_write_is_good_and_less,
    "reversion": test_a_reversion_takes_the_setpoint_away_behind_the_clients_back,
    "reboot": test_a_rebooted_device_is_back_with_its_defaults,
}


def test_every_fault_of_opcua_has_a_test_on_the_wire() -> None:
    assert TESTS.keys() == {name for name, kind in FAULTS.items() if kind.understands and OPCUA in kind.applies_to}

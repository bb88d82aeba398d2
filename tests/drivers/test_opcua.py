"""Stories of the OPC UA driver against a real server with the address space of docs/opcua_battery.md."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
import yaml
from asyncua import Client, Server, ua
from asyncua.server.binary_server_asyncio import BinaryServer
from hypothesis import given
from hypothesis import strategies as st

from config.profile import Profile
from config.site import OpcUaServer
from config.vocabulary import LinkState, Quality, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.values import NodeCodec
from tests.drivers.field import Field, Wire, free_port

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
NAMESPACE = "urn:lamina:battery-container:v1"
PROFILE = Path("config/profiles/opcua_battery.yaml")
NODES = {
    "ActivePower": (5.0, ua.VariantType.Double),
    "StateOfCharge": (40.0, ua.VariantType.Double),
    "MaxChargePower": (30.0, ua.VariantType.Double),
    "MaxDischargePower": (25.0, ua.VariantType.Double),
    "State": (2, ua.VariantType.Int32),
    "Heartbeat": (0, ua.VariantType.UInt32),
    "ActivePowerSetpoint": (0.0, ua.VariantType.Double),
    "RemoteEnable": (False, ua.VariantType.Boolean),
    "SetpointTimeout": (10.0, ua.VariantType.Double),
}


class Container:
    """The battery container: its address space on a server, and every write that reached it, in order.

    It has two address spaces to restart with, the second with three more namespaces before its own.
    """

    def __init__(self, port: int) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}/"
        self.port = port
        self.writes: list[tuple[str, Any]] = []
        self.written = asyncio.Event()
        self._servers: dict[int, Server] = {}
        self._running: Server | None = None
        self._nodes: dict[str, Any] = {}
        self._beat: asyncio.Task[None] | None = None

    async def build(self, namespaces_before: int) -> None:
        server = Server()
        await server.init()
        server.set_endpoint(self.url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        for number in range(namespaces_before):
            await server.register_namespace(f"urn:other:{number}")
        index = await server.register_namespace(NAMESPACE)
        name = ua.QualifiedName("BatteryContainer", index)
        container = await server.nodes.objects.add_object(ua.NodeId("BatteryContainer", index), name)
        for variable, (value, kind) in NODES.items():
            identifier = ua.NodeId(f"BatteryContainer.{variable}", index)
            name = ua.QualifiedName(variable, index)
            await (await container.add_variable(identifier, name, value, varianttype=kind)).set_writable()
        self._guard(server)
        self._servers[namespaces_before] = server

    async def start(self, namespaces_before: int = 0, values: Mapping[str, Any] | None = None) -> None:
        """Listen, with every variable as after power-up but for `values`."""
        server = self._running = self._servers[namespaces_before]
        index = await server.get_namespace_index(NAMESPACE)
        for variable, (value, kind) in NODES.items():
            self._nodes[variable] = server.get_node(ua.NodeId(f"BatteryContainer.{variable}", index))
            await self.put(variable, (values or {}).get(variable, value), kind)
        self.writes.clear()
        self.written.clear()
        if server.bserver is None:
            await server.start()
        else:
            server.bserver = BinaryServer(server.iserver, "127.0.0.1", self.port, server.limits)
            server.bserver.set_policies(server._policies)
            await server.bserver.start()
        self.beat()

    async def stop(self) -> None:
        """Cut every connection and listen no more."""
        await self.freeze()
        if self._running is not None:
            server, self._running = self._running, None
            for transport in list(server.iserver.asyncio_transports):
                transport.abort()
            await server.bserver.stop()

    def cut(self) -> None:
        """Cut every connection; the server and its sessions live on."""
        assert self._running is not None
        for transport in list(self._running.iserver.asyncio_transports):
            transport.abort()

    def lose_sessions(self) -> None:
        """As after a restart: no session's token is known any more."""
        assert self._running is not None
        self._running.iserver._external_sessions.clear()

    @property
    def subscriptions(self) -> list[int]:
        """The ids of the subscriptions that the server has."""
        assert self._running is not None
        return list(self._running.iserver.subscription_service.subscriptions)

    @contextlib.contextmanager
    def counting_sessions(self) -> Iterator[list[str]]:
        """The names of the sessions that are created meanwhile."""
        assert self._running is not None
        inner, create, created = self._running.iserver, self._running.iserver.create_session, list[str]()

        def counted(name: str, *arguments: Any, **options: Any) -> Any:
            created.append(name)
            return create(name, *arguments, **options)

        inner.create_session = counted
        try:
            yield created
        finally:
            inner.create_session = create

    def stall(self) -> None:
        """The present subscriptions publish nothing more, not even keep-alives; everything else goes on."""
        assert self._running is not None
        for subscription in self._running.iserver.subscription_service.subscriptions.values():
            subscription.publish_results = _nothing

    async def dispose(self) -> None:
        await self.stop()
        started = [server for server in self._servers.values() if server.bserver is not None]
        await asyncio.gather(*(server.iserver.stop() for server in started))

    def _guard(self, server: Server) -> None:
        space = server.iserver.aspace
        write = space.write_attribute_value

        async def guarded(nodeid: Any, attr: Any, value: Any) -> Any:
            name = str(nodeid.Identifier).rpartition(".")[2]
            if attr == ua.AttributeIds.Value and name in ("ActivePowerSetpoint", "RemoteEnable", "SetpointTimeout"):
                self.writes.append((name, value.Value.Value))
                self.written.set()
                if name == "ActivePowerSetpoint" and abs(value.Value.Value) > 30.0:
                    return ua.StatusCode(ua.StatusCodes.BadOutOfRange)
            return await write(nodeid, attr, value)

        space.write_attribute_value = guarded

    def beat(self) -> None:
        self._beat = asyncio.create_task(self._beating())

    async def _beating(self) -> None:
        for count in range(int(time.monotonic() * 100) % 1_000_000, 4_000_000):
            await self.put("Heartbeat", count, ua.VariantType.UInt32)
            await asyncio.sleep(0.05)

    async def freeze(self) -> None:
        """The controller behind the server dies; the server lives on."""
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.gather(self._beat, return_exceptions=True)
            self._beat = None

    async def put(self, name: str, value: Any, kind: Any = ua.VariantType.Double, status: int = 0) -> None:
        stamp = datetime.now(UTC)
        data = ua.DataValue(ua.Variant(value, kind), StatusCode=ua.StatusCode(status), SourceTimestamp=stamp)
        await self._nodes[name].write_value(data)


async def _nothing() -> None:
    pass


def profile_text() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(PROFILE.read_text())
    return raw


def battery(url: str, **changes: Any) -> DeviceBinding:
    raw = profile_text()
    raw["pace"] |= {"slow_poll_s": 0.2, "silence_s": 0.6, "publishing_interval_s": 0.05}
    for path, value in changes.pop("profile", {}).items():
        raw[path] = value
    profile = Profile.model_validate(raw)
    address = OpcUaServer(driver="opcua", url=url)
    figures: dict[str, Any] = {"rating_w": 30_000.0, "reversion_s": 10.0} | changes
    return DeviceBinding("battery", profile, address, **figures)


def setpoint(power_w: float, sequence: int = 1, life_s: float = 5.0) -> Setpoint:
    return Setpoint("battery", power_w, "test", time.monotonic() + life_s, sequence)


@contextlib.asynccontextmanager
async def running(driver: OpcUaDriver) -> AsyncIterator[OpcUaDriver]:
    """The driver at work; once cancelled, it has left no task and no socket behind."""
    task = asyncio.create_task(driver.run())
    try:
        yield driver
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        left = [name for other in asyncio.all_tasks() for name in [code_file(other)] if is_client(name)]
        assert task.cancelled()
        assert left == []


def code_file(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code is not None else ""


def is_client(filename: str) -> bool:
    return "/drivers/opcua" in filename or "/asyncua/client" in filename or "/asyncua/common" in filename


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def built() -> AsyncIterator[Container]:
    """Building an address space takes a second, so that it is done once."""
    made = Container(free_port())
    await made.build(0)
    await made.build(3)
    yield made
    await made.dispose()


@pytest_asyncio.fixture(loop_scope="module")
async def container(built: Container) -> AsyncIterator[Container]:
    await built.start()
    yield built
    await built.stop()


def driver_for(field: Field, *bindings: DeviceBinding) -> OpcUaDriver:
    return OpcUaDriver("opcua", bindings, field, time.monotonic, random.Random(1))


@ONE_LOOP
async def test_values_arrive_in_load_convention_with_quality_and_time(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        await field.until(lambda: field.sample("battery", "power_w").value == -5000.0)
        await field.until(lambda: field.sample("battery", "setpoint_timeout_s").value == 10.0)
        assert field.sample("battery", "soc").value == pytest.approx(0.4)
        assert field.sample("battery", "max_discharge_w").value == 25_000.0
        assert field.sample("battery", "state").value == "running"
        assert field.links == [(LinkState.CONNECTING, ""), (LinkState.UP, "")]
        assert field.present == [("battery", True, "answers")]

        changed = time.monotonic()
        await container.put("ActivePower", -12.5)
        await field.until(lambda: field.sample("battery", "power_w").value == 12_500.0)
        power = field.sample("battery", "power_w")
        assert power.quality is Quality.GOOD
        assert changed - 0.05 <= power.measured_s <= time.monotonic()
        assert driver.stats.devices == {"battery": True}
        assert driver.poll() == ()


@ONE_LOOP
async def test_the_servers_status_is_the_samples_quality(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        await container.put("ActivePower", 7.0, status=ua.StatusCodes.UncertainLastUsableValue)
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.UNCERTAIN)
        assert field.sample("battery", "power_w").value == -7000.0
        await container.put("ActivePower", 7.0, status=ua.StatusCodes.BadSensorFailure)
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.BAD)
        assert field.sample("battery", "power_w").value is None
        assert field.sample("battery", "soc").quality is Quality.GOOD
        await container.put("StateOfCharge", 250.0)
        await field.until(lambda: field.sample("battery", "soc").quality is Quality.BAD)
        await container.put("StateOfCharge", float("nan"))
        await container.put("ActivePower", 1.0)
        await field.until(lambda: field.sample("battery", "power_w").value == -1000.0)
        assert field.sample("battery", "soc").quality is Quality.BAD
        assert driver.stats.exceptions >= 1
        assert driver.stats.rejected >= 2


@ONE_LOOP
async def test_a_value_that_stays_the_same_stays_fresh(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))):
        await field.until(lambda: field.sample("battery", "power_w").value == -5000.0)
        first = field.sample("battery", "power_w").measured_s
        await field.until(lambda: field.sample("battery", "power_w").measured_s > first + 0.5)
        assert time.monotonic() - field.sample("battery", "power_w").measured_s < 0.5


@ONE_LOOP
async def test_a_frozen_controller_behind_a_live_server_is_absent(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        await container.freeze()
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.BAD)
        await field.until(lambda: field.present[-1][1] is False)
        assert "no sign of life" in field.present[-1][2]
        assert driver.stats.state is LinkState.UP
        container.beat()
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        assert field.present[-1][1] is True


@ONE_LOOP
async def test_a_setpoint_is_written_value_before_enable_in_the_devices_convention(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        driver.write(setpoint(10_000.0))
        await field.until(lambda: len(field.results) == 1)
        assert field.results[0].status is WriteStatus.ACKNOWLEDGED
        assert container.writes == [("SetpointTimeout", 10.0), ("ActivePowerSetpoint", -10.0), ("RemoteEnable", True)]
        driver.write(setpoint(-4_000.0, 2))
        await field.until(lambda: len(field.results) == 2)
        assert container.writes[3:] == [("ActivePowerSetpoint", 4.0), ("RemoteEnable", True)]
        await field.until(lambda: field.sample("battery", "setpoint_readback_w").value == -4_000.0)
        assert driver.stats.writes_acknowledged == 2


@ONE_LOOP
async def test_the_newest_setpoint_supersedes_one_that_has_not_gone_out(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        for sequence in (1, 2, 3):
            driver.write(setpoint(1000.0 * sequence, sequence))
        await field.until(lambda: len(field.results) == 3)
        assert [(r.sequence, r.status) for r in field.results] == [
            (1, WriteStatus.SUPERSEDED),
            (2, WriteStatus.SUPERSEDED),
            (3, WriteStatus.ACKNOWLEDGED),
        ]
        assert [value for name, value in container.writes if name == "ActivePowerSetpoint"] == [-3.0]


@ONE_LOOP
async def test_a_refused_value_is_reported_and_never_enabled(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url, rating_w=50_000.0))) as driver:
        driver.write(setpoint(40_000.0))
        await field.until(lambda: len(field.results) == 1)
        assert field.results[0].status is WriteStatus.REFUSED
        assert "BadOutOfRange" in field.results[0].detail
        assert "RemoteEnable" not in dict(container.writes)
        assert driver.stats.writes_failed == 1


@ONE_LOOP
async def test_what_must_not_be_written_is_refused_before_it_is_sent(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url, reversion_s=9999.0))) as driver:
        driver.write(setpoint(1000.0, 1))
        driver.write(setpoint(float("nan"), 2))
        driver.write(Setpoint("stranger", 0.0, "test", time.monotonic() + 1, 3))
        await field.until(lambda: len(field.results) == 3)
        assert {r.sequence: r.status for r in field.results} == dict.fromkeys((1, 2, 3), WriteStatus.REFUSED)
        assert "9999" in next(r.detail for r in field.results if r.sequence == 1)
        assert container.writes == []


@ONE_LOOP
async def test_a_read_only_device_is_read_and_never_written(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url, writable=False))) as driver:
        driver.write(setpoint(1000.0))
        assert field.results[0].status is WriteStatus.REFUSED
        assert "read-only" in field.results[0].detail
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        await driver.rest(1.0)
        assert container.writes == []


@ONE_LOOP
async def test_the_rest_state_is_written_and_nothing_after_it(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        driver.write(setpoint(10_000.0))
        await field.until(lambda: len(field.results) == 1)
        await driver.rest(2.0)
        assert container.writes[-2:] == [("RemoteEnable", False), ("ActivePowerSetpoint", 0.0)]


@ONE_LOOP
async def test_a_restarted_server_is_found_again_under_another_namespace_index(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        driver.write(setpoint(10_000.0, life_s=30))
        await field.until(lambda: len(field.results) == 1)
        await container.stop()
        await field.until(field.is_lost)
        assert field.sample("battery", "power_w").quality is Quality.BAD
        assert field.present[-1][1] is False

        await container.start(namespaces_before=3, values={"ActivePower": 9.0})
        returned = time.monotonic()
        async with asyncio.timeout(5):
            await container.written.wait()
        await field.until(lambda: field.sample("battery", "power_w").value == -9000.0)
        assert time.monotonic() - returned < 2.0
        # The device may have forgotten everything, so that all of it comes again, timer included.
        assert container.writes[:2] == [("SetpointTimeout", 10.0), ("ActivePowerSetpoint", -10.0)]
        assert driver.stats.reconnects == 1
        assert [state for state, _ in field.links].count(LinkState.LOST) == 1
        assert len(field.results) == 1


@ONE_LOOP
async def test_a_link_that_was_cut_takes_up_its_session_again(container: Container) -> None:
    field, before = Field(), container.subscriptions
    with container.counting_sessions() as sessions:
        async with running(driver_for(field, battery(container.url))) as driver:
            await field.until(lambda: field.sample("battery", "power_w").value == -5000.0)
            for cuts in range(1, 4):
                driver.write(setpoint(1000.0 * cuts, cuts))
                await field.until(lambda cuts=cuts: len(field.results) == cuts)
                container.cut()
                await field.until(lambda cuts=cuts: driver.stats.reconnects == cuts)
                await container.put("ActivePower", float(cuts))
                await field.until(lambda cuts=cuts: field.sample("battery", "power_w").value == -1000.0 * cuts)
            assert len(sessions) == 1
            assert len(set(container.subscriptions) - set(before)) == 1, (
                "what the cut link had subscribed to is deleted"
            )


@ONE_LOOP
async def test_a_session_that_the_server_no_longer_has_is_made_anew(container: Container) -> None:
    field = Field()
    with container.counting_sessions() as sessions:
        async with running(driver_for(field, battery(container.url))) as driver:
            await field.until(lambda: field.sample("battery", "power_w").value == -5000.0)
            container.lose_sessions()
            container.cut()
            await field.until(lambda: driver.stats.reconnects == 1)
            await container.put("ActivePower", 2.0)
            await field.until(lambda: field.sample("battery", "power_w").value == -2000.0)
            assert len(sessions) == 2


@ONE_LOOP
async def test_the_first_write_after_reconnecting_is_the_newest_setpoint(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver:
        driver.write(setpoint(10_000.0, 1, life_s=30))
        await field.until(lambda: len(field.results) == 1)
        await container.stop()
        await field.until(field.is_lost)
        driver.write(setpoint(1_000.0, 2))
        driver.write(setpoint(2_000.0, 3))
        await container.start()
        await field.until(lambda: any(r.sequence == 3 for r in field.results))
        assert [value for name, value in container.writes if name == "ActivePowerSetpoint"] == [-2.0]
        assert [r.status for r in field.results[1:]] == [WriteStatus.SUPERSEDED, WriteStatus.ACKNOWLEDGED]


@ONE_LOOP
async def test_a_setpoint_that_expires_while_the_server_is_away_is_never_sent(container: Container) -> None:
    field = Field()
    await container.stop()
    async with running(driver_for(field, battery(container.url))) as driver:
        driver.write(setpoint(10_000.0, life_s=0.1))
        await field.until(lambda: len(field.results) == 1)
        assert field.results[0].status is WriteStatus.EXPIRED
        await container.start()
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        driver.write(setpoint(1_000.0, 2))
        await field.until(lambda: len(field.results) == 2)
        assert -10.0 not in [value for _, value in container.writes]


@ONE_LOOP
async def test_a_silent_line_makes_a_write_indeterminate_and_nothing_of_it_lands_later(container: Container) -> None:
    field = Field()
    wire = Wire(container.port)
    await wire.start()
    try:
        async with running(driver_for(field, battery(f"opc.tcp://127.0.0.1:{wire.port}/"))) as driver:
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
            wire.go_dark()
            driver.write(setpoint(10_000.0, 1))
            await field.until(lambda: len(field.results) == 1)
            assert field.results[0].status is WriteStatus.INDETERMINATE
            await field.until(field.is_lost)
            driver.write(setpoint(1_000.0, 2))
            wire.go_light()
            await field.until(lambda: any(r.sequence == 2 for r in field.results))
            assert [value for name, value in container.writes if name == "ActivePowerSetpoint"] == [-1.0]
            assert driver.stats.timeouts >= 1
    finally:
        await wire.stop()


@ONE_LOOP
async def test_a_line_that_falls_silent_without_a_write_is_noticed(container: Container) -> None:
    field = Field()
    wire = Wire(container.port)
    await wire.start()
    try:
        async with running(driver_for(field, battery(f"opc.tcp://127.0.0.1:{wire.port}/"))):
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
            wire.go_dark()
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.BAD, within_s=3.0)
            wire.go_light()
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
    finally:
        await wire.stop()


@ONE_LOOP
async def test_nodes_by_browse_path_and_nodes_that_are_not_there(container: Container) -> None:
    raw = profile_text()["points"]
    raw["power_w"]["opcua"] = {"namespace": NAMESPACE, "path": ["BatteryContainer", "ActivePower"]}
    raw["soc"]["opcua"]["identifier"] = "s=BatteryContainer.Absent"
    raw["state"]["opcua"]["namespace"] = "urn:absent"
    field = Field()
    async with running(driver_for(field, battery(container.url, profile={"points": raw}))) as driver:
        await field.until(lambda: field.sample("battery", "power_w").value == -5000.0)
        assert field.sample("battery", "soc").quality is Quality.BAD
        assert field.sample("battery", "state").quality is Quality.BAD
        assert driver.stats.devices == {"battery": True}


@ONE_LOOP
async def test_a_peer_that_talks_nonsense_is_a_lost_link_and_nothing_more() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(random.Random(7).randbytes(400))
        writer.write(b"ACKF\x1c\x00\x00\x00" + bytes(20) + b"MSGF\xff\xff\xff\x7f")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    field = Field()
    try:
        async with running(driver_for(field, battery(f"opc.tcp://127.0.0.1:{port}/"))) as driver:
            await field.until(field.is_lost)
            driver.write(setpoint(1.0, life_s=0.2))
            await field.until(lambda: len(field.results) == 1)
            assert field.results[0].status is WriteStatus.EXPIRED
            assert len(field.links) == 2
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("seed", range(4))
@ONE_LOOP
async def test_bytes_that_are_no_opc_ua_in_the_middle_of_a_session_cost_one_connection(
    container: Container, seed: int
) -> None:
    field = Field()
    wire = Wire(container.port)
    await wire.start()
    try:
        async with running(driver_for(field, battery(f"opc.tcp://127.0.0.1:{wire.port}/"))) as driver:
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
            noise = random.Random(seed).randbytes(64)
            wire.inject(noise if seed % 2 else b"MSGF" + (8 + len(noise)).to_bytes(4, "little") + noise)
            await field.until(field.is_lost)
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
            assert driver.stats.lost == driver.stats.reconnects == 1
    finally:
        await wire.stop()


@ONE_LOOP
async def test_a_missing_password_is_named_and_not_a_crash(container: Container) -> None:
    field = Field()
    binding = battery(container.url)
    address = OpcUaServer(driver="opcua", url=container.url, username="me", password_env="LAMINA_TEST_UNSET")
    changed = DeviceBinding("battery", binding.profile, address, 30_000.0)
    async with running(driver_for(field, changed)):
        await field.until(field.is_lost)
        assert "LAMINA_TEST_UNSET" in field.links[-1][1]


def without_heartbeat() -> dict[str, Any]:
    """Points of a device that shows its life by its values alone; one of them is polled."""
    points = {name: point for name, point in profile_text()["points"].items() if name != "heartbeat"}
    points["state"] |= {"poll": "slow"}
    return points


@pytest.mark.parametrize("heartbeat", [True, False])
@ONE_LOOP
async def test_a_subscription_that_stalls_in_a_live_session_is_noticed_and_made_anew(
    container: Container, heartbeat: bool
) -> None:
    field = Field()
    changes = {} if heartbeat else {"profile": {"points": without_heartbeat()}}
    async with running(driver_for(field, battery(container.url, **changes))) as driver:
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        await field.until(lambda: field.sample("battery", "state").quality is Quality.GOOD)
        container.stall()
        stalled_s = time.monotonic()
        # Reads are answered, and say nothing about what was subscribed to.
        await field.until(lambda: heartbeat or field.sample("battery", "state").measured_s > stalled_s + 0.3)
        power = field.sample("battery", "power_w")
        assert power.quality is Quality.BAD or power.measured_s < stalled_s + 0.2
        await field.until(field.is_lost)
        assert "the subscription was silent" in field.links[-1][1]
        await container.put("ActivePower", 8.0)
        await field.until(lambda: field.sample("battery", "power_w").value == -8000.0)
        assert driver.stats.lost == driver.stats.reconnects == 1


class Late(Wire):
    """A line on which a server's answers come much later, if ever."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.on_time = asyncio.Event()
        self.on_time.set()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = writer in self._clients
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if answers:
                    await self.on_time.wait()
                writer.write(data)


@ONE_LOOP
async def test_a_server_that_answers_late_blocks_nothing_and_its_answers_count_for_nothing(
    container: Container,
) -> None:
    field = Field()
    wire = Late(container.port)
    await wire.start()
    try:
        async with running(driver_for(field, battery(f"opc.tcp://127.0.0.1:{wire.port}/"))) as driver:
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
            wire.on_time.clear()
            driver.write(setpoint(10_000.0, 1))
            driver.write(setpoint(9_000.0, 2, life_s=0.2))
            await field.until(lambda: len(field.results) == 2)
            assert {r.sequence: r.status for r in field.results} == {
                1: WriteStatus.SUPERSEDED,
                2: WriteStatus.INDETERMINATE,
            }
            await field.until(field.is_lost)
            # While nobody lets us in, setpoints expire at their time, and the newest is the one that counts.
            driver.write(setpoint(8_000.0, 3, life_s=0.1))
            await field.until(lambda: len(field.results) == 3)
            assert field.results[-1].status is WriteStatus.EXPIRED
            async with asyncio.timeout(2):
                await driver.rest(60.0)
            driver.write(setpoint(1_000.0, 4))
            container.writes.clear()
            wire.on_time.set()
            await field.until(lambda: field.results[-1].sequence == 4)
            assert field.results[-1].status is WriteStatus.ACKNOWLEDGED
            values = [value for name, value in container.writes if name == "ActivePowerSetpoint"]
            assert values == [-1.0]
    finally:
        await wire.stop()


@ONE_LOOP
async def test_a_server_that_never_answers_is_a_lost_link_that_ends_when_told() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    field = Field()
    try:
        binding = battery(f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        async with running(driver_for(field, binding)):
            await field.until(field.is_lost)
            assert field.links[-1][1] == "no hello: no answer within 0.5 s"
    finally:
        server.close()
        await server.wait_closed()


SOME_NUMBER = st.floats() | st.integers() | st.booleans()


@given(raw=SOME_NUMBER | st.text() | st.none() | st.binary() | st.lists(SOME_NUMBER), status=st.integers(0, 2**32 - 1))
def test_whatever_a_node_holds_is_a_value_of_its_point_or_a_bad_sample(raw: object, status: int) -> None:
    for name, point in Profile.model_validate(profile_text()).points.items():
        assert point.opcua is not None
        data = SimpleNamespace(Value=SimpleNamespace(Value=raw), StatusCode=ua.StatusCode(status))
        sample = NodeCodec(point, point.opcua).sample(data, 1.0)
        assert (sample.value is None) == (sample.quality is Quality.BAD)
        if isinstance(sample.value, float):
            assert math.isfinite(sample.value)
            assert point.range is None or point.range[0] <= sample.value <= point.range[1]
        elif sample.value is not None:
            assert name == "state"


@given(power_w=st.floats(-1e9, 1e9))
def test_a_written_power_reads_back_as_itself(power_w: float) -> None:
    point = Profile.model_validate(profile_text()).points["setpoint_readback_w"]
    assert point.opcua is not None
    codec = NodeCodec(point, point.opcua)
    data = SimpleNamespace(Value=codec.variant(codec.encode(power_w)), StatusCode=ua.StatusCode())
    assert codec.sample(data, 0.0).value == pytest.approx(power_w, abs=1e-5)


@ONE_LOOP
async def test_a_write_takes_hardly_longer_than_a_plain_client_s(container: Container) -> None:
    field = Field()
    async with running(driver_for(field, battery(container.url))) as driver, Client(container.url) as plain:
        await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
        index = await plain.get_namespace_index(NAMESPACE)
        node = plain.get_node(ua.NodeId("BatteryContainer.ActivePower", index))
        took: dict[str, list[float]] = {"ours": [], "plain": []}
        for sequence in range(40):
            started_s = time.monotonic()
            driver.write(setpoint(100.0 * sequence, sequence))
            await field.until(lambda count=sequence + 1: len(field.results) == count)  # type: ignore[misc]
            between_s = time.monotonic()
            await node.read_value()
            took["ours"].append(between_s - started_s)
            took["plain"].append(time.monotonic() - between_s)
        assert min(took["ours"]) < 20.0 * median(took["plain"])

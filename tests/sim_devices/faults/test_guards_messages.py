"""What the gateway's checks of OPC UA and of what parents say are good for: with each of them out, its fault does harm.

Where a check is out, what is waited for can't come, so that a short wait shows it; where it is in, the wait is long.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

import aiomqtt
import pytest
import pytest_asyncio
from asyncua import ua

from config.messages import AckStatus, Down, OrderMessage, down_topic
from config.site import MqttBroker, OpcUaServer
from config.twin import DeviceTwin
from config.vocabulary import POWER_W, LinkState, Quality
from drivers.backoff import Backoff
from drivers.binding import DeviceBinding
from drivers.opcua import connection as opcua_connection
from drivers.opcua.driver import OpcUaDriver
from drivers.pushed import PushedDevice
from gateway.orders import admission as admission_module
from gateway.orders import book as book_module
from gateway.orders.book import OrderBook
from gateway.orders.held import ParentState
from gateway.parent.mqtt_parent import MqttParent
from gateway.parent.receive import Received, receive
from sim_devices.broker import EmbeddedBroker
from sim_devices.faults import Target, TcpFaultProxy
from sim_devices.faults.mqtt_speech import MqttUnderstanding
from sim_devices.faults.registry import MQTT, OPCUA, PARENT
from sim_devices.models import BatteryModel
from sim_devices.opcua_battery import OpcUaBattery
from sim_devices.opcua_speech import UaUnderstanding
from tests.drivers.field import Field
from tests.sim_devices.faults.field import until
from tests.sim_devices.faults.sites import shipped
from tests.sim_devices.faults.test_opcua_wire import known

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
LONG_S, SHORT_S = 10.0, 0.5
HEARTBEAT_TIMEOUT_S = 0.3

Out: TypeAlias = Callable[[pytest.MonkeyPatch], None]
"""Takes a check out."""


async def came(condition: Callable[[], bool], wait_s: float) -> bool:
    try:
        async with asyncio.timeout(wait_s):
            await until(condition)
    except TimeoutError:
        return False
    return True


# OPC UA


class Container(NamedTuple):
    """The battery container behind its proxy, and the driver on it."""

    proxy: TcpFaultProxy
    field: Field
    driver: OpcUaDriver

    def set(self, fault: str, **options: Any) -> None:
        self.proxy.faults.set_by(fault, options, Target((OPCUA,), "unit", known(), understood=True))

    def quality(self) -> Quality:
        return self.field.sample("unit", POWER_W).quality


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twin() -> AsyncIterator[tuple[OpcUaBattery, BatteryModel]]:
    """One server for all: its address space takes a second."""
    model = BatteryModel("container", 30_000.0, DeviceTwin(soc=0.5, tr90_s=0.1), capacity_wh=60_000.0)
    async with OpcUaBattery(model, time.monotonic) as served:
        yield served, model


@asynccontextmanager
async def container(twin: OpcUaBattery) -> AsyncIterator[Container]:
    profile = shipped("opcua_battery")
    profile = profile.model_copy(update={"pace": profile.pace.model_copy(update={"silence_s": 1.2})})
    proxy = TcpFaultProxy(("127.0.0.1", twin.port), protocol=OPCUA, understanding=UaUnderstanding([known()]))
    await proxy.listen()
    field = Field()
    address = OpcUaServer(driver="opcua", url=f"opc.tcp://127.0.0.1:{proxy.port}/")
    binding = DeviceBinding("unit", profile, address, 30_000.0)
    driver = OpcUaDriver("link", [binding], field, time.monotonic, rng=random.Random(1))
    running = asyncio.create_task(driver.run(), name="link")
    try:
        await until(lambda: field.sample("unit", POWER_W).quality is Quality.GOOD)
        yield Container(proxy, field, driver)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await proxy.close()


class UaGuard(NamedTuple):
    """A fault of OPC UA, the check that keeps its harm away, and the harm."""

    fault: str
    check: str
    out: Out
    harm: Callable[[Container, BatteryModel, float], Awaitable[bool]]


def no_status_is_bad(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ua.StatusCode, "is_bad", lambda self: False)


def no_status_is_uncertain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ua.StatusCode, "is_uncertain", lambda self: False)


def any_heartbeat_beats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PushedDevice, "beats", lambda self, fresh: True)


def silence_is_fine(patch: pytest.MonkeyPatch) -> None:
    async def wait(self: Any) -> Any:
        await self._arrived.wait()
        self._arrived.clear()
        changes, self._changes = self._changes, {}
        return opcua_connection.Publication(changes, self._published)

    patch.setattr(opcua_connection.OpcUaConnection, "publication", wait)


def nobody_reconnects(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "pause_s", lambda self: 1e6)


def namespaces_are_numbers(patch: pytest.MonkeyPatch) -> None:
    def fixed(address: Any, uris: Any) -> Any:
        return ua.NodeId.from_string(f"ns=2;{address.identifier}")

    patch.setattr(opcua_connection, "_node_id", fixed)


async def changed_power(it: Container, model: BatteryModel) -> None:
    """The device delivers another power than before, and the driver hears of it."""
    model.power_w = 1_000.0 if model.power_w != 1_000.0 else 2_000.0
    await until(lambda: it.proxy.faults.as_json()[-1]["acted"] > 0)


async def a_bad_value_is_good(it: Container, model: BatteryModel, wait_s: float) -> bool:
    it.set("bad_status")
    await changed_power(it, model)
    return not await came(lambda: it.quality() is Quality.BAD, wait_s)


async def an_uncertain_value_is_good(it: Container, model: BatteryModel, wait_s: float) -> bool:
    it.set("uncertain_status")
    await changed_power(it, model)
    return not await came(lambda: it.quality() is Quality.UNCERTAIN, wait_s)


async def a_dead_device_lives(it: Container, model: BatteryModel, wait_s: float) -> bool:
    it.set("frozen_heartbeat")
    return not await came(lambda: not it.field.present[-1][1], 1.3 + wait_s)


async def a_stalled_link_is_up(it: Container, model: BatteryModel, wait_s: float) -> bool:
    it.set("subscription_stalled")
    return not await came(lambda: it.field.links[-1][0] is not LinkState.UP, 1.6 + wait_s)


async def never_served_again(it: Container, model: BatteryModel, wait_s: float, fault: str = "session_lost") -> bool:
    it.set(fault, **({"down_s": 0.02} if fault == "server_restart" else {}))
    if fault == "session_lost":
        await until(lambda: it.proxy.faults.as_json()[-1]["acted"] > 0)
    await until(lambda: it.field.links[-1][0] is LinkState.LOST)
    model.power_w = model.power_w + 1_000.0
    wanted = model.power_w
    return not await came(lambda: it.field.sample("unit", POWER_W).value == pytest.approx(wanted), 0.5 + wait_s)


async def never_found_again(it: Container, model: BatteryModel, wait_s: float) -> bool:
    return await never_served_again(it, model, wait_s, "server_restart")


UA_GUARDS = [
    UaGuard("bad_status", "a bad status makes a bad sample", no_status_is_bad, a_bad_value_is_good),
    UaGuard("uncertain_status", "quality follows the status", no_status_is_uncertain, an_uncertain_value_is_good),
    UaGuard("frozen_heartbeat", "a repeated heartbeat is none", any_heartbeat_beats, a_dead_device_lives),
    UaGuard("subscription_stalled", "silence ends the connection", silence_is_fine, a_stalled_link_is_up),
    UaGuard("session_lost", "a refused session is made anew", nobody_reconnects, never_served_again),
    UaGuard("server_restart", "namespaces are looked up by name", namespaces_are_numbers, never_found_again),
]


@ONE_LOOP
@pytest.mark.parametrize("guard", UA_GUARDS, ids=lambda guard: guard.fault)
async def test_a_fault_of_opcua_does_harm_only_when_its_check_is_taken_out(
    guard: UaGuard, twin: tuple[OpcUaBattery, BatteryModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, model = twin
    async with container(server) as it:
        assert not await guard.harm(it, model, LONG_S), f"although {guard.check}"
    guard.out(monkeypatch)
    async with container(server) as it:
        assert await guard.harm(it, model, SHORT_S), f"unless {guard.check}"


# Parents


class Operator:
    """A parent on a broker, the proxy before it, and the order book of a site that hears it."""

    def __init__(self, proxy: TcpFaultProxy, client: aiomqtt.Client) -> None:
        self.proxy = proxy
        self.parents = {"dso": ParentState(HEARTBEAT_TIMEOUT_S, True)}
        self.book = OrderBook(100e3, self.parents, time.monotonic, time.time)
        self.received: list[Received] = []
        self.believes_retained = False
        self._client = client
        broker = MqttBroker(host=proxy.host, port=proxy.port)
        self.link = MqttParent("bench", "dso", broker, self._handle, time.time, 1.0, 10)

    def _handle(self, kind: str, payload: bytes, retained: bool) -> None:
        retained = retained and not self.believes_retained
        self.received.append(receive(self.book, "dso", kind, payload, retained=retained))

    def set(self, fault: str, **options: Any) -> None:
        self.proxy.faults.set_by(fault, options, Target((PARENT, MQTT), "dso", parent="dso", understood=True))

    async def say(self, kind: Down, message: dict[str, Any], heard: int = 1) -> None:
        """Publish, and wait until the site has heard so many messages more."""
        before = len(self.received)
        said = {"issued_at": datetime.now(UTC).isoformat(), **message}
        await self._client.publish(down_topic("bench", "dso", kind), json.dumps(said), qos=1)
        await until(lambda: len(self.received) >= before + heard)

    async def beat(self, sequence: int, heard: int = 1) -> None:
        await self.say(Down.HEARTBEAT, {"sequence": sequence}, heard)

    def accepted(self) -> list[str]:
        """The orders that were accepted, as often as they were."""
        outcomes = [outcome for received in self.received for outcome in received.outcomes]
        return [outcome.order_id for outcome in outcomes if outcome.status is AckStatus.ACCEPTED]


@asynccontextmanager
async def operator() -> AsyncIterator[Operator]:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(EmbeddedBroker())
        proxy = TcpFaultProxy((broker.host, broker.port), protocol=MQTT, understanding=MqttUnderstanding())
        stack.push_async_callback(proxy.close)
        await proxy.listen()
        it = Operator(proxy, await stack.enter_async_context(aiomqtt.Client(broker.host, broker.port)))
        running = asyncio.create_task(it.link.run(), name="parent")
        try:
            await until(lambda: it.link.connected)
            yield it
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


class ParentGuard(NamedTuple):
    """A fault of brokers or parents, the check that keeps its harm away, and the harm."""

    fault: str
    check: str
    out: Callable[[pytest.MonkeyPatch, Operator], None]
    harm: Callable[[Operator, float], Awaitable[bool]]


LIMIT = {"id": "l-1", "quantity": "net_export_w", "value": 5000.0}
DISPATCH = {"id": "d-1", "epoch": 0, "net_power_w": -2000.0}


def signal(sequence: int, value: float, lost_after_s: float = 10.0) -> dict[str, Any]:
    return {"epoch": 0, "sequence": sequence, "signal": value, "lost_after_s": lost_after_s}


def retained_counts(_: pytest.MonkeyPatch, it: Operator) -> None:
    it.believes_retained = True


def no_id_is_remembered(patch: pytest.MonkeyPatch, _: Operator) -> None:
    patch.setattr(OrderBook, "_remember", lambda self, order_id: None)


def any_sequence_is_new(patch: pytest.MonkeyPatch, _: Operator) -> None:
    take = OrderBook.take_regulation

    def anew(self: Any, *arguments: Any) -> None:
        self._regulation = None
        take(self, *arguments)

    patch.setattr(OrderBook, "take_regulation", anew)


def parents_never_come_back(patch: pytest.MonkeyPatch, _: Operator) -> None:
    nobody_reconnects(patch)


def age_does_not_matter(patch: pytest.MonkeyPatch, it: Operator) -> None:
    # By a clock at the epoch everything is from the future, which is out as well.
    it.book.utc = lambda: 0.0
    the_future_counts(patch, it)


def silence_is_no_loss(patch: pytest.MonkeyPatch, _: Operator) -> None:
    patch.setattr(OrderBook, "_fallback_reason", lambda self, now_s: "")


def any_epoch_counts(patch: pytest.MonkeyPatch, _: Operator) -> None:
    patch.setattr(OrderBook, "_check_authority", lambda self, source, epoch: None)


def the_future_counts(patch: pytest.MonkeyPatch, _: Operator) -> None:
    for module in (admission_module, book_module):
        patch.setattr(module, "FUTURE_ISSUE_TOLERANCE_S", 1e12)


def nothing_expires(patch: pytest.MonkeyPatch, _: Operator) -> None:
    patch.setattr(OrderMessage, "ends_at", property(lambda self: None))


async def a_dead_parent_lives(it: Operator, _: float) -> bool:
    await it.beat(1)
    await it.beat(2)
    heard_s = it.parents["dso"].heard_s
    before = len(it.received)
    it.proxy.faults.set("stale_retained")
    await until(lambda: len(it.received) > before)
    return it.parents["dso"].heard_s != heard_s


async def an_order_counts_twice(it: Operator, _: float) -> bool:
    it.proxy.faults.set("duplicate")
    await it.say(Down.LIMITS, LIMIT, heard=2)
    return it.accepted() != ["l-1"]


async def an_old_signal_counts(it: Operator, _: float) -> bool:
    await it.say(Down.DISPATCH, DISPATCH)
    it.proxy.faults.set("out_of_order", count=1)
    await it.say(Down.REGULATION, signal(1, 0.25), heard=0)
    await it.say(Down.REGULATION, signal(2, 0.75), heard=2)
    regulation = it.book.in_force().regulation
    assert regulation is not None
    return regulation.sequence != 2


async def a_parent_is_never_heard_again(it: Operator, wait_s: float) -> bool:
    it.proxy.faults.set("broker_restart", down_s=0.02)
    await until(lambda: not it.link.connected)
    return not await came(lambda: it.link.connected, 1 + wait_s)


async def a_late_signal_counts(it: Operator, _: float) -> bool:
    it.proxy.faults.set("broker_slow", delay_s=0.15, direction="reply")
    await it.say(Down.REGULATION, signal(1, 0.5, lost_after_s=0.05))
    return it.book.regulation_sequence == 1


async def nobody_misses_the_parent(it: Operator, wait_s: float) -> bool:
    await it.beat(1)
    it.set("heartbeat_lost")
    await it.beat(2, heard=0)
    return not await came(lambda: it.book.in_force().fallback_reason == "dso silent", HEARTBEAT_TIMEOUT_S + wait_s)


async def a_limit_is_withdrawn(it: Operator, _: float) -> bool:
    it.set("contradictory_orders")
    await it.say(Down.LIMITS, LIMIT, heard=3)
    (limit,) = it.book.in_force().limits
    return limit.value != 5000.0


async def an_old_parent_dispatches(it: Operator, _: float) -> bool:
    it.book.epoch = 4
    it.set("stale_epoch")
    await it.say(Down.DISPATCH, {**DISPATCH, "epoch": 4})
    return it.accepted() == ["d-1"]


async def an_order_of_the_future_counts(it: Operator, _: float) -> bool:
    it.set("clock_off")
    await it.say(Down.LIMITS, LIMIT)
    return it.accepted() == ["l-1"]


async def an_order_of_the_past_counts(it: Operator, _: float) -> bool:
    it.set("clock_back")
    await it.say(Down.LIMITS, {**LIMIT, "duration_s": 60.0})
    return it.accepted() == ["l-1"]


PARENT_GUARDS = [
    ParentGuard("stale_retained", "nothing retained is taken", retained_counts, a_dead_parent_lives),
    ParentGuard("duplicate", "ids are remembered", no_id_is_remembered, an_order_counts_twice),
    ParentGuard("out_of_order", "the newest sequence wins", any_sequence_is_new, an_old_signal_counts),
    ParentGuard("broker_restart", "the link connects again", parents_never_come_back, a_parent_is_never_heard_again),
    ParentGuard("broker_slow", "an old signal is refused", age_does_not_matter, a_late_signal_counts),
    ParentGuard("heartbeat_lost", "silence brings the fallback", silence_is_no_loss, nobody_misses_the_parent),
    ParentGuard("contradictory_orders", "ids are remembered", no_id_is_remembered, a_limit_is_withdrawn),
    ParentGuard("stale_epoch", "epochs are compared", any_epoch_counts, an_old_parent_dispatches),
    ParentGuard("clock_off", "nothing is taken from the future", the_future_counts, an_order_of_the_future_counts),
    ParentGuard("clock_back", "what has ended is refused", nothing_expires, an_order_of_the_past_counts),
]  # fmt: skip


@pytest.mark.parametrize("guard", PARENT_GUARDS, ids=lambda guard: guard.fault)
async def test_a_fault_of_parents_does_harm_only_when_its_check_is_taken_out(
    guard: ParentGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operator() as it:
        assert not await guard.harm(it, LONG_S), f"although {guard.check}"
    async with operator() as it:
        guard.out(monkeypatch, it)
        assert await guard.harm(it, SHORT_S), f"unless {guard.check}"

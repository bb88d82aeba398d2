"""The driver of layers below: one broker and the gateways behind it, each driven as a battery is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from config.messages import Down, Heartbeat, Offer, Up, down_topic, up_topic
from config.site import ChildLayer, MqttBroker
from config.vocabulary import LinkState, WriteResult, WriteStatus
from drivers.backoff import Backoff
from drivers.cancellation import apart
from drivers.driver import LinkStats
from drivers.layer.child import Child
from drivers.pushed import watch_silence
from drivers.writer import ConnectionBroken, first_broken

if TYPE_CHECKING:
    from config.strict import Strict
    from config.vocabulary import Clock, FieldSink, Setpoint, UtcClock
    from drivers.binding import DeviceBinding
    from drivers.transports import MqttArrival, MqttConnect, MqttSession

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.75
_LONGEST_ATTEMPT_S: Final = 1.0
LONGEST_HEARTBEAT_INTERVAL_S: Final = 1.0
HEARTBEATS_PER_TIMEOUT: Final = 3.0


class LayerDriver:
    """Speaks the layer interface as a parent, to every layer behind one broker; implements `drivers.driver.Driver`.

    Each layer is told our authority, heartbeats, and its share as the net power of a dispatch that holds until it is
    replaced. Telemetry and the offer for the present interval become samples. An acknowledgement is a write's result:
    accepted is acknowledged, rejected is refused with the layer's reason, and none in time is indeterminate.

    A layer that sends no telemetry for `silence_s` is absent. At an orderly stop nothing is written: a layer whose
    parent is silent goes to its own fallback. `epochs` is our epoch at each layer, by device.
    """

    def __init__(
        self,
        name: str,
        bindings: Sequence[DeviceBinding],
        sink: FieldSink,
        clock: Clock,
        utc: UtcClock,
        epochs: Mapping[str, int],
        connect: MqttConnect,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.devices = tuple(binding.name for binding in bindings)
        self.stats = LinkStats()
        self._sink, self._clock, self._utc, self._connect = sink, clock, utc, connect
        self._rng = rng or random.Random()
        self._broker = _one_broker(name, bindings)
        self._children: dict[str, Child] = {}
        self._writable = {binding.name: binding.writable for binding in bindings}
        self._routes: dict[str, tuple[Child, Up]] = {}
        for binding in bindings:
            if isinstance(binding.address, ChildLayer):
                child = Child(binding, binding.address, epochs[binding.name], sink, self.stats, clock, utc)
                self._children[binding.name] = child
                for kind in Up:
                    self._routes[up_topic(binding.address.layer, binding.address.source, kind)] = child, kind
        self._timeout_s = max(binding.profile.pace.timeout_s for binding in bindings)
        self._beats = int(utc())
        self._backoff = Backoff(self._rng, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._log = structlog.get_logger("drivers.layer").bind(link=name)

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled; a protocol error never leaves this function."""
        self._sink.link_state(self.name, LinkState.CONNECTING, "")
        pushed = [child.pushed for child in self._children.values()]
        try:
            async with asyncio.TaskGroup() as group:
                watch = watch_silence(pushed, self._clock, lambda: self.stats.state is LinkState.UP)
                group.create_task(watch, name=f"{self.name} silence")
                while True:
                    self._lost(await apart(self._live_once(), f"{self.name} connection"))
                    await asyncio.sleep(self._backoff.pause_s())
        finally:
            for child in self._children.values():
                child.dispatches.stop()

    def offered(self) -> dict[str, Offer]:
        """The offers that hold now of the layers that we have authority over, by device."""
        found = {name: child.offered() for name, child in self._children.items()}
        return {name: offer for name, offer in found.items() if offer is not None}

    def announce(self, prices: Mapping[float, float], version: int) -> None:
        """The path of prices ahead, by the UTC second from which each is for; it goes with the next share of each."""
        for child in self._children.values():
            child.dispatches.path = prices, version

    def poll(self) -> tuple[str, ...]:
        """Nothing is polled: layers publish."""
        return ()

    def write(self, setpoint: Setpoint) -> None:
        """Take a layer's share; it goes out in this turn of the loop while its authority is confirmed."""
        child = self._children.get(setpoint.device)
        if child is not None and self._writable[setpoint.device]:
            child.dispatches.put(setpoint)
            return
        words = "is read-only" if child is not None else f"is not on link {self.name}"
        result = WriteResult(
            setpoint.device, setpoint.sequence, WriteStatus.REFUSED, self._clock(), f"{setpoint.device} {words}"
        )
        self._sink.write_result(result)

    async def rest(self, timeout_s: float) -> None:
        """Nothing: the silence that follows brings each layer to its own fallback."""

    async def _live_once(self) -> ConnectionBroken:
        """One connection from its beginning to its end; what ended it."""
        identifier = f"lamina-{self.name}-{self._rng.getrandbits(32):08x}"
        every = [topic for topic, (_, kind) in self._routes.items() if kind is Up.ACKNOWLEDGEMENT]
        connection = self._connect(self._broker, identifier, self._timeout_s, sorted(self._routes), every)
        orderly = False
        try:
            async with asyncio.timeout(_LONGEST_ATTEMPT_S + self._timeout_s):
                refused = await connection.open()
            self._up(refused)
            await self._attend(connection)
        except ConnectionBroken as broken:
            return broken
        except TimeoutError:
            return ConnectionBroken("the broker did not let us in in time", timed_out=True)
        except ExceptionGroup as group:
            return first_broken(group)
        except asyncio.CancelledError:
            orderly = True
            raise
        finally:
            await connection.close(orderly=orderly)
        raise AssertionError("a connection is served until it breaks")

    async def _attend(self, connection: MqttSession) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(connection), name=f"{self.name} messages")
            for name, child in self._children.items():
                if self._writable[name]:
                    group.create_task(self._beat(connection, child), name=f"{self.name} heartbeat {name}")
                    group.create_task(self._serve(connection, child), name=f"{self.name} dispatches {name}")

    async def _listen(self, connection: MqttSession) -> None:
        while True:
            self._take(await connection.next())
            self._backoff.reset()

    def _take(self, arrival: MqttArrival) -> None:
        route = self._routes.get(arrival.topic)
        if route is None:
            self.stats.rejected += 1
            return
        child, kind = route
        if arrival.retained:
            child.reject_retained(kind)
        else:
            child.take(kind, arrival.payload)

    async def _serve(self, connection: MqttSession, child: Child) -> None:
        async def publish(kind: Down, message: Strict) -> None:
            await self._publish(connection, child, kind, message, qos=1)

        await child.dispatches.serve(publish)

    async def _beat(self, connection: MqttSession, child: Child) -> None:
        interval_s = min(LONGEST_HEARTBEAT_INTERVAL_S, child.address.heartbeat_timeout_s / HEARTBEATS_PER_TIMEOUT)
        while True:
            self._beats += 1
            beat = Heartbeat(sequence=self._beats, issued_at=datetime.fromtimestamp(self._utc(), UTC))
            await self._publish(connection, child, Down.HEARTBEAT, beat, qos=0)
            await asyncio.sleep(interval_s)

    async def _publish(self, connection: MqttSession, child: Child, kind: Down, message: Strict, qos: int) -> None:
        topic = down_topic(child.address.layer, child.address.source, kind)
        await connection.publish(topic, message.model_dump_json(exclude_none=True), qos)

    def _up(self, refused: Sequence[str]) -> None:
        if self.stats.lost:
            self.stats.reconnects += 1
        self.stats.state = LinkState.UP
        self.stats.reason = ""
        for child in self._children.values():
            child.pushed.link_up()
        self._sink.link_state(self.name, LinkState.UP, "")
        self._log.info("link up", refused_topics=list(refused) or None)

    def _lost(self, broken: ConnectionBroken) -> None:
        self.stats.timeouts += broken.timed_out
        self.stats.reason = broken.reason
        state, self.stats.state = self.stats.state, LinkState.LOST
        if state is LinkState.LOST:
            return
        self.stats.lost += 1
        for child in self._children.values():
            child.link_lost(broken.reason)
        self._sink.link_state(self.name, LinkState.LOST, broken.reason)
        self._log.warning("link lost", reason=broken.reason)


def _one_broker(name: str, bindings: Sequence[DeviceBinding]) -> MqttBroker:
    fields = tuple(MqttBroker.model_fields)
    brokers = {
        MqttBroker(**{field: getattr(binding.address, field) for field in fields})
        for binding in bindings
        if isinstance(binding.address, ChildLayer)
    }
    if len(brokers) != 1 or not all(isinstance(binding.address, ChildLayer) for binding in bindings):
        raise ValueError(f"{name}: a link of layers is for those behind one broker, with one login")
    return brokers.pop()

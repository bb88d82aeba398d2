"""The OPC UA driver: one server and the devices behind it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from config.profile import Access, PollGroup
from config.site import OpcUaServer
from config.vocabulary import HEARTBEAT, LinkState, Quality, Sample, WriteResult, WriteStatus
from drivers.backoff import Backoff
from drivers.cancellation import apart
from drivers.driver import LinkStats
from drivers.opcua.connection import KeptSession, OpcUaConnection
from drivers.opcua.values import NodeCodec, age_s, is_node, write_outcome
from drivers.pushed import PushedDevice, watch_silence
from drivers.writer import ConnectionBroken, DeviceWriter, Encoded, Outcome, first_broken

if TYPE_CHECKING:
    from config.profile import OpcUaAddress
    from config.vocabulary import Clock, FieldSink, Setpoint
    from drivers.binding import DeviceBinding
    from drivers.commands import Command
    from drivers.transports import OpcUaPublication, OpcUaSession

# A server that comes back is found within 2 s: one attempt into the void, one pause, and a good attempt.
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.75
_LONGEST_ATTEMPT_S: Final = 1.0


class _Point:
    """One point of one device; `node` is where it is on the present connection, or a text saying why it is nowhere."""

    __slots__ = ("address", "codec", "device", "monitored", "name", "node", "poll", "readable")

    def __init__(self, device: _Device, name: str, address: OpcUaAddress) -> None:
        profile = device.pushed.binding.profile.points[name]
        self.device = device
        self.name = name
        self.address = address
        self.codec = NodeCodec(profile, address)
        self.poll = profile.poll
        self.readable = profile.access is not Access.W
        self.node: Any = "not connected"
        self.monitored = False


class _Device:
    """One device of the link: what it pushes, what is written to it, and its points."""

    def __init__(self, binding: DeviceBinding, sink: FieldSink, stats: LinkStats, clock: Clock) -> None:
        points = binding.profile.points
        fast = [name for name, point in points.items() if point.poll is PollGroup.FAST]
        once = [name for name, point in points.items() if point.poll is PollGroup.ONCE]
        self.pushed = PushedDevice(binding, sink, stats, clock, held=[*fast, *once])
        self.writer = DeviceWriter(binding, sink, stats, clock, self._encode)
        self.points = {
            name: _Point(self, name, point.opcua) for name, point in points.items() if point.opcua is not None
        }
        self.has_heartbeat = HEARTBEAT in self.points

    def _encode(self, command: Command) -> Encoded:
        return Encoded(command.point, self.points[command.point].codec.encode(command.value))


class OpcUaDriver:
    """One client on one OPC UA server, made anew whenever it breaks; asyncua's own reconnection isn't used.

    Fast points are subscribed to, with a queue of one. A value that doesn't change isn't notified, so what refreshes
    its age is the server's publishing itself: each response, and each keep-alive (at most three publishing intervals
    apart), says that nothing else has changed. A subscription that stays silent longer breaks the connection. Slow
    points, and fast ones that the server won't monitor, are read in one batch at `slow_poll_s`; points to be read once
    are read after each connection and stand until its end.

    A device that has a point `heartbeat` lives only while that moves, whatever the server says; one without lives with
    each response that has a good value of it, or confirms one. Namespaces are looked up by URI after each connection;
    one that appears later makes the driver connect again.

    Time: a notified value is as old at its arrival as the server says it was when published, if that lies within 2 s
    and is not negative; else it was measured when it arrived.
    """

    def __init__(
        self,
        name: str,
        bindings: Sequence[DeviceBinding],
        sink: FieldSink,
        clock: Clock,
        rng: random.Random | None = None,
        connect: Callable[[OpcUaServer, float], OpcUaSession] | None = None,
    ) -> None:
        addresses = {binding.address for binding in bindings}
        address = next(iter(addresses), None)
        if len(addresses) != 1 or not isinstance(address, OpcUaServer):
            raise ValueError(f"{name}: an OPC UA link is for devices behind one server")
        self.name = name
        self.devices = tuple(binding.name for binding in bindings)
        self.stats = LinkStats()
        self._address = address
        self._connect = connect or partial(OpcUaConnection, kept=KeptSession())
        self._sink = sink
        self._clock = clock
        self._by_name = {binding.name: _Device(binding, sink, self.stats, clock) for binding in bindings}
        paces = [binding.profile.pace for binding in bindings]
        self._timeout_s = min(pace.timeout_s for pace in paces)
        self._interval_s = min(pace.publishing_interval_s for pace in paces)
        self._slow_poll_s = min(pace.slow_poll_s for pace in paces)
        self._subscribed: list[_Point] = []
        self._backoff = Backoff(rng or random.Random(), _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._log = structlog.get_logger("drivers.opcua").bind(link=name)

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled; a protocol error never leaves this function."""
        self._sink.link_state(self.name, LinkState.CONNECTING, "")
        pushed = [device.pushed for device in self._by_name.values()]
        try:
            async with asyncio.TaskGroup() as group:
                watch = watch_silence(pushed, self._clock, lambda: self.stats.state is LinkState.UP)
                group.create_task(watch, name=f"{self.name} silence")
                while True:
                    self._lost(await apart(self._live_once(), f"{self.name} connection"))
                    await asyncio.sleep(self._backoff.pause_s())
        finally:
            for device in self._by_name.values():
                device.writer.stop()

    def poll(self) -> tuple[str, ...]:
        """Nothing is polled: the server pushes."""
        return ()

    def write(self, setpoint: Setpoint) -> None:
        """Take a setpoint; it goes out in this turn of the loop if the link is up and the device has none under way."""
        device = self._by_name.get(setpoint.device)
        if device is not None:
            device.writer.put(setpoint)
            return
        words = f"{setpoint.device} is not on link {self.name}"
        result = WriteResult(setpoint.device, setpoint.sequence, WriteStatus.REFUSED, self._clock(), words)
        self._sink.write_result(result)

    def forget(self, device: str) -> None:
        """Write the device's next setpoint whole, whatever it acknowledged before."""
        if (known := self._by_name.get(device)) is not None:
            known.writer.forget()

    async def rest(self, timeout_s: float) -> None:
        """Write each device's rest state if the link is up; return when all are answered or after `timeout_s`."""
        if self.stats.state is not LinkState.UP:
            return
        requests = [device.writer.request_rest() for device in self._by_name.values()]
        waiting = [request for request in requests if request is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)

    async def _live_once(self) -> ConnectionBroken:
        """One connection from its beginning to its end; what ended it."""
        connection = self._connect(self._address, self._timeout_s)
        orderly = False
        try:
            async with asyncio.timeout(_LONGEST_ATTEMPT_S + self._timeout_s):
                await connection.open()
                await self._find_points(connection)
                await self._subscribe(connection)
            self._up()
            await self._attend(connection)
        except ConnectionBroken as broken:
            return broken
        except TimeoutError:
            return ConnectionBroken("the server did not let us in in time", timed_out=True)
        except ExceptionGroup as group:
            return first_broken(group)
        except asyncio.CancelledError:
            orderly = True
            raise
        finally:
            await connection.close(orderly=orderly)
        raise AssertionError("a connection is served until it breaks")

    async def _find_points(self, connection: OpcUaSession) -> None:
        points = self._points()
        nodes = await connection.resolve([point.address for point in points])
        for point, node in zip(points, nodes, strict=True):
            point.node = node
            point.monitored = False

    async def _subscribe(self, connection: OpcUaSession) -> None:
        """Monitor the fast points; with none of them, the keep-alives alone watch over the connection."""
        fast = [point for point in self._points() if point.poll is PollGroup.FAST and is_node(point.node)]
        monitored = await connection.subscribe([point.node for point in fast], self._interval_s)
        for point, taken in zip(fast, monitored, strict=True):
            point.monitored = taken
        self._subscribed = fast

    async def _attend(self, connection: OpcUaSession) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.lost(), name=f"{self.name} transport")
            group.create_task(connection.keep(), name=f"{self.name} channel")
            group.create_task(self._listen(connection), name=f"{self.name} subscription")
            group.create_task(self._read_slowly(connection), name=f"{self.name} reads")
            for device in self._by_name.values():
                send = _Sender(device, connection)
                group.create_task(device.writer.serve(send), name=f"{self.name} writes {device.pushed.name}")

    async def _listen(self, connection: OpcUaSession) -> None:
        while True:
            self._take(await connection.publication())

    def _take(self, publication: OpcUaPublication) -> None:
        self._backoff.reset()
        now = self._clock()
        fresh: dict[str, dict[str, Sample]] = {name: {} for name in self._by_name}
        for at, data in publication.changes.items():
            if 0 <= at < len(self._subscribed):
                point = self._subscribed[at]
                sample = self._sample(point, data, now - age_s(data, publication.published))
                fresh[point.device.pushed.name][point.name] = sample
        for device in self._by_name.values():
            self._tell(device, fresh[device.pushed.name], published=True)

    def _tell(self, device: _Device, fresh: Mapping[str, Sample], *, published: bool) -> None:
        pushed = device.pushed
        if device.has_heartbeat:
            alive = bool(pushed.beats(fresh))
        else:
            alive = _any_good(fresh) or (published and bool(pushed.present))
        # What is subscribed to is confirmed by the subscription alone: that may be stuck while reads are answered.
        if pushed.update(fresh, alive=alive, confirmed=published, renews=published):
            device.writer.repeat()

    async def _read_slowly(self, connection: OpcUaSession) -> None:
        points = [point for point in self._points() if point.readable and not point.monitored]
        while True:
            readable = [point for point in points if is_node(point.node)]
            now = self._clock()
            values = await connection.read([point.node for point in readable]) if readable else []
            fresh: dict[str, dict[str, Sample]] = {name: {} for name in self._by_name}
            for point in points:
                fresh[point.device.pushed.name][point.name] = Sample(None, Quality.BAD, now)
            for point, data in zip(readable, values, strict=True):
                fresh[point.device.pushed.name][point.name] = self._sample(point, data, now)
            for device in self._by_name.values():
                self._tell(device, fresh[device.pushed.name], published=False)
            points = [point for point in points if not self._is_settled(point, fresh)]
            await asyncio.sleep(self._slow_poll_s)
            await self._look_for_missing(connection)

    async def _look_for_missing(self, connection: OpcUaSession) -> None:
        """Connect again once a point turns up that the server did not have before."""
        missing = [point for point in self._points() if not is_node(point.node)]
        if missing and any(is_node(node) for node in await connection.resolve([point.address for point in missing])):
            raise ConnectionBroken("the server has nodes that it did not have before")

    def _is_settled(self, point: _Point, fresh: Mapping[str, Mapping[str, Sample]]) -> bool:
        sample = fresh[point.device.pushed.name][point.name]
        return point.poll is PollGroup.ONCE and sample.quality is not Quality.BAD

    def _sample(self, point: _Point, data: Any, measured_s: float) -> Sample:
        sample = point.codec.sample(data, measured_s)
        if sample.quality is not Quality.BAD:
            self.stats.good += 1
        elif data.StatusCode is not None and data.StatusCode.is_bad():
            self.stats.exceptions += 1
        else:
            self.stats.rejected += 1
        return sample

    def _points(self) -> list[_Point]:
        return [point for device in self._by_name.values() for point in device.points.values()]

    def _up(self) -> None:
        if self.stats.lost:
            self.stats.reconnects += 1
        self.stats.state = LinkState.UP
        self.stats.reason = ""
        for device in self._by_name.values():
            device.pushed.link_up()
        self._sink.link_state(self.name, LinkState.UP, "")
        missing = {f"{p.device.pushed.name}.{p.name}": p.node for p in self._points() if not is_node(p.node)}
        self._log.info("link up", missing=missing or None)

    def _lost(self, broken: ConnectionBroken) -> None:
        self.stats.timeouts += broken.timed_out
        self.stats.reason = broken.reason
        state, self.stats.state = self.stats.state, LinkState.LOST
        if state is LinkState.LOST:
            return
        self.stats.lost += 1
        for device in self._by_name.values():
            device.pushed.link_lost(broken.reason)
        self._sink.link_state(self.name, LinkState.LOST, broken.reason)
        self._log.warning("link lost", reason=broken.reason)


class _Sender:
    """Writes to one device over one connection."""

    def __init__(self, device: _Device, connection: OpcUaSession) -> None:
        self._points = device.points
        self._connection = connection

    async def __call__(self, commands: Sequence[Encoded]) -> Outcome:
        points = [self._points[command.point] for command in commands]
        for point in points:
            if not is_node(point.node):
                return Outcome(WriteStatus.REFUSED, f"{point.name}: {point.node}")
        values = [point.codec.variant(command.raw) for point, command in zip(points, commands, strict=True)]
        statuses = await self._connection.write([point.node for point in points], values)
        return write_outcome([point.name for point in points], statuses)


def _any_good(fresh: Mapping[str, Sample]) -> bool:
    return any(sample.quality is not Quality.BAD for sample in fresh.values())

"""The MQTT driver: one broker and the devices behind it."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from config.profile import Access
from config.site import MqttBroker, MqttDevice
from config.vocabulary import HEARTBEAT, LinkState, Quality, Sample, WriteResult, WriteStatus
from drivers.backoff import Backoff
from drivers.cancellation import apart
from drivers.driver import LinkStats
from drivers.encoding import EncodeError
from drivers.mqtt.commanding import CommandSender
from drivers.mqtt.connection import MqttConnection
from drivers.mqtt.message_clock import MessageClock, time_in
from drivers.mqtt.payload import NOTHING, Payload
from drivers.pushed import PushedDevice, watch_silence
from drivers.reading import TypedCodec
from drivers.writer import ConnectionBroken, DeviceWriter, Encoded, first_broken

if TYPE_CHECKING:
    from config.profile import MqttAddress
    from config.vocabulary import Clock, FieldSink, SampleValue, Setpoint
    from drivers.binding import DeviceBinding
    from drivers.commands import Command
    from drivers.transports import MqttArrival, MqttSession

# A broker that comes back is found within 2 s: one attempt into the void, one pause, and a good attempt.
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.75
_LONGEST_ATTEMPT_S: Final = 1.0
# A message that is so few steps behind the newest was sent again or overtaken; a counter that is further back, or so
# near to its beginning, has begun anew.
_STEPS_BEHIND: Final = 32
_LEAST_COUNT: Final = 64


class _Point(NamedTuple):
    """One point of one device, with its topics filled in."""

    device: _Device
    name: str
    address: MqttAddress
    codec: TypedCodec
    topic: str | None
    command_topic: str | None
    acknowledgement_topic: str | None


class _Device:
    """One device of the link: what it pushes, what is written to it, and its points."""

    def __init__(
        self, binding: DeviceBinding, address: MqttDevice, sink: FieldSink, stats: LinkStats, clock: Clock
    ) -> None:
        points = binding.profile.points
        held = [name for name, point in points.items() if point.mqtt is not None and point.mqtt.retained_is_fresh]
        self.pushed = PushedDevice(binding, sink, stats, clock, held)
        self.writer = DeviceWriter(binding, sink, stats, clock, self._encode)
        self.points: dict[str, _Point] = {}
        for name, profile in points.items():
            if profile.mqtt is not None:
                mqtt = profile.mqtt
                self.points[name] = _Point(
                    self,
                    name,
                    mqtt,
                    TypedCodec(profile, text=mqtt.type == "text"),
                    filled_topic(mqtt.topic if profile.access is not Access.W else None, address),
                    filled_topic(mqtt.command_topic, address),
                    filled_topic(mqtt.acknowledgement_topic, address),
                )
        availability = binding.profile.availability
        self.availability_topic = filled_topic(availability.topic if availability is not None else None, address)
        self.online = availability.online if availability is not None else ""
        self.clocks: defaultdict[str, MessageClock] = defaultdict(MessageClock)

    def _encode(self, command: Command) -> Encoded:
        point = self.points[command.point]
        if point.command_topic is None:
            raise EncodeError(f"{command.point} has no command topic")
        return Encoded(command.point, point.codec.encode(command.value))


class MqttDriver:
    """One connection to one broker for all devices behind it, made anew whenever it breaks.

    Subscribes to exactly the topics of the points, with QoS 1, and takes the newest message of each. A payload that
    isn't what its point needs (too long, not UTF-8, not JSON, not in range, ...) is a bad sample, counted as rejected.

    What a message is worth:

    - A message that the device publishes while we listen is a measurement made when it arrives, and a sign of life.
      So is an acknowledgement. A `heartbeat` that repeats its last value is neither; nor is garbage.
    - A `heartbeat` beside other points in a message is that message's number or time: one that repeats the last, or is
      a few steps behind it, was sent again or overtaken on the way, and the whole message is rejected.
    - With `time_path`, a message says when it was made: one that has come before, or is older than the newest of its
      topic, is rejected whole, and one that was stored on the way is as old as it was longer under way than others. A
      message without its time is rejected, too. Without a time or a number in it, a message that is sent again can't be
      told from one that says the same as the last: it counts as a measurement.
    - A retained message was published at some time in the past, by a device that may be dead since. With
      `retained_is_fresh` it is told with the device's next sign of life, as measured then: such a device retains every
      change, so the retained value is the present one if it lives. Without, it is not used at all.
    - Each sign of life renews the points with `retained_is_fresh` in the same way; other points age.
    - The availability topic, often the device's last will, says at once that the device is gone. Any later sign of life
      overrules it. Without a sign of life for `silence_s`, the device is gone, too.

    A command is published with QoS 1 and counts as acknowledged when the device says so on the acknowledgement topic,
    or, where there is none, when the broker has taken it. No answer of the broker breaks the connection; no answer of
    the device does not, and makes the write indeterminate. An acknowledgement carries no id: one that comes after its
    time-out may be taken for that of the next command on the same topic.
    """

    def __init__(
        self,
        name: str,
        bindings: Sequence[DeviceBinding],
        sink: FieldSink,
        clock: Clock,
        rng: random.Random | None = None,
        connect: Callable[[MqttBroker, str, float, Sequence[str]], MqttSession] = MqttConnection,
    ) -> None:
        self.name = name
        self.devices = tuple(binding.name for binding in bindings)
        self.stats = LinkStats()
        self._connect = connect
        self._broker = _one_broker(name, bindings)
        self._sink = sink
        self._clock = clock
        self._rng = rng or random.Random()
        self._by_name: dict[str, _Device] = {}
        for binding in bindings:
            if isinstance(binding.address, MqttDevice):
                self._by_name[binding.name] = _Device(binding, binding.address, sink, self.stats, clock)
        self._timeout_s = max(binding.profile.pace.timeout_s for binding in bindings)
        self._points_of: dict[str, list[_Point]] = {}
        self._available: dict[str, _Device] = {}
        self._confirms: dict[str, _Device] = {}
        self._route()
        self._heard: set[str] = set()
        self._waiting: dict[str, asyncio.Future[str | None]] = {}
        self._backoff = Backoff(self._rng, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._log = structlog.get_logger("drivers.mqtt").bind(link=name)

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
        """Nothing is polled: the devices publish."""
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

    def _route(self) -> None:
        for device in self._by_name.values():
            if device.availability_topic is not None:
                self._available[device.availability_topic] = device
            for point in device.points.values():
                if point.topic is not None:
                    self._points_of.setdefault(point.topic, []).append(point)
                if point.acknowledgement_topic is not None:
                    self._confirms[point.acknowledgement_topic] = device

    async def _live_once(self) -> ConnectionBroken:
        """One connection from its beginning to its end; what ended it."""
        topics = sorted({*self._points_of, *self._available, *self._confirms})
        identifier = f"lamina-{self.name}-{self._rng.getrandbits(32):08x}"
        connection = self._connect(self._broker, identifier, self._timeout_s, topics)
        orderly = False
        self._heard.clear()
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
            for device in self._by_name.values():
                send = CommandSender(device.points, connection, self._timeout_s, self._waiting, self.stats)
                group.create_task(device.writer.serve(send), name=f"{self.name} writes {device.pushed.name}")

    async def _listen(self, connection: MqttSession) -> None:
        while True:
            self._take(await connection.next())
            self._backoff.reset()

    def _take(self, arrival: MqttArrival) -> None:
        payload = Payload(arrival.payload)
        confirming = self._confirms.get(arrival.topic)
        if confirming is not None and not arrival.retained:
            waiting = self._waiting.pop(arrival.topic, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(payload.text)
            self._update(confirming, {}, alive=True)
        available = self._available.get(arrival.topic)
        if available is not None:
            self._take_availability(available, payload, arrival.retained)
        by_device: dict[str, list[_Point]] = {}
        for point in self._points_of.get(arrival.topic, ()):
            by_device.setdefault(point.device.pushed.name, []).append(point)
        for points in by_device.values():
            self._take_points(points, payload, arrival)

    def _take_availability(self, device: _Device, payload: Payload, retained: bool) -> None:
        if payload.text is None or payload.text.strip() != device.online:
            # Kept from before by the broker, it says less than what the device has said since we came.
            if not (retained and device.pushed.present):
                device.pushed.gone("it was announced to be gone")
        elif not retained:
            self._update(device, {}, alive=True)

    def _take_points(self, points: Sequence[_Point], payload: Payload, arrival: MqttArrival) -> None:
        device, now = points[0].device, self._clock()
        fresh = {point.name: _sample(point, payload, now) for point in points}
        good = any(sample.quality is not Quality.BAD for sample in fresh.values())
        if arrival.retained:
            self._take_retained(points, fresh, payload, arrival)
            return
        self._heard.add(arrival.topic)
        late_s = self._late_s(points, payload, arrival, now)
        if late_s is None:
            self.stats.rejected += 1
            return
        if late_s > 0.0:
            fresh = {name: sample._replace(measured_s=now - late_s) for name, sample in fresh.items()}
        if len(fresh) > 1 and _is_old(fresh.get(HEARTBEAT), device.pushed.beat):
            self.stats.rejected += 1
            return
        if good:
            self.stats.good += 1
        else:
            self.stats.rejected += 1
        lives = late_s < device.pushed.binding.profile.pace.silence_s
        alive = good and lives and device.pushed.beats(fresh) is not False
        self._update(device, fresh, alive=alive)

    def _late_s(self, points: Sequence[_Point], payload: Payload, arrival: MqttArrival, now: float) -> float | None:
        """How old a message is by its own time, 0 where it has none to say; None: it is not to be believed."""
        path = _time_path(points)
        if path is None:
            return 0.0
        made_s = time_in(payload.at(path))
        clock = points[0].device.clocks[arrival.topic]
        return None if made_s is None else clock.late_s(made_s, arrival.payload, now)

    def _take_retained(
        self, points: Sequence[_Point], fresh: Mapping[str, Sample], payload: Payload, arrival: MqttArrival
    ) -> None:
        if arrival.topic in self._heard:
            return  # older than what the device has said since
        device = points[0].device.pushed
        path = _time_path(points)
        made_s = None if path is None else time_in(payload.at(path))
        if made_s is not None:
            points[0].device.clocks[arrival.topic].remember(made_s, arrival.payload)
        # What was the last beat before we came is no sign of life when somebody sends it again.
        device.beats(fresh)
        kept = {p.name: fresh[p.name] for p in points if p.address.retained_is_fresh}
        device.keep({name: sample for name, sample in kept.items() if sample.quality is not Quality.BAD})

    def _update(self, device: _Device, fresh: Mapping[str, Sample], *, alive: bool) -> None:
        if device.pushed.update(fresh, alive=alive):
            device.writer.repeat()

    def _up(self, refused: Sequence[str]) -> None:
        if self.stats.lost:
            self.stats.reconnects += 1
        self.stats.state = LinkState.UP
        self.stats.reason = ""
        for device in self._by_name.values():
            device.pushed.link_up()
        self._sink.link_state(self.name, LinkState.UP, "")
        self._log.info("link up", refused_topics=list(refused) or None)

    def _lost(self, broken: ConnectionBroken) -> None:
        self.stats.timeouts += broken.timed_out
        self.stats.reason = broken.reason
        self._waiting.clear()
        state, self.stats.state = self.stats.state, LinkState.LOST
        if state is LinkState.LOST:
            return
        self.stats.lost += 1
        for device in self._by_name.values():
            device.pushed.link_lost(broken.reason)
        self._sink.link_state(self.name, LinkState.LOST, broken.reason)
        self._log.warning("link lost", reason=broken.reason)


def _sample(point: _Point, payload: Payload, now: float) -> Sample:
    raw = payload.at(point.address.json_path)
    value = None if raw is NOTHING else point.codec.decode(raw)
    return Sample(value, Quality.BAD if value is None else Quality.GOOD, now)


def _time_path(points: Sequence[_Point]) -> tuple[str | int, ...] | None:
    return next((point.address.time_path for point in points if point.address.time_path is not None), None)


def _is_old(number: Sample | None, newest: SampleValue) -> bool:
    """Whether a message with this number or time has come before, or is older than the newest."""
    if number is None or number.value is None or newest is None:
        return False
    if isinstance(number.value, str) or isinstance(newest, str):
        return number.value == newest
    return newest == number.value or (newest >= _LEAST_COUNT and 0 < newest - number.value <= _STEPS_BEHIND)


def filled_topic(topic: str | None, address: MqttDevice) -> str | None:
    """The topic with the address's parameters filled in; ValueError for one that is not a single point's."""
    if topic is None:
        return None
    for name, value in address.parameters.items():
        topic = topic.replace(f"{{{name}}}", value)
    if not topic or any(character in topic for character in "+#{}\0"):
        raise ValueError(f"{topic!r} is not the topic of one point; are all its parameters given?")
    return topic


def _one_broker(name: str, bindings: Sequence[DeviceBinding]) -> MqttBroker:
    fields = tuple(MqttBroker.model_fields)
    brokers = {
        MqttBroker(**{field: getattr(binding.address, field) for field in fields})
        for binding in bindings
        if isinstance(binding.address, MqttDevice)
    }
    if len(brokers) != 1 or not all(isinstance(binding.address, MqttDevice) for binding in bindings):
        raise ValueError(f"{name}: an MQTT link is for devices behind one broker, with one login")
    return brokers.pop()

"""Looking at one device behind an MQTT broker by hand: the next message of each topic, and one named write."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from config.profile import Access
from config.vocabulary import Quality, Sample, WriteStatus
from drivers.encoding import EncodeError
from drivers.inspection import InspectionFailed, Inspector, PointReading, bad, wanted_points
from drivers.mqtt.commanding import command_text
from drivers.mqtt.connection import Arrival, MqttConnection
from drivers.mqtt.driver import filled_topic
from drivers.mqtt.payload import NOTHING, Payload
from drivers.reading import TypedCodec
from drivers.writer import ConnectionBroken, Outcome

if TYPE_CHECKING:
    from config.profile import MqttAddress, Profile
    from config.site import MqttDevice
    from config.vocabulary import Clock

_LONGEST_RAW: Final = 60


class MqttInspector:
    """Implements `drivers.inspection.Inspector`: listens until each topic was heard, or `silence_s` has passed.

    A message that the broker had kept is shown as uncertain, since the device may be gone.
    """

    def __init__(self, profile: Profile, address: MqttDevice, clock: Clock) -> None:
        self.identity = ("", "", "")
        self.missing: tuple[str, ...] = ()
        self._profile = profile
        self._clock = clock
        self._addresses = {name: p.mqtt for name, p in profile.points.items() if p.mqtt is not None}
        self._codecs = {n: TypedCodec(profile.points[n], text=a.type == "text") for n, a in self._addresses.items()}
        self._topics = {name: filled_topic(a.topic, address) for name, a in self._addresses.items()}
        self._commands = {name: filled_topic(a.command_topic, address) for name, a in self._addresses.items()}
        self._answers = {name: filled_topic(a.acknowledgement_topic, address) for name, a in self._addresses.items()}
        self._heard: dict[str, Arrival] = {}
        self._connection: MqttConnection | None = None

    @property
    def topics(self) -> list[str]:
        """Everything to subscribe to."""
        return sorted({topic for topic in (*self._topics.values(), *self._answers.values()) if topic is not None})

    def use(self, connection: MqttConnection) -> None:
        """Listen on this connection, which is subscribed to `topics`."""
        self._connection = connection

    async def read(self, points: Collection[str] | None = None) -> dict[str, PointReading]:
        """The newest message of each point's topic; raises InspectionFailed if there is none at all."""
        names = wanted_points(self._profile, points)
        topics = {topic for name in names if (topic := self._topics[name]) is not None}
        self._heard.clear()
        try:
            async with asyncio.timeout(self._profile.pace.silence_s):
                while not topics <= self._heard.keys():
                    await self._listen()
        except TimeoutError:
            if topics and topics.isdisjoint(self._heard):
                words = f"nothing was published for {self._profile.pace.silence_s:g} s on {_some(topics)}"
                raise InspectionFailed(f"{words}: compare the names in it with what the device publishes") from None
        return {name: self._reading(name) for name in names}

    def encoded(self, point: str, value: float) -> str:
        """What a write would publish; raises EncodeError."""
        return f"{self._payload(point, value)} on {self._commands[point]}"

    async def write(self, point: str, value: float) -> Outcome:
        """Publish one command, and wait for its acknowledgement where the profile names a topic for it."""
        payload = self._payload(point, value)
        topic, answer = self._commands[point], self._answers[point]
        assert self._connection is not None and topic is not None  # or there would be no payload
        try:
            await self._connection.publish(topic, payload)
            if answer is None:
                return Outcome(WriteStatus.ACKNOWLEDGED)
            async with asyncio.timeout(self._profile.pace.timeout_s):
                while True:
                    arrival = await self._listen()
                    if arrival.topic == answer and not arrival.retained:
                        return _verdict(self._addresses[point], Payload(arrival.payload).text)
        except TimeoutError:
            return Outcome(WriteStatus.INDETERMINATE, f"no answer within {self._profile.pace.timeout_s:g} s")
        except (ConnectionBroken, InspectionFailed) as broken:
            return Outcome(WriteStatus.INDETERMINATE, str(broken))

    async def _listen(self) -> Arrival:
        assert self._connection is not None  # `use` comes first
        try:
            arrival = await self._connection.next()
        except ConnectionBroken as broken:
            raise InspectionFailed(broken.reason) from None
        if not (arrival.retained and arrival.topic in self._heard):
            self._heard[arrival.topic] = arrival
        return arrival

    def _reading(self, name: str) -> PointReading:
        topic = self._topics[name] or ""
        arrival = self._heard.get(topic)
        if arrival is None:
            return bad(self._clock(), "nothing was published", topic)
        raw = Payload(arrival.payload).at(self._addresses[name].json_path)
        value = None if raw is NOTHING else self._codecs[name].decode(raw)
        if value is None:
            reason = "not in the message" if raw is NOTHING else "no value of this point"
            return bad(self._clock(), reason, topic)._replace(raw="" if raw is NOTHING else str(raw)[:_LONGEST_RAW])
        quality = Quality.UNCERTAIN if arrival.retained else Quality.GOOD
        note = "kept by the broker from before" if arrival.retained else ""
        return PointReading(Sample(value, quality, self._clock()), topic, str(raw)[:_LONGEST_RAW], note)

    def _payload(self, point: str, value: float) -> str:
        if self._profile.points[point].access is Access.R or self._commands[point] is None:
            raise EncodeError(f"{point} is read-only in profile {self._profile.profile}")
        raw = self._codecs[point].encode(value)
        return self._addresses[point].command_template.replace("{value}", command_text(raw))


def _some(topics: Collection[str]) -> str:
    first = min(topics)
    return first if len(topics) == 1 else f"{first} and {len(topics) - 1} more topics"


@asynccontextmanager
async def mqtt_inspector(profile: Profile, address: MqttDevice, clock: Clock) -> AsyncIterator[Inspector]:
    """One session while the context lasts; raises InspectionFailed where there is none to be had."""
    inspector = MqttInspector(profile, address, clock)
    identifier = f"lamina-look-{random.getrandbits(32):08x}"
    connection = MqttConnection(address, identifier, profile.pace.timeout_s, inspector.topics)
    orderly = False
    try:
        try:
            await connection.open()
        except ConnectionBroken as broken:
            raise InspectionFailed(f"{address.host}:{address.port}: {broken.reason}") from None
        inspector.use(connection)
        yield inspector
        orderly = True
    finally:
        await connection.close(orderly=orderly)


def _verdict(address: MqttAddress, said: str | None) -> Outcome:
    wanted = address.acknowledgement_value
    if wanted is None or (said is not None and said.strip() == wanted):
        return Outcome(WriteStatus.ACKNOWLEDGED)
    return Outcome(WriteStatus.REFUSED, "something unreadable" if said is None else said[:120])

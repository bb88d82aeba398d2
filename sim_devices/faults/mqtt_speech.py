"""MQTT understood: faults of a broker, of the values that devices publish and are sent, and of what parents say."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from config.messages import Down, down_topic
from config.site import MqttDevice
from sim_devices.faults import mqtt_packets
from sim_devices.faults.effects import Fate, Passage
from sim_devices.faults.fault_set import ActiveFault
from sim_devices.faults.frames import Frame
from sim_devices.faults.mqtt_packets import Publication
from sim_devices.faults.parent_orders import ParentMemory, changed_order
from sim_devices.faults.points import KnownDevice, KnownPoint
from sim_devices.faults.registry import PARENT, Direction
from sim_devices.faults.speech import Speech
from sim_devices.faults.values import FROZEN, change_of

MOST_TOPICS: Final = 10_000
"""Topics whose first message is remembered."""

_REPLY, _REQUEST = Direction.REPLY, Direction.REQUEST


class _Spot(NamedTuple):
    """Where a point stands in what is published on a topic: the keys and indexes to it, None for the payload itself."""

    device: str
    point: KnownPoint
    path: tuple[str | int, ...] | None


class MqttUnderstanding:
    """What is published through the proxy of a broker, over its connections."""

    def __init__(self, devices: Sequence[KnownDevice] = ()) -> None:
        self.devices = {device.name: device for device in devices}
        self.first: OrderedDict[str, Publication] = OrderedDict()
        self.parents = ParentMemory()
        self.read: dict[str, list[_Spot]] = {}
        self.commanded: dict[str, list[_Spot]] = {}
        self.acknowledged: dict[str, tuple[str, str]] = {}
        self.topics: dict[str, set[str]] = {}
        self.stale: ActiveFault | None = None
        self._speeches: list[MqttSpeech] = []
        for device in devices:
            self._place(device)

    def speech(self) -> Speech:
        """For a new connection."""
        self._speeches = [speech for speech in self._speeches if speech.is_used]
        made = MqttSpeech(self)
        self._speeches.append(made)
        return made

    def struck(self, active: ActiveFault) -> None:
        """Let old retained messages come back, or a device lose its setpoint."""
        if active.name == "stale_retained":
            self.stale = active
            for speech in self._speeches:
                speech.hand_out_stale()
        device = self.devices.get(active.fault.device)
        if device is not None and active.name in ("reversion", "reboot"):
            told = active.fault.parameters["power_pu"]
            released_w = device.released_w() if active.name == "reversion" else device.open_w()
            commands = device.commands((released_w or 0.0) if told is None else told * device.rating_w)
            if self._speeches and commands:
                self._speeches[-1].write_behind(device, commands)
                active.acted += 1

    def _place(self, device: KnownDevice) -> None:
        topics = self.topics.setdefault(device.name, set())
        for point in device.points.values():
            at = point.profile.mqtt
            if at is None:
                continue
            named = (at.topic, at.command_topic, at.acknowledgement_topic)
            topics |= {_filled(topic, device) for topic in named if topic is not None}
            if at.topic is not None:
                self.read.setdefault(_filled(at.topic, device), []).append(_Spot(device.name, point, at.json_path))
            if at.command_topic is not None:
                topic = _filled(at.command_topic, device)
                self.commanded.setdefault(topic, []).append(_Spot(device.name, point, None))
                if at.acknowledgement_topic is not None:
                    answer = _filled(at.acknowledgement_topic, device), at.acknowledgement_value or "true"
                    self.acknowledged[topic] = answer


class MqttSpeech(Speech):
    """One client's connection to the broker."""

    def __init__(self, understanding: MqttUnderstanding) -> None:
        self._of = understanding
        self._version = 4
        self._doubled: dict[int, int] = {}
        self._to_say: deque[tuple[Direction, bytes]] = deque(maxlen=MOST_TOPICS)
        self._since_s = math.inf
        self._heard: Publication | None = None
        self.is_used = True

    def hear(self, direction: Direction, frame: Frame, now_s: float) -> bool:
        kind = mqtt_packets.kind_of(frame.raw)
        self._heard = None
        self._since_s = min(self._since_s, now_s)
        if kind == mqtt_packets.PUBLISH:
            heard = self._heard = mqtt_packets.publication(frame.raw, self._version)
            if heard is not None and direction is _REPLY and len(self._of.first) < MOST_TOPICS:
                self._of.first.setdefault(heard.topic, heard)
        elif kind == mqtt_packets.CONNECT:
            self._version = mqtt_packets.version_of(frame.raw)
        elif kind == mqtt_packets.SUBACK:
            self.hand_out_stale()
        elif kind == mqtt_packets.PUBACK and direction is _REQUEST:
            return self._is_surplus(mqtt_packets.acknowledged(frame.raw))
        return False

    def hand_out_stale(self) -> None:
        """Hand out what was published first on each topic, as if it had been retained ever since."""
        stale = self._of.stale
        if stale is None or stale.removed:
            return
        for old in self._of.first.values():
            kept = old._replace(qos=0, identifier=0, retained=True, duplicate=False)
            self._to_say.append((_REPLY, kept.packet()))
        stale.acted += bool(self._of.first)

    def write_behind(self, device: KnownDevice, commands: Sequence[tuple[str, float]]) -> None:
        """Publish commands to a device that its driver knows nothing of."""
        for point, value in commands:
            at = device.points[point].profile.mqtt
            if at is not None and at.command_topic is not None:
                raw = _raw_of(device.points[point], value)
                payload = at.command_template.replace("{value}", f"{round(raw, 6):g}")
                message = Publication(_filled(at.command_topic, device), payload.encode(), properties=self._properties)
                self._to_say.append((_REQUEST, message.packet()))

    def said(self, now_s: float) -> list[tuple[Direction, bytes]]:
        said = list(self._to_say)
        self._to_say.clear()
        return said

    def act(self, active: ActiveFault, passage: Passage, now_s: float) -> bool:
        heard = self._heard
        if heard is None or passage.frame is None:
            return False
        if active.name == "reboot":
            topics = self._of.topics.get(active.fault.device, ())
            return now_s < active.down_until_s and heard.topic in topics and self._swallow(passage, heard)
        if active.name == "broker_restart":
            lost = heard.retained and not active.number("keeps_retained") and self._since_s >= active.down_until_s
            return lost and self._swallow(passage, heard)
        if PARENT in active.fault.kind.applies_to:
            return self._act_on_order(active, passage, heard, now_s)
        return self._act_on_value(active, passage, heard, now_s)

    def copied(self, passage: Passage) -> None:
        # The client acknowledges a message of QoS 1 as often as it comes; the broker waits for one acknowledgement.
        heard = self._heard
        if heard is not None and heard.qos == 1 and passage.direction is _REPLY:
            self._doubled[heard.identifier] = self._doubled.get(heard.identifier, 0) + passage.copies - 1

    @property
    def _properties(self) -> bytes:
        return b"\0" if self._version == mqtt_packets.VERSION_5 else b""

    def _is_surplus(self, identifier: int) -> bool:
        left = self._doubled.pop(identifier, 0)
        if left > 1:
            self._doubled[identifier] = left - 1
        return left > 0

    def _swallow(self, passage: Passage, heard: Publication) -> bool:
        """A message is lost behind the broker, which would else send it again and wait for its acknowledgement."""
        passage.fate = Fate.VANISHES
        if heard.qos == 1:
            passage.also.append((passage.direction.back, mqtt_packets.acknowledgement(heard.identifier)))
        return True

    def _act_on_order(self, active: ActiveFault, passage: Passage, heard: Publication, now_s: float) -> bool:
        layer, source, kind = _parent_topic(heard.topic)
        if not kind or active.fault.device not in ("", source):
            return False
        if active.name == "heartbeat_lost":
            return kind == Down.HEARTBEAT and self._swallow(passage, heard)
        said = _read(heard.payload)
        if not isinstance(said, dict):
            return False
        changed, after = changed_order(active, source, kind, said, self._of.parents)
        for other, order in after:
            topic = down_topic(layer, source, Down(other))
            extra = Publication(topic, json.dumps(order).encode(), properties=self._properties)
            passage.also.append((passage.direction, extra.packet()))
        if changed != said:
            self._replace(passage, heard._replace(payload=json.dumps(changed).encode()))
        return changed != said or bool(after)

    def _act_on_value(self, active: ActiveFault, passage: Passage, heard: Publication, now_s: float) -> bool:
        reads = passage.direction is _REPLY
        spots = (self._of.read if reads else self._of.commanded).get(heard.topic, ())
        meant = [
            spot for spot in spots if spot.device == active.fault.device and spot.point.name in active.fault.points
        ]
        if not meant:
            return False
        if active.name == "write_ignored" and not reads:
            self._ignore(active, passage, heard, meant)
            return True
        payload = heard.payload
        for spot in meant:
            payload = _changed_payload(active, spot, payload, passage.direction, now_s)
        if payload == heard.payload:
            return False
        self._replace(passage, heard._replace(payload=payload))
        return True

    def _ignore(self, active: ActiveFault, passage: Passage, heard: Publication, meant: Sequence[_Spot]) -> None:
        self._swallow(passage, heard)
        for spot in meant:
            active.memory[spot.point.name] = _read(heard.payload)
        answer = self._of.acknowledged.get(heard.topic)
        if answer is not None:
            message = Publication(answer[0], answer[1].encode(), properties=self._properties)
            passage.also.append((_REPLY, message.packet()))

    def _replace(self, passage: Passage, message: Publication) -> None:
        assert passage.frame is not None
        self._heard = message
        passage.raw = message.packet()
        passage.frame = passage.frame._replace(raw=passage.raw, pdu=passage.raw)


def _parent_topic(topic: str) -> tuple[str, str, str]:
    """Layer, source and message of a topic on which a parent speaks; empty for any other."""
    parts = topic.split("/")
    if len(parts) != 6 or parts[5] not in tuple(Down) or topic != down_topic(parts[2], parts[3], Down(parts[5])):
        return "", "", ""
    return parts[2], parts[3], parts[5]


def _filled(topic: str, device: KnownDevice) -> str:
    parameters: Mapping[str, str] = device.address.parameters if isinstance(device.address, MqttDevice) else {}
    for name, text in parameters.items():
        topic = topic.replace(f"{{{name}}}", text)
    return topic


def _raw_of(point: KnownPoint, value: float) -> float:
    sign = -1.0 if point.profile.sign == "generator" else 1.0
    return (value * sign - point.profile.offset) / point.profile.scale


def _read(payload: bytes) -> Any:
    """What a payload says; None where it is not JSON."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _changed_payload(active: ActiveFault, spot: _Spot, payload: bytes, direction: Direction, now_s: float) -> bytes:
    """A payload in which the value of one point is changed."""
    whole = _read(payload)
    holder: dict[Any, Any] = {"": whole}
    keys = ("", *(spot.path or ()))
    for inner in _inner(holder, keys):
        changed = _changed(active, spot.point, inner[keys[-1]], direction, now_s)
        if changed != inner[keys[-1]]:
            inner[keys[-1]] = changed
            return json.dumps(holder[""]).encode()
    return payload


def _inner(holder: Any, keys: Sequence[str | int]) -> Iterator[Any]:
    """What holds the last of the keys, if all of them lead anywhere."""
    try:
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]]
    except (LookupError, TypeError):
        return
    yield holder


def _changed(active: ActiveFault, point: KnownPoint, value: Any, direction: Direction, now_s: float) -> Any:
    if active.name in FROZEN:
        return active.memory.setdefault(point.name, value)
    if active.name == "write_ignored":
        written = active.memory.get(point.name) if active.number("shown") else None
        return value if written is None else written
    change = change_of(active, direction)
    if change is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    full = abs(point.full / point.profile.scale)
    changed = change(active, float(value), full, now_s)
    if math.isnan(changed):
        return changed
    return round(changed) if isinstance(value, int) else round(changed, 6)

"""OPC UA understood: faults of values and their status, of subscriptions, sessions and servers. Without security only.

Service and status names follow OPC 10000-4.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from asyncua import ua

from sim_devices.faults.effects import Fate, Passage
from sim_devices.faults.fault_set import ActiveFault
from sim_devices.faults.frames import Frame
from sim_devices.faults.points import KnownDevice, KnownPoint
from sim_devices.faults.registry import Direction
from sim_devices.faults.speech import Speech
from sim_devices.faults.values import FROZEN, change_of
from sim_devices.opcua_messages import (
    WRONG,
    decoded,
    encoded,
    identifier_of,
    is_open_text,
    request_id,
    sequence_at,
    service_of,
    shift_namespaces,
    with_request_id,
)

_OWN_REQUESTS: Final = 0x7FFF_0000
_MOST_REQUESTS: Final = 1000
_FILLER: Final = "urn:lamina:faults:namespace"
_STATUS: Final = {
    "bad_status": ua.StatusCodes.BadSensorFailure,
    "uncertain_status": ua.StatusCodes.UncertainLastUsableValue,
}
_SESSIONLESS: Final = ("CreateSessionRequest", "ActivateSessionRequest", "GetEndpointsRequest", "FindServersRequest")
_TYPES: Final = {
    "double": "Double", "float": "Float", "int16": "Int16", "int32": "Int32", "int64": "Int64", "uint16": "UInt16",
    "uint32": "UInt32", "uint64": "UInt64", "boolean": "Boolean", "string": "String",
}  # fmt: skip


class UaUnderstanding:
    """The devices behind an OPC UA server, over the connections to it."""

    def __init__(self, devices: Sequence[KnownDevice]) -> None:
        self.devices = {device.name: device for device in devices}
        self.points: dict[str, tuple[str, KnownPoint]] = {}
        self.nodes: dict[str, Any] = {}
        self.pending: deque[tuple[KnownDevice, list[tuple[str, float]]]] = deque(maxlen=16)
        self.restart: ActiveFault | None = None
        self._speeches: list[UaSpeech] = []
        for device in devices:
            for point in device.points.values():
                at = point.profile.opcua
                if at is not None:
                    self.points[at.identifier or "/".join(at.path or ())] = device.name, point

    def speech(self) -> Speech:
        """For a new connection."""
        restarted = self.restart is not None and not self.restart.removed
        made = UaSpeech(self, int(self.restart.number("by")) if restarted and self.restart is not None else 0)
        self._speeches = [*self._speeches[-7:], made]
        return made

    def struck(self, active: ActiveFault) -> None:
        """Let sessions be lost, the server restart, or a device lose its setpoint."""
        if active.name == "session_lost":
            for speech in self._speeches:
                speech.lose_session(active)
        elif active.name == "server_restart":
            self.restart = active
        device = self.devices.get(active.fault.device)
        if device is not None and active.name in ("reversion", "reboot"):
            told = active.fault.parameters["power_pu"]
            released_w = device.released_w() if active.name == "reversion" else device.open_w()
            self.pending.append(
                (device, device.commands((released_w or 0.0) if told is None else told * device.rating_w))
            )
            active.acted += 1


class UaSpeech(Speech):
    """One client's connection."""

    def __init__(self, understanding: UaUnderstanding, shift: int) -> None:
        self._of = understanding
        self._shift = shift
        self._readable = True
        self._lost: ActiveFault | None = None
        self._asked: dict[int, list[str]] = {}
        self._monitored: dict[int, str] = {}
        self._own: set[int] = set()
        self._left_out: dict[int, list[int]] = {}
        self._last: dict[Direction, int] = {}
        self._disturbed: set[Direction] = set()
        self._token: Any = None
        self._like = b""
        self._message: Any = None
        self._named: Sequence[str] = ()

    def lose_session(self, active: ActiveFault) -> None:
        """The server forgets this connection's session."""
        self._lost = active

    def hear(self, direction: Direction, frame: Frame, now_s: float) -> bool:
        try:
            return self._hear(direction, frame)
        except WRONG:
            self._message = None
            return False

    def act(self, active: ActiveFault, passage: Passage, now_s: float) -> bool:
        raw, frame = passage.raw, passage.frame
        try:
            return self._act(active, passage, now_s)
        except WRONG:
            # What only looked like a message of this service passes as it came.
            passage.raw, passage.frame, passage.fate = raw, frame, Fate.PASSES
            return False

    def _hear(self, direction: Direction, frame: Frame) -> bool:
        self._message = None
        if frame.raw[:3] == b"OPN" and direction is Direction.REQUEST:
            self._readable = is_open_text(frame.raw)
        if not self._readable or not service_of(frame.raw):
            return False
        if direction is Direction.REPLY and request_id(frame.raw) in self._own:
            self._own.discard(request_id(frame.raw))
            self._disturbed.add(Direction.REPLY)
            return True
        self._message = decoded(frame.raw)
        if self._message is None:
            return False
        if direction is Direction.REQUEST:
            self._note_request(frame.raw, self._message)
        self._named = self._identifiers(frame.raw, self._message)
        if direction is Direction.REQUEST:
            return False
        if isinstance(self._message, ua.TranslateBrowsePathsToNodeIdsResponse):
            self._note_paths(request_id(frame.raw), self._message)
        return False

    def _act(self, active: ActiveFault, passage: Passage, now_s: float) -> bool:
        message = self._message
        if message is None:
            return False
        if active.name == "session_lost":
            return self._refuse_session(active, passage, message)
        if active.name == "subscription_stalled":
            return isinstance(message, ua.PublishResponse) and self._stall(active, passage, message)
        if active.name == "write_ignored" and isinstance(message, ua.WriteRequest | ua.WriteResponse):
            return self._ignore_writes(active, passage, message)
        changed = False
        for identifier, data in _values(message, self._named):
            known = self._of.points.get(identifier)
            if known is not None:
                changed |= _change(active, known[0], known[1], data, passage.direction, now_s)
        if changed:
            self._replace(passage, message)
        return changed

    def pass_on(self, direction: Direction, raw: bytes) -> bytes:
        if self._shift and self._readable and service_of(raw):
            raw = self._shifted(direction, raw)
        at = sequence_at(raw)
        if at is None or len(raw) < at + 4:
            return raw
        number = int.from_bytes(raw[at : at + 4], "little")
        if direction in self._disturbed and direction in self._last:
            number = self._last[direction] + 1
            raw = raw[:at] + number.to_bytes(4, "little") + raw[at + 4 :]
        self._last[direction] = number
        return raw

    def said(self, now_s: float) -> list[tuple[Direction, bytes]]:
        said: list[tuple[Direction, bytes]] = []
        while self._of.pending and self._token is not None and self._of.nodes and self._lost is None:
            device, commands = self._of.pending.popleft()
            request = ua.WriteRequest()
            request.RequestHeader.AuthenticationToken = self._token
            request.RequestHeader.TimeoutHint = 1000
            request.Parameters.NodesToWrite = [*self._items(device, commands)]
            identifier = _OWN_REQUESTS + len(self._own)
            self._own.add(identifier)
            self._disturbed.add(Direction.REQUEST)
            said.append((Direction.REQUEST, with_request_id(encoded(self._like, request), identifier)))
        return said

    def _items(self, device: KnownDevice, commands: Sequence[tuple[str, float]]) -> Iterator[Any]:
        for name, value in commands:
            point = device.points[name]
            at = point.profile.opcua
            node = None if at is None else self._of.nodes.get(at.identifier or "/".join(at.path or ()))
            if node is None or at is None:
                continue
            kind = ua.VariantType[_TYPES[at.type]]
            sign = -1.0 if point.profile.sign == "generator" else 1.0
            raw: Any = (value * sign - point.profile.offset) / point.profile.scale
            raw = bool(raw) if at.type == "boolean" else raw if at.type in ("double", "float") else round(raw)
            item = ua.WriteValue(NodeId=node, AttributeId=ua.AttributeIds.Value)
            item.Value = ua.DataValue(ua.Variant(raw, kind))
            yield item

    def _note_request(self, raw: bytes, message: Any) -> None:
        self._like = raw
        if service_of(raw) not in _SESSIONLESS:
            self._token = message.RequestHeader.AuthenticationToken
        if isinstance(message, ua.ReadRequest):
            self._remember(raw, [item.NodeId for item in message.Parameters.NodesToRead])
        elif isinstance(message, ua.CreateMonitoredItemsRequest):
            for item in message.Parameters.ItemsToCreate:
                identifier = self._identified(item.ItemToMonitor.NodeId)
                self._monitored[item.RequestedParameters.ClientHandle] = identifier
        elif isinstance(message, ua.TranslateBrowsePathsToNodeIdsRequest):
            paths = [path.RelativePath.Elements for path in message.Parameters.BrowsePaths]
            self._asked[request_id(raw)] = ["/".join(str(step.TargetName.Name) for step in path) for path in paths]

    def _remember(self, raw: bytes, nodes: Sequence[Any]) -> None:
        self._asked[request_id(raw)] = [self._identified(node) for node in nodes]
        while len(self._asked) > _MOST_REQUESTS:
            del self._asked[next(iter(self._asked))]

    def _identified(self, node: Any) -> str:
        """A node's identifier, or its path where points are named so."""
        identifier = identifier_of(node)
        for path, known in self._of.nodes.items():
            if "=" not in path and identifier_of(known) == identifier:
                return path
        if identifier in self._of.points and identifier not in self._of.nodes:
            index = node.NamespaceIndex - (self._shift if node.NamespaceIndex > 1 else 0)
            self._of.nodes[identifier] = ua.NodeId(node.Identifier, index, node.NodeIdType)
        return identifier

    def _note_paths(self, identifier: int, message: Any) -> None:
        for path, result in zip(self._asked.pop(identifier, ()), message.Results or (), strict=False):
            if path in self._of.points and result.Targets:
                self._of.nodes[path] = result.Targets[0].TargetId

    def _identifiers(self, raw: bytes, message: Any) -> Sequence[str]:
        """Which nodes the values of a message are of: by their place, or for publications by their handle."""
        if isinstance(message, ua.ReadResponse):
            return self._asked.pop(request_id(raw), ())
        if isinstance(message, ua.WriteRequest):
            return [self._identified(item.NodeId) for item in message.Parameters.NodesToWrite]
        if isinstance(message, ua.PublishResponse):
            return [self._monitored.get(item.ClientHandle, "") for item in _monitored(message)]
        return ()

    def _refuse_session(self, active: ActiveFault, passage: Passage, message: Any) -> bool:
        if self._lost is not active:
            return False
        name = service_of(passage.raw)
        if passage.direction is Direction.REPLY:
            # What the server still says to a session that it has forgotten: nothing.
            if name == "PublishResponse":
                passage.fate = Fate.VANISHES
                self._disturbed.add(Direction.REPLY)
            return name == "PublishResponse"
        if name in _SESSIONLESS:
            self._lost = None if name == "CreateSessionRequest" else self._lost
            return False
        answer = ua.ServiceFault()
        answer.ResponseHeader.RequestHandle = message.RequestHeader.RequestHandle
        answer.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadSessionIdInvalid)
        self._answer(passage, answer)
        return True

    def _stall(self, active: ActiveFault, passage: Passage, message: Any) -> bool:
        if active.number("keep_alive"):
            message.Parameters.NotificationMessage.NotificationData = []
            self._replace(passage, message)
        else:
            passage.fate = Fate.VANISHES
            self._disturbed.add(Direction.REPLY)
        return True

    def _ignore_writes(self, active: ActiveFault, passage: Passage, message: Any) -> bool:
        """Leave out what is to be ignored, and say afterwards that it was done."""
        identifier = request_id(passage.raw)
        if isinstance(message, ua.WriteResponse):
            places = self._left_out.pop(identifier, [])
            for at in places:
                message.Results.insert(at, ua.StatusCode())
            if places:
                self._replace(passage, message)
            return bool(places)
        items = message.Parameters.NodesToWrite
        meant = [at for at, item in enumerate(items) if self._is_meant(active, item.NodeId)]
        for at in meant:
            active.memory[self._of.points[self._identified(items[at].NodeId)][1].name] = items[at].Value.Value
        if not meant:
            return False
        if len(meant) == len(items):
            answer = ua.WriteResponse()
            answer.ResponseHeader.RequestHandle = message.RequestHeader.RequestHandle
            answer.Results = [ua.StatusCode() for _ in items]
            self._answer(passage, answer)
            return True
        self._left_out[identifier] = meant
        message.Parameters.NodesToWrite = [item for at, item in enumerate(items) if at not in meant]
        self._replace(passage, message)
        return True

    def _is_meant(self, active: ActiveFault, node: Any) -> bool:
        known = self._of.points.get(self._identified(node))
        return known is not None and known[0] == active.fault.device and known[1].name in active.fault.points

    def _answer(self, passage: Passage, message: Any) -> None:
        passage.raw = encoded(passage.raw, message)
        passage.fate = Fate.ANSWERED
        self._disturbed |= {Direction.REQUEST, Direction.REPLY}

    def _replace(self, passage: Passage, message: Any) -> None:
        assert passage.frame is not None
        passage.raw = encoded(passage.raw, message)
        passage.frame = passage.frame._replace(raw=passage.raw, pdu=passage.raw)

    def _shifted(self, direction: Direction, raw: bytes) -> bytes:
        message = None if "Session" in service_of(raw) else decoded(raw)
        if message is None or (direction is Direction.REQUEST and request_id(raw) in self._own):
            return raw
        by = self._shift if direction is Direction.REPLY else -self._shift
        try:
            for name in ("Parameters", "Results"):
                shift_namespaces(getattr(message, name, None), by)
            if isinstance(message, ua.ReadResponse):
                _add_namespaces(message, self._shift)
            return encoded(raw, message)
        except WRONG:
            return raw


def _monitored(message: Any) -> list[Any]:
    data = message.Parameters.NotificationMessage.NotificationData or ()
    return [
        item
        for notification in data
        if isinstance(notification, ua.DataChangeNotification)
        for item in notification.MonitoredItems or ()
    ]


def _values(message: Any, identifiers: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The data values of a message, each with its node's identifier."""
    found: Sequence[Any] = ()
    if isinstance(message, ua.ReadResponse):
        found = message.Results or ()
    elif isinstance(message, ua.WriteRequest):
        found = [item.Value for item in message.Parameters.NodesToWrite]
    elif isinstance(message, ua.PublishResponse):
        found = [item.Value for item in _monitored(message)]
    yield from zip(identifiers, found, strict=False)


def _change(active: ActiveFault, device: str, point: KnownPoint, data: Any, direction: Direction, now_s: float) -> bool:
    """Let a fault act on one data value; whether it has."""
    if active.fault.device not in ("", device):
        return False
    status = _STATUS.get(active.name)
    if status is not None:
        data.StatusCode = ua.StatusCode(status)
        return True
    variant = data.Value
    if point.name not in active.fault.points or variant is None or variant.Value is None:
        return False
    if active.name in FROZEN:
        data.Value = active.memory.setdefault(point.name, variant)
        return bool(data.Value.Value != variant.Value)
    if active.name == "write_ignored":
        data.Value = active.memory.get(point.name, variant) if active.number("shown") else variant
        return bool(data.Value.Value != variant.Value)
    change, value = change_of(active, direction), variant.Value
    if change is None or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    changed = change(active, float(value), abs(point.full / point.profile.scale), now_s)
    if isinstance(value, int):
        changed = value if math.isnan(changed) else round(changed)
    data.Value = ua.Variant(changed, variant.VariantType)
    return bool(changed != value)


def _add_namespaces(message: Any, count: int) -> None:
    """The server's table of namespaces with as many new ones before those that are not the standard's or its own."""
    for data in message.Results or ():
        table = data.Value.Value if data.Value is not None else None
        if isinstance(table, list) and table[:1] == ["http://opcfoundation.org/UA/"]:
            fillers = [f"{_FILLER}:{number}" for number in range(count)]
            data.Value = ua.Variant([*table[:2], *fillers, *table[2:]], ua.VariantType.String)

"""OCPP 1.6J understood: faults of the messages between a charger and the central system that it calls.

Source: OCPP-J 1.6 specification, sections 3.1 (addresses) and 4.2 (messages), of which table 7 has the error codes.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from config.site import OcppConnector
from sim_devices.faults import websocket
from sim_devices.faults.effects import Fate, Passage
from sim_devices.faults.fault_set import ActiveFault
from sim_devices.faults.frames import Frame
from sim_devices.faults.points import KnownDevice
from sim_devices.faults.registry import CALL_ERRORS, Direction
from sim_devices.faults.speech import Speech

CALL: Final = 2
RESULTS: Final = (3, 4)
MOST_LATE: Final = 1000
"""Answers that wait for their time; the oldest are lost."""

_REPLY, _REQUEST = Direction.REPLY, Direction.REQUEST


class _Message(NamedTuple):
    """A message: what it is (2: a request, 3 and 4: its answer), its id, and its text."""

    kind: int
    identifier: str
    text: bytes


class OcppUnderstanding:
    """What is said at one listener, over the connections of all chargers that call there."""

    def __init__(self, devices: Sequence[KnownDevice] = ()) -> None:
        self._charge_points = {
            device.name: device.address.charge_point for device in devices if isinstance(device.address, OcppConnector)
        }
        self._calling: dict[str, OcppSpeech] = {}

    def speech(self) -> Speech:
        """For a new connection."""
        return OcppSpeech(self)

    def calls(self, charge_point: str, speech: OcppSpeech) -> None:
        """A charger calls by this connection from now on."""
        if charge_point in self._charge_points.values():
            self._calling[charge_point] = speech

    def is_meant(self, active: ActiveFault, charge_point: str) -> bool:
        """Whether a fault is about this charger; one without a device is about whoever calls."""
        device = active.fault.device
        return not device or self._charge_points.get(device) == charge_point

    def struck(self, active: ActiveFault) -> None:
        """Have a charger boot anew."""
        if active.name == "charger_reboot":
            speech = self._calling.get(self._charge_points.get(active.fault.device, ""))
            if speech is not None:
                speech.reset_charger(active.id)
                active.acted += 1


class OcppSpeech(Speech):
    """One charger's connection; the charger is the client, whose frames are masked."""

    def __init__(self, understanding: OcppUnderstanding) -> None:
        self.charge_point = ""
        self._of = understanding
        self._heard: _Message | None = None
        self._own: set[str] = set()
        self._to_say: deque[tuple[Direction, bytes]] = deque()
        self._late: deque[tuple[float, Direction, bytes]] = deque(maxlen=MOST_LATE)

    def hear(self, direction: Direction, frame: Frame, now_s: float) -> bool:
        self._heard = None
        if websocket.is_head(frame.raw):
            path = websocket.path_of(frame.raw) if direction is _REPLY else ""
            if path:
                self.charge_point = unquote(urlsplit(path).path.rpartition("/")[2])
                self._of.calls(self.charge_point, self)
            return False
        heard = self._heard = _message(frame.raw) if frame.is_subject else None
        if heard is None or heard.kind not in RESULTS or heard.identifier not in self._own:
            return False
        self._own.discard(heard.identifier)
        return True

    def act(self, active: ActiveFault, passage: Passage, now_s: float) -> bool:
        heard = self._heard
        if heard is None or passage.frame is None or not self._of.is_meant(active, self.charge_point):
            return False
        match active.name:
            case "malformed_json":
                passage.raw = _packed(heard.text[: len(heard.text) // 2], passage.direction)
                passage.frame = None
            case "call_error" if heard.kind == CALL:
                code = CALL_ERRORS[int(active.number("code")) - 1]
                answer = _text([4, heard.identifier, code, "", {}])
                passage.fate = Fate.VANISHES
                passage.also.append((passage.direction.back, _packed(answer, passage.direction.back)))
            case "duplicate_id" if heard.kind == CALL:
                passage.copies += 1
            case "late_result" if heard.kind in RESULTS:
                passage.fate = Fate.VANISHES
                self._late.append((now_s + active.number("delay_s"), passage.direction, passage.raw))
            case _:
                return False
        return True

    def reset_charger(self, number: int) -> None:
        """Ask the charger, behind the central system's back, to boot anew (5.14)."""
        identifier = f"reset-{number}"
        self._own.add(identifier)
        self._to_say.append((_REQUEST, _packed(_text([CALL, identifier, "Reset", {"type": "Hard"}]), _REQUEST)))

    def said(self, now_s: float) -> list[tuple[Direction, bytes]]:
        said = list(self._to_say)
        self._to_say.clear()
        return said

    def pass_on(self, direction: Direction, raw: bytes) -> bytes:
        is_upgrade = direction is _REPLY and websocket.is_head(raw)
        return websocket.without_extensions(raw) if is_upgrade else raw

    @property
    def own_due_s(self) -> float:
        return min((due_s for due_s, _, _ in self._late), default=math.inf)

    def give_up(self, now_s: float) -> None:
        self._to_say += [(direction, raw) for due_s, direction, raw in self._late if due_s <= now_s]
        left = [late for late in self._late if late[0] > now_s]
        self._late = deque(left, maxlen=MOST_LATE)


def _packed(text: bytes, direction: Direction) -> bytes:
    return websocket.packed(text, masked=direction is _REPLY)


def _text(message: Any) -> bytes:
    return json.dumps(message).encode()


def _message(raw: bytes) -> _Message | None:
    """What a frame says, where it is a message of OCPP."""
    text = websocket.text_of(raw)
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, list) or len(said) < 3 or not isinstance(said[0], int) or not isinstance(said[1], str):
        return None
    return _Message(said[0], said[1], text)

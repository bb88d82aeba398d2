"""Frames in a stream of bytes: where each ends, what it names, and how it is made over.

Sources: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3; MODBUS over Serial Line V1.02, section
2.5.1; MODBUS Application Protocol V1.1b3, section 6; MQTT 3.1.1, section 2.2; OPC 10000-6, 6.7.2 and 7.1.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from sim_devices.faults import websocket
from sim_devices.faults.registry import MODBUS_RTU, MODBUS_RTU_TCP, MODBUS_TCP, MQTT, OCPP, OPCUA, Direction
from sim_devices.modbus.pdu import ERROR_BIT, READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE
from sim_devices.modbus.rtu_frames import LONGEST, framed, is_whole

_HEADER: Final = struct.Struct(">HHH")
_READS: Final = (1, 2, READ_HOLDING, READ_INPUT)
_SINGLES: Final = (5, WRITE_SINGLE)
_MULTIPLES: Final = (15, WRITE_MULTIPLE)


class Frame(NamedTuple):
    """A whole frame: its bytes, the unit that it names, and its PDU, both of Modbus.

    `is_subject`: faults of frames are about it; of MQTT and OCPP those are its messages, of OPC UA its services.
    """

    raw: bytes
    unit: int
    pdu: bytes
    is_subject: bool = True

    @property
    def function(self) -> int:
        """The function it is about, for an exception that of the request."""
        return self.pdu[0] & ~ERROR_BIT


class Framing(Protocol):
    """How frames stand in the stream of one protocol."""

    resynchronizes: bool
    """Whether frames can be told apart again after bytes that were none."""

    def length(self, direction: Direction, data: bytes) -> int | None:
        """How long the frame is that `data` begins with; 0: not known yet; None: it begins with no frame."""
        ...

    def take(self, raw: bytes) -> Frame:
        """Bytes of that length as a frame."""
        ...

    def made_over(self, frame: Frame, *, unit: int | None = None, pdu: bytes | None = None) -> bytes:
        """The bytes of `frame` with another unit or PDU, and everything else right."""
        ...


class MbapFraming:
    """Modbus TCP."""

    resynchronizes = False

    def length(self, direction: Direction, data: bytes) -> int | None:
        if len(data) < _HEADER.size:
            return 0
        _, protocol, length = _HEADER.unpack_from(data)
        return _HEADER.size + length if protocol == 0 and 2 <= length <= 254 else None

    def take(self, raw: bytes) -> Frame:
        return Frame(raw, raw[6], raw[7:])

    def made_over(self, frame: Frame, *, unit: int | None = None, pdu: bytes | None = None) -> bytes:
        pdu = frame.pdu if pdu is None else pdu
        unit = frame.unit if unit is None else unit
        return frame.raw[:4] + (len(pdu) + 1).to_bytes(2) + bytes((unit,)) + pdu


class RtuFraming:
    """Modbus RTU; frames are told apart by what their function makes of their length, and by their check sum."""

    resynchronizes = True

    def length(self, direction: Direction, data: bytes) -> int | None:
        if len(data) < 3:
            return 0
        length = self._length(direction, data)
        if length is None or length > LONGEST:
            return None
        if 0 < length <= len(data) and not is_whole(data[:length]):
            return None
        return length

    def _length(self, direction: Direction, data: bytes) -> int | None:
        function = data[1]
        if function & ERROR_BIT:
            return 5 if direction is Direction.REPLY else None
        if direction is Direction.REPLY:
            if function in _READS:
                return 5 + data[2]
            if function in _SINGLES or function in _MULTIPLES:
                return 8
        elif function in _READS or function in _SINGLES:
            return 8
        elif function in _MULTIPLES:
            return 9 + data[6] if len(data) > 6 else 0
        # Of another function only the whole can be told, when it has come in one piece.
        return len(data) if is_whole(data) else None

    def take(self, raw: bytes) -> Frame:
        return Frame(raw, raw[0], raw[1:-2])

    def made_over(self, frame: Frame, *, unit: int | None = None, pdu: bytes | None = None) -> bytes:
        return framed(frame.unit if unit is None else unit, frame.pdu if pdu is None else pdu)


class MqttFraming:
    """Control packets of MQTT; a packet of 1 MiB or more is no frame here."""

    resynchronizes = False
    _LONGEST: Final = 1 << 20
    _PUBLISH: Final = 3

    def length(self, direction: Direction, data: bytes) -> int | None:
        size = shift = 0
        for at, byte in enumerate(data[1:5], start=2):
            size |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return at + size if at + size < self._LONGEST and data[0] >> 4 else None
            shift += 7
        return 0 if len(data) < 5 else None

    def take(self, raw: bytes) -> Frame:
        return Frame(raw, 0, raw, is_subject=raw[0] >> 4 == self._PUBLISH)

    def made_over(self, frame: Frame, *, unit: int | None = None, pdu: bytes | None = None) -> bytes:
        return frame.raw if pdu is None else pdu


class UaFraming:
    """Chunks of OPC UA over TCP; a message that is cut into several passes as it is."""

    resynchronizes = False
    _TYPES: Final = (b"HEL", b"ACK", b"ERR", b"OPN", b"CLO", b"MSG", b"RHE")
    _LONGEST: Final = 1 << 24

    def length(self, direction: Direction, data: bytes) -> int | None:
        if len(data) < 8:
            return 0
        size = int.from_bytes(data[4:8], "little")
        return size if data[:3] in self._TYPES and 8 <= size < self._LONGEST else None

    def take(self, raw: bytes) -> Frame:
        return Frame(raw, 0, raw, is_subject=raw[:4] == b"MSGF")

    def made_over(self, frame: Frame, *, unit: int | None = None, pdu: bytes | None = None) -> bytes:
        return frame.raw if pdu is None else pdu


class WebSocketFraming:
    """WebSocket, as OCPP-J uses it: the upgrade, then frames. Only whole messages of text are a subject."""

    resynchronizes = False

    def length(self, direction: Direction, data: bytes) -> int | None:
        return websocket.length(data)

    def take(self, raw: bytes) -> Frame:
        return Frame(raw, 0, raw, is_subject=websocket.is_text(raw))

    def made_over(self, frame: Frame, *, unit: int | None = None, pdu: bytes | None = None) -> bytes:
        return frame.raw if pdu is None else pdu


_FRAMINGS: Final[dict[str, Callable[[], Framing]]] = {
    MODBUS_TCP: MbapFraming,
    MODBUS_RTU: RtuFraming,
    MODBUS_RTU_TCP: RtuFraming,
    MQTT: MqttFraming,
    OPCUA: UaFraming,
    OCPP: WebSocketFraming,
}


def framing_of(protocol: str) -> Framing | None:
    """The framing of a protocol as the site file names it; None for one whose frames are not known here."""
    made = _FRAMINGS.get(protocol)
    return None if made is None else made()


class FrameTracker:
    """Follows the frames of one direction.

    Bytes go on at once unless whole frames are wanted; then a frame is held until it is whole, or until nothing more
    of it has come for `HOLD_S`. A frame whose beginning has gone on already is let pass. All bytes come out, in order.
    """

    HOLD_S: Final = 0.2

    def __init__(self, direction: Direction, framing: Framing | None) -> None:
        self._direction = direction
        self._framing = framing
        self._begun = b""
        self._sent = 0
        self._lost = framing is None
        self._last_s = 0.0

    @property
    def held(self) -> int:
        """Bytes that are held back."""
        return len(self._begun) - self._sent

    @property
    def release_s(self) -> float:
        """When the held bytes are to go on, should nothing more come."""
        return self._last_s + self.HOLD_S

    def forget(self) -> None:
        """The line begins anew: what was begun, and has gone on, will not be completed."""
        if not self.held:
            self._begun, self._sent = b"", 0

    def release(self) -> bytes:
        """Take out what is held; the rest of that frame passes as it comes."""
        out = self._begun[self._sent :]
        self._sent = len(self._begun)
        if self._framing is not None and self._framing.resynchronizes:
            self._begun, self._sent = b"", 0
        return out

    def feed(self, data: bytes, now_s: float, *, whole: bool) -> list[Frame | bytes]:
        """Take bytes in; frames, and bytes that are no frame or only a part of one."""
        if self._lost or self._framing is None:
            return [data]
        if self._framing.resynchronizes and now_s >= self.release_s:
            self.forget()
        self._last_s = now_s
        out: list[Frame | bytes] = []
        self._begun += data
        while self._begun:
            length = self._framing.length(self._direction, self._begun)
            if length is None:
                self._lost = not self._framing.resynchronizes
                out.append(self._begun[self._sent :])
                self._begun, self._sent = b"", 0
            elif length == 0 or length > len(self._begun):
                if not whole and self.held:
                    out.append(self._begun[self._sent :])
                    self._sent = len(self._begun)
                break
            else:
                raw, self._begun = self._begun[:length], self._begun[length:]
                out.append(raw[self._sent :] if self._sent else self._framing.take(raw))
                self._sent = 0
        return [piece for piece in out if piece]

"""Control packets of MQTT: MQTT 3.1.1, sections 2 and 3; of MQTT 5 the properties of a message are kept as they are."""

from __future__ import annotations

from typing import Final, NamedTuple

CONNECT: Final = 1
PUBLISH: Final = 3
PUBACK: Final = 4
SUBSCRIBE: Final = 8
SUBACK: Final = 9
VERSION_5: Final = 5


class Publication(NamedTuple):
    """A message. `identifier` is 0 at QoS 0; `properties` are those of MQTT 5, with their length before them."""

    topic: str
    payload: bytes
    qos: int = 0
    retained: bool = False
    duplicate: bool = False
    identifier: int = 0
    properties: bytes = b""

    def packet(self) -> bytes:
        """Its bytes on the wire."""
        topic = self.topic.encode()
        body = len(topic).to_bytes(2) + topic
        if self.qos:
            body += self.identifier.to_bytes(2)
        flags = self.duplicate << 3 | self.qos << 1 | self.retained
        return _packet(PUBLISH << 4 | flags, body + self.properties + self.payload)


def kind_of(packet: bytes) -> int:
    """Which of the control packets it is."""
    return packet[0] >> 4


def publication(packet: bytes, version: int) -> Publication | None:
    """The message in a PUBLISH packet; None if there is none in it."""
    body = _body(packet)
    flags, qos = packet[0] & 0x0F, packet[0] >> 1 & 3
    end = 2 + int.from_bytes(body[:2])
    identifier, at = (int.from_bytes(body[end : end + 2]), end + 2) if qos else (0, end)
    begin = at
    if version == VERSION_5:
        size, at = _varying(body, at)
        at += size
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError:
        return None
    if kind_of(packet) != PUBLISH or at > len(body):
        return None
    return Publication(
        topic, body[at:], qos, bool(flags & 1), bool(flags & 8), identifier, body[begin:at]
    )  # fmt: skip


def acknowledgement(identifier: int) -> bytes:
    """A PUBACK: the message of QoS 1 with that identifier has arrived."""
    return _packet(PUBACK << 4, identifier.to_bytes(2))


def acknowledged(packet: bytes) -> int:
    """Which message a PUBACK is about."""
    return int.from_bytes(_body(packet)[:2])


def version_of(connect: bytes) -> int:
    """The protocol level that a CONNECT asks for."""
    body = _body(connect)
    at = 2 + int.from_bytes(body[:2])
    return body[at] if at < len(body) else 0


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, digit = divmod(size, 128)
        length += bytes((digit | 0x80 if size else digit,))
        if not size:
            return bytes((first,)) + length + body


def _body(packet: bytes) -> bytes:
    return packet[_varying(packet, 1)[1] :]


def _varying(data: bytes, at: int) -> tuple[int, int]:
    """A length of one to four bytes, and where it ends."""
    size = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return size, at

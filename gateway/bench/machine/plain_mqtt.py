"""As much of MQTT 3.1.1 as it takes to speak for a thousand at once: a connection that publishes and hears.

A client library costs more processor time a message than what a bench wants to measure on the other side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

CONNECT: Final = 0x10
CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
SUBSCRIBE: Final = 0x82
SUBACK: Final = 0x90
PINGREQ: Final = 0xC0
KEEP_ALIVE_S: Final = 30
ANSWER_S: Final = 10.0
READ_BYTES: Final = 1 << 16
MOST_IDS: Final = 0xFFFF

OnMessage = Callable[[str, bytes], None]


class PlainMqtt:
    """One session, MQTT 3.1.1 (OASIS, 2014): QoS 0 and 1 out, what comes is handed on and acknowledged.

    Whether the broker has acknowledged is not looked at, and a broken connection is not made again: for benches.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._id = 0
        self.published = 0

    @classmethod
    async def connect(cls, host: str, port: int, identifier: str) -> PlainMqtt:
        """Raises OSError, or ConnectionError where the broker refuses; TimeoutError where it does not answer."""
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            name = identifier.encode()
            head = b"\x00\x04MQTT\x04\x02" + KEEP_ALIVE_S.to_bytes(2, "big")
            writer.write(_packet(CONNECT, head + len(name).to_bytes(2, "big") + name))
            answer = await reader.readexactly(4)
        if answer[0] != CONNACK or answer[3] != 0:
            writer.close()
            raise ConnectionRefusedError(f"the broker refused: {answer.hex()}")
        return cls(reader, writer)

    async def subscribe(self, topic: str) -> None:
        """One filter at QoS 1, before anything else is heard; raises ConnectionError where it is refused."""
        name = topic.encode()
        body = self._next_id() + len(name).to_bytes(2, "big") + name + b"\x01"
        self._writer.write(_packet(SUBSCRIBE, body))
        async with asyncio.timeout(ANSWER_S):
            answer = await self._reader.readexactly(5)
        if answer[0] != SUBACK or answer[4] > 1:
            raise ConnectionRefusedError(f"the broker refused {topic}: {answer.hex()}")

    def publish(self, topic: str, payload: bytes, qos: int = 0) -> None:
        """Never retained, and never waited for."""
        name = topic.encode()
        identifier = self._next_id() if qos else b""
        self.published += 1
        self._writer.write(_packet(PUBLISH | qos << 1, len(name).to_bytes(2, "big") + name + identifier + payload))

    async def hear(self, on_message: OnMessage) -> None:
        """Hand on every message until the connection ends, which is ConnectionError."""
        held = b""
        while data := await self._reader.read(READ_BYTES):
            held += data
            used = 0
            for kind, start, end in _packets(held):
                used = end
                if kind & 0xF0 == PUBLISH:
                    self._heard(kind, held[start:end], on_message)
            held = held[used:]
        raise ConnectionResetError("the broker closed the connection")

    async def keep_alive(self) -> None:
        """Pings until cancelled."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_S / 2.0)
            self._writer.write(bytes((PINGREQ, 0)))

    def close(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()

    def _heard(self, kind: int, body: bytes, on_message: OnMessage) -> None:
        end = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:end].decode()
        if kind & 0x06:
            self._writer.write(bytes((PUBACK, 2)) + body[end : end + 2])
            end += 2
        on_message(topic, body[end:])

    def _next_id(self) -> bytes:
        self._id = self._id % MOST_IDS + 1
        return self._id.to_bytes(2, "big")


def _packet(kind: int, body: bytes) -> bytes:
    """Kind, remaining length (section 2.2.3: seven bits a byte, lowest first), body."""
    left, length = len(body), bytearray()
    while True:
        left, low = left >> 7, left & 0x7F
        length.append(low | 0x80 if left else low)
        if not left:
            return bytes((kind,)) + bytes(length) + body


def _packets(held: bytes) -> Iterator[tuple[int, int, int]]:
    """Of every whole packet its kind and where its body begins and ends."""
    at = 0
    while at + 2 <= len(held):
        kind, length, shift, begin = held[at], 0, 0, at + 1
        while begin < len(held):
            low = held[begin]
            length |= (low & 0x7F) << shift
            shift, begin = shift + 7, begin + 1
            if not low & 0x80:
                break
        else:
            return
        if begin + length > len(held):
            return
        yield kind, begin, begin + length
        at = begin + length

"""The tap between a link and its transport: what was read, what was refused, what had no answer, and never a write."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest

from drivers.heard import HeardRead
from drivers.modbus.rtu_framing import check_sum
from drivers.modbus.tap import tapped

READ = struct.Struct(">BHH")


class Wire(asyncio.Transport):
    """Takes what goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


class Connection(asyncio.Protocol):
    """The driver's end: keeps its transport and what it is given."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.got: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got.append(data)


class Link:
    """One tapped connection; `now_s` is the clock."""

    def __init__(self, *, rtu: bool) -> None:
        self.rtu = rtu
        self.now_s = 0.0
        self.heard: list[HeardRead] = []
        self.wire = Wire()
        self.connection = Connection()
        self._tap: asyncio.Protocol | None = None
        self._transaction = 0

    async def open(self) -> Link:
        async def connect(factory: Callable[[], asyncio.Protocol]) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
            self._tap = factory()
            self._tap.connection_made(self.wire)
            return self.wire, self._tap

        await tapped(connect, self.heard.append, lambda: self.now_s, rtu=self.rtu)(lambda: self.connection)
        return self

    def ask(self, unit: int, pdu: bytes) -> None:
        self._transaction += 1
        assert self.connection.transport is not None
        self.connection.transport.write(self._framed(unit, pdu))

    def read(self, first: int, count: int, *, unit: int = 3, function: int = 3) -> None:
        self.ask(unit, READ.pack(function, first, count))

    def say(self, pdu: bytes, *, unit: int = 3, slices: int = 1000) -> None:
        frame = self._framed(unit, pdu)
        assert self._tap is not None
        for at in range(0, len(frame), slices):
            self._tap.data_received(frame[at : at + slices])

    def lose(self) -> None:
        assert self._tap is not None
        self._tap.connection_lost(None)

    def _framed(self, unit: int, pdu: bytes) -> bytes:
        if self.rtu:
            frame = bytes((unit,)) + pdu
            return frame + check_sum(frame)
        return struct.pack(">HHHB", self._transaction, 0, len(pdu) + 1, unit) + pdu


BOTH_FRAMES = pytest.mark.parametrize("rtu", [False, True], ids=["tcp", "rtu"])


@BOTH_FRAMES
@pytest.mark.parametrize("slices", [1, 3, 1000])
async def test_registers_are_heard_with_the_time_of_the_reply_however_they_come(rtu: bool, slices: int) -> None:
    link = await Link(rtu=rtu).open()
    link.now_s = 1.0
    link.read(100, 2)
    link.now_s = 1.25
    link.say(b"\x03\x04\x12\x34\x56\x78", slices=slices)
    link.read(7, 1, function=4)
    link.say(b"\x04\x02\x00\x09", slices=slices)
    assert link.heard == [
        HeardRead(1.25, 3, "holding", 100, 2, b"\x12\x34\x56\x78"),
        HeardRead(1.25, 3, "input", 7, 1, b"\x00\x09"),
    ]
    assert b"".join(link.connection.got).endswith(link._framed(3, b"\x04\x02\x00\x09")), "the driver gets every byte"


@BOTH_FRAMES
async def test_a_refusal_is_heard_with_its_code(rtu: bool) -> None:
    link = await Link(rtu=rtu).open()
    link.read(100, 2)
    link.say(b"\x83\x02")
    assert link.heard == [HeardRead(0.0, 3, "holding", 100, 2, exception=2)]


@BOTH_FRAMES
async def test_no_answer_is_heard_when_the_next_is_asked_or_the_connection_ends(rtu: bool) -> None:
    link = await Link(rtu=rtu).open()
    link.read(100, 2)
    link.now_s = 2.0
    link.read(200, 2)
    link.now_s = 3.0
    link.lose()
    assert link.heard == [HeardRead(0.0, 3, "holding", 100, 2), HeardRead(2.0, 3, "holding", 200, 2)]


@BOTH_FRAMES
async def test_what_answers_something_else_is_no_answer(rtu: bool) -> None:
    link = await Link(rtu=rtu).open()
    link.read(100, 2)
    link.say(b"\x03\x04\x12\x34\x56\x78", unit=9)
    link.say(b"\x04\x04\x12\x34\x56\x78")
    link.say(b"\x03\x02\x12\x34")
    assert link.heard == []
    link.lose()
    assert [read.words for read in link.heard] == [None]


async def test_a_late_answer_to_an_earlier_request_is_not_the_present_one_s() -> None:
    link = await Link(rtu=False).open()
    link.read(100, 1)
    late = link._framed(3, b"\x03\x02\x11\x11")
    link.read(200, 1)
    link._tap.data_received(late)  # type: ignore[union-attr]
    link.say(b"\x03\x02\x22\x22")
    assert [(read.first, read.words) for read in link.heard] == [(100, None), (200, b"\x22\x22")]


async def test_a_frame_with_a_wrong_check_sum_is_not_heard() -> None:
    link = await Link(rtu=True).open()
    link.read(100, 1)
    frame = bytearray(link._framed(3, b"\x03\x02\x11\x11"))
    frame[3] ^= 1
    link._tap.data_received(bytes(frame))  # type: ignore[union-attr]
    assert link.heard == []


@BOTH_FRAMES
@pytest.mark.parametrize(
    "pdu", [b"\x06\x00\x01\x00\x02", b"\x10\x00\x01\x00\x01\x02\x00\x07", b"\x2b\x0e\x01\x00\x00", b"\x03"]
)
async def test_only_reads_go_out(rtu: bool, pdu: bytes) -> None:
    link = await Link(rtu=rtu).open()
    link.ask(3, pdu)
    assert link.wire.sent == []
    assert link.wire.aborted
    assert link.heard == []

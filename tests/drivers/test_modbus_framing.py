"""Our own frames against pymodbus's, and against whatever bytes may come."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
    WriteSingleRegisterResponse,
)

from config.vocabulary import WritePriority
from drivers.modbus.framing import StreamBroken, TcpFraming, WrongReply
from drivers.modbus.request import Pdu, Request, read_pdu, write_pdu

client, server = FramerSocket(DecodePDU(False)), FramerSocket(DecodePDU(True))
addresses, units = st.integers(0, 65535), st.integers(0, 255)


def request(pdu: Pdu, unit: int = 1) -> Request:
    return Request("test", unit, WritePriority.FAST_POLL, 1.0, pdu)


def theirs(pdu: ModbusPDU, unit: int, transaction: int) -> bytes:
    pdu.dev_id, pdu.transaction_id = unit, transaction
    return server.buildFrame(pdu)


@given(addresses, st.integers(1, 125), units)
def test_reads_are_framed_as_pymodbus_frames_them(address: int, count: int, unit: int) -> None:
    for table, kind in (("holding", ReadHoldingRegistersRequest), ("input", ReadInputRegistersRequest)):
        expected = theirs(kind(address=address, count=count), unit, 1)
        assert TcpFraming().wrap(request(read_pdu(table, address, count), unit)) == expected


@given(addresses, st.lists(st.integers(0, 65535), min_size=1, max_size=123), units)
def test_writes_are_framed_as_pymodbus_frames_them(address: int, values: list[int], unit: int) -> None:
    data = struct.pack(f">{len(values)}H", *values)
    multiple = theirs(WriteMultipleRegistersRequest(address=address, registers=values), unit, 1)
    assert TcpFraming().wrap(request(write_pdu(address, data, False), unit)) == multiple
    single = theirs(WriteSingleRegisterRequest(address=address, registers=values[:1]), unit, 1)
    assert TcpFraming().wrap(request(write_pdu(address, data[:2], True), unit)) == single


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=125), units, st.integers(1, 300))
def test_replies_of_pymodbus_are_understood_in_whatever_pieces_they_come(
    values: list[int], unit: int, cut: int
) -> None:
    framing = TcpFraming()
    framing.wrap(request(read_pdu("holding", 0, len(values)), unit))
    frame = theirs(ReadHoldingRegistersResponse(registers=values), unit, 1)
    replies = [framing.feed(frame[at : at + cut]) for at in range(0, len(frame), cut)]
    assert replies[-1] == bytes((3, 2 * len(values))) + struct.pack(f">{len(values)}H", *values)
    assert replies[:-1] == [None] * (len(replies) - 1)


@given(addresses, st.integers(0, 65535))
def test_the_reply_that_a_write_is_due_is_the_one_that_pymodbus_sends(address: int, value: int) -> None:
    data = struct.pack(">H", value)
    for pdu, reply in (
        (write_pdu(address, data, True), WriteSingleRegisterResponse(address=address, registers=[value])),
        (write_pdu(address, data, False), WriteMultipleRegistersResponse(address=address, count=1)),
    ):
        framing = TcpFraming()
        framing.wrap(request(pdu))
        got = framing.feed(theirs(reply, 1, 1))
        assert got == pdu.reply_prefix
        assert len(pdu.reply_prefix) == pdu.reply_length


def test_pymodbus_reads_the_same_registers_from_a_reply() -> None:
    frame = struct.pack(">HHHBBBHH", 7, 0, 7, 1, 3, 4, 0x1234, 0xFFFF)
    _, pdu = client.handleFrame(frame, 1, 7)
    assert pdu is not None
    framing = TcpFraming()
    for _ in range(7):
        framing.wrap(request(read_pdu("holding", 0, 2)))
    assert framing.feed(frame) == bytes((3, 4)) + struct.pack(">HH", *pdu.registers)


def test_a_frame_of_another_transaction_is_passed_over() -> None:
    framing = TcpFraming()
    framing.wrap(request(read_pdu("holding", 0, 1)))
    right = struct.pack(">HHHBBBH", 1, 0, 5, 1, 3, 2, 42)
    stray = struct.pack(">HHHBBBH", 9, 0, 5, 1, 3, 2, 666)
    assert framing.feed(stray + right + stray) == b"\x03\x02\x00\x2a"
    assert framing.strays == 2
    assert framing.feed(right) is None
    assert framing.strays == 3


def test_another_unit_is_a_wrong_reply_and_another_protocol_breaks_the_stream() -> None:
    framing = TcpFraming()
    framing.wrap(request(read_pdu("holding", 0, 1)))
    with pytest.raises(WrongReply, match="unit 2"):
        framing.feed(struct.pack(">HHHBBBH", 1, 0, 5, 2, 3, 2, 42))
    with pytest.raises(StreamBroken):
        framing.feed(b"HTTP/1.1 400 Bad Request\r\n")


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_are_taken_for_a_reply_to_nothing(pieces: list[bytes]) -> None:
    framing = TcpFraming()
    for piece in pieces:
        try:
            assert framing.feed(piece) is None
        except StreamBroken:
            return

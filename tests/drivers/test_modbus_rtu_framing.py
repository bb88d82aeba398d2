"""RTU frames against pymodbus's, and against whatever bytes may come."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU
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
from drivers.modbus.framing import WrongReply
from drivers.modbus.overdue import Overdue
from drivers.modbus.request import Pdu, Request, read_pdu, write_pdu
from drivers.modbus.rtu_framing import RtuFraming, line_timing

server = FramerRTU(DecodePDU(True))
addresses, units = st.integers(0, 65535), st.integers(1, 247)
registers = st.lists(st.integers(0, 65535), min_size=1, max_size=125)


class Now:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def request(pdu: Pdu, unit: int = 1) -> Request:
    return Request("test", unit, WritePriority.FAST_POLL, 1.0, pdu)


def asked(pdu: Pdu, unit: int = 1, overdue: Overdue | None = None) -> RtuFraming:
    framing = RtuFraming(overdue or Overdue(Now()))
    framing.wrap(request(pdu, unit))
    return framing


def theirs(pdu: ModbusPDU, unit: int = 1) -> bytes:
    pdu.dev_id = unit
    return server.buildFrame(pdu)


def read_reply(values: list[int], unit: int = 1) -> bytes:
    return theirs(ReadHoldingRegistersResponse(registers=values), unit)


@given(addresses, st.integers(1, 125), units)
def test_reads_are_framed_as_pymodbus_frames_them(address: int, count: int, unit: int) -> None:
    for table, kind in (("holding", ReadHoldingRegistersRequest), ("input", ReadInputRegistersRequest)):
        wrapped = RtuFraming(Overdue(Now())).wrap(request(read_pdu(table, address, count), unit))
        assert wrapped == theirs(kind(address=address, count=count), unit)


@given(addresses, st.lists(st.integers(0, 65535), min_size=1, max_size=123), units)
def test_writes_are_framed_as_pymodbus_frames_them(address: int, values: list[int], unit: int) -> None:
    data = struct.pack(f">{len(values)}H", *values)
    framing = RtuFraming(Overdue(Now()))
    multiple = theirs(WriteMultipleRegistersRequest(address=address, registers=values), unit)
    assert framing.wrap(request(write_pdu(address, data, False), unit)) == multiple
    single = theirs(WriteSingleRegisterRequest(address=address, registers=values[:1]), unit)
    assert framing.wrap(request(write_pdu(address, data[:2], True), unit)) == single


@given(registers, units, st.integers(1, 300))
def test_replies_of_pymodbus_are_understood_in_whatever_pieces_they_come(
    values: list[int], unit: int, cut: int
) -> None:
    framing = asked(read_pdu("holding", 0, len(values)), unit)
    frame = read_reply(values, unit)
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
        assert asked(pdu).feed(theirs(reply)) == pdu.reply_prefix


@given(registers, st.data())
def test_a_reply_with_one_flipped_bit_is_no_reply(values: list[int], data: st.DataObject) -> None:
    frame = bytearray(read_reply(values))
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    framing = asked(read_pdu("holding", 0, len(values)))
    try:
        assert framing.feed(bytes(frame)) is None
    except WrongReply:
        assert framing.feed(bytes(frame)) is None


@given(st.lists(st.binary(max_size=40), max_size=20), st.booleans())
@example([b"\x01\x03\x04"], True)
def test_random_bytes_never_raise_and_never_become_a_reply(pieces: list[bytes], is_asked: bool) -> None:
    framing = asked(read_pdu("holding", 0, 2)) if is_asked else RtuFraming(Overdue(Now()))
    for piece in pieces:
        try:
            assert framing.feed(piece) is None
        except WrongReply:
            is_asked = False


@given(st.binary(max_size=300), st.integers(1, 300))
def test_random_bytes_are_judged_the_same_in_whatever_pieces_they_come(data: bytes, cut: int) -> None:
    def judged(pieces: list[bytes]) -> str:
        framing = asked(read_pdu("holding", 0, 2))
        try:
            return repr([reply for piece in pieces if (reply := framing.feed(piece)) is not None])
        except WrongReply:
            return "wrong"

    assert judged([data]) == judged([data[at : at + cut] for at in range(0, len(data), cut)])


def test_what_a_line_says_while_it_floats_is_skipped_before_a_frame() -> None:
    framing = asked(read_pdu("holding", 0, 1))
    assert framing.feed(b"\x00\xff\xfe") is None
    assert framing.feed(read_reply([42])) == b"\x03\x02\x00\x2a"
    assert framing.strays == 0


def test_what_follows_a_reply_is_counted_and_dropped() -> None:
    framing = asked(read_pdu("holding", 0, 1))
    assert framing.feed(read_reply([42]) + b"\x55") == b"\x03\x02\x00\x2a"
    assert framing.strays == 1


WRONG = {
    "another unit": (read_reply([1], 9), "unit 9 answers for unit 1"),
    "another function": (b"\x01\x04\x02\x00\x01\x78\xf0", "function 4"),
    "another length": (read_reply([1, 2]), "function 3, 04"),
    "an answer to a write": (theirs(WriteMultipleRegistersResponse(address=0, count=1)), "function 16"),
    "a wrong check sum": (read_reply([1])[:-1] + b"\x00", "check sum"),
    "an exception to another function": (b"\x01\x84\x02\xc2\xc1", "function 132"),
}


@pytest.mark.parametrize(("frame", "words"), WRONG.values(), ids=WRONG)
def test_a_frame_that_is_not_what_is_due_is_a_wrong_reply(frame: bytes, words: str) -> None:
    with pytest.raises(WrongReply, match=words):
        asked(read_pdu("holding", 0, 1)).feed(frame)


def test_a_wrong_byte_count_is_known_before_the_rest_has_come() -> None:
    with pytest.raises(WrongReply):
        asked(read_pdu("holding", 0, 1)).feed(b"\x01\x03\xf0")


def test_a_late_answer_of_another_unit_is_passed_over() -> None:
    overdue = Overdue(Now())
    overdue.add(9, read_pdu("holding", 0, 3))
    framing = asked(read_pdu("holding", 0, 1), 1, overdue)
    assert framing.feed(read_reply([7, 7, 7], 9) + read_reply([42])) == b"\x03\x02\x00\x2a"
    assert framing.strays == 1
    assert list(overdue.of(9)) == []


def test_a_late_answer_of_the_same_unit_is_passed_over_if_it_can_be_told_apart() -> None:
    overdue = Overdue(Now())
    overdue.add(1, read_pdu("holding", 100, 3))
    framing = asked(read_pdu("holding", 0, 1), 1, overdue)
    assert framing.feed(read_reply([7, 7, 7])) is None
    assert framing.feed(read_reply([42])) == b"\x03\x02\x00\x2a"


def test_a_unit_that_owes_an_answer_is_probed_by_one_that_it_can_be_told_from() -> None:
    overdue, now = Overdue(clock := Now()), clock
    late = read_pdu("holding", 100, 2)
    overdue.add(1, late)
    assert overdue.fits(1, read_pdu("holding", 0, 2))
    assert not overdue.fits(1, read_pdu("holding", 0, 3))
    assert not overdue.fits(2, late)
    assert overdue.probe(1, late) == read_pdu("holding", 100, 1)
    overdue.add(1, read_pdu("holding", 100, 1))
    assert overdue.probe(1, late) is None
    overdue.answered(1, read_pdu("holding", 0, 3), False)
    assert not overdue.fits(1, late)
    overdue.add(1, write := write_pdu(5, bytes(4), False))
    assert overdue.fits(1, write)
    assert overdue.probe(1, write) == read_pdu("holding", 0, 1)
    now.s = 100.0
    assert not overdue.fits(1, write)


def test_an_exception_may_be_late_too_and_leaves_the_answer_owed() -> None:
    overdue = Overdue(Now())
    overdue.add(1, read_pdu("holding", 100, 2))
    framing = asked(read_pdu("holding", 0, 5), 1, overdue)
    assert framing.feed(b"\x01\x83\x02\xc0\xf1") == b"\x83\x02"
    assert overdue.fits(1, read_pdu("holding", 7, 5))


def test_a_unit_that_is_left_alone_owes_nothing_any_more() -> None:
    overdue, now = Overdue(clock := Now()), clock
    overdue.add(1, pdu := read_pdu("holding", 100, 1))
    now.s = 1.5
    assert overdue.void_in_s(1, 2.0) == 0.5
    assert overdue.fits(1, pdu)
    now.s = 2.0
    assert overdue.void_in_s(1, 2.0) == 0.0
    assert not overdue.fits(1, pdu)
    assert overdue.void_in_s(5, 2.0) == 0.0


@pytest.mark.parametrize(
    ("baud", "parity", "stop_bits", "silence_s"),
    [
        (9600, "even", 1, 3.5 * 11 / 9600),
        (9600, "none", 1, 3.5 * 10 / 9600),
        (19200, "none", 2, 3.5 * 11 / 19200),
        (38400, "even", 1, 0.00175),
    ],
)
def test_a_frame_ends_after_three_and_a_half_characters(
    baud: int, parity: str, stop_bits: int, silence_s: float
) -> None:
    assert line_timing(baud, parity, stop_bits).silence_s == pytest.approx(silence_s)

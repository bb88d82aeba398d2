"""The core of the fault proxy as tables of bytes and times: transparency, order, holding, chance and counts."""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.faults import FAULTS, Act, Close, Direction, FaultError, FaultSet, FaultyLine
from sim_devices.modbus.rtu_frames import framed
from tests.sim_devices.faults.field import mbap, read, registers

ASK, REPLY = Direction.REQUEST, Direction.REPLY
PROTOCOLS = ("modbus_tcp", "modbus_rtu", "modbus_rtu_tcp", "opcua")


class Clock:
    """A clock that is moved by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """A line under a set of faults, and everything that came out of it."""

    def __init__(self, protocol: str = "modbus_tcp", seed: int = 0) -> None:
        self.clock = Clock()
        self.faults = FaultSet(protocol, self.clock, seed)
        self.line = FaultyLine(self.faults)
        self.acts: list[tuple[float, Act]] = []
        self.faults.listeners.append(lambda: self.do(self.line.due(self.clock())))

    def do(self, acts: list[Act]) -> list[Act]:
        self.acts += [(self.clock() + act.delay_s, act) for act in acts]
        return acts

    def ask(self, data: bytes) -> list[Act]:
        return self.do(self.line.feed(ASK, data, self.clock()))

    def reply(self, data: bytes) -> list[Act]:
        return self.do(self.line.feed(REPLY, data, self.clock()))

    def arrived(self, direction: Direction) -> bytes:
        """All bytes in a direction in the order of their times."""
        mine = [(at_s, act.what) for at_s, act in self.acts if act.direction is direction]
        assert [at_s for at_s, _ in mine] == sorted(at_s for at_s, _ in mine)
        return b"".join(what for _, what in mine if isinstance(what, bytes))


def slices(data: bytes, cuts: set[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(edges):
        yield data[start:end]


streams = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(mbap, st.binary(min_size=1, max_size=60), st.integers(0, 65535), st.integers(0, 255)),
        st.builds(framed, st.integers(0, 255), st.binary(min_size=1, max_size=60)),
        st.builds(lambda at, n: framed(1, registers(at, n)), st.integers(0, 9000), st.integers(1, 125)),
    ),
    max_size=6,
).map(b"".join)
cut_places = st.sets(st.integers(0, 300), max_size=12)


@given(st.sampled_from(PROTOCOLS), streams, cut_places, st.sampled_from([ASK, REPLY]))
def test_without_a_fault_any_bytes_pass_unchanged_and_at_once_in_any_slicing(
    protocol: str, stream: bytes, cuts: set[int], direction: Direction
) -> None:
    bench = Bench(protocol)
    for piece in slices(stream, cuts):
        acts = bench.do(bench.line.feed(direction, piece, bench.clock()))
        assert b"".join(act.what for act in acts if isinstance(act.what, bytes)) == piece
        assert all(act.delay_s == 0.0 for act in acts)
        assert bench.line.next_due_s(bench.clock()) == math.inf
    assert bench.arrived(direction) == stream
    assert bench.do(bench.line.ended(direction, bench.clock())) == [Act(0.0, direction, Close.END)]


@given(st.sampled_from(["modbus_tcp", "modbus_rtu"]), streams, cut_places, st.data())
def test_a_fault_that_meets_nothing_changes_no_byte_whenever_it_comes_and_goes(
    protocol: str, stream: bytes, cuts: set[int], data: st.DataObject
) -> None:
    bench = Bench(protocol)
    for piece in slices(stream, cuts):
        match data.draw(st.integers(0, 3)):
            case 0:
                bench.faults.set("truncated", unit=1, function=99, direction="both")
            case 1:
                bench.faults.clear()
            case 2:
                bench.clock.now_s += 0.3
                bench.do(bench.line.due(bench.clock()))
        bench.reply(piece)
    bench.faults.clear()
    assert bench.arrived(REPLY) == stream
    assert bench.line.waiting(REPLY) == 0


@given(streams, cut_places, st.integers(1, 50), st.floats(0, 0.1), st.floats(10, 1e6), st.floats(0, 0.2))
def test_link_faults_delay_and_slice_and_lose_no_byte(
    stream: bytes, cuts: set[int], size: int, gap_s: float, speed: float, jitter_s: float
) -> None:
    bench = Bench()
    bench.faults.set("latency", delay_s=0.05, jitter_s=jitter_s, probability=0.5)
    bench.faults.set("slicing", size=size, gap_s=gap_s)
    bench.faults.set("bandwidth", bytes_per_s=speed)
    for piece in slices(stream, cuts):
        bench.ask(piece)
    assert bench.arrived(ASK) == stream
    assert all(len(act.what) <= size for _, act in bench.acts if isinstance(act.what, bytes))
    if stream:
        assert bench.acts[-1][0] - bench.clock() >= 0.999 * len(stream) / speed


@given(st.sampled_from(["modbus_tcp", "modbus_rtu"]), streams, streams, cut_places, st.data())
def test_no_bytes_and_no_faults_bring_the_line_down(
    protocol: str, asked: bytes, replied: bytes, cuts: set[int], data: st.DataObject
) -> None:
    bench = Bench(protocol)
    usable = sorted(name for name, kind in FAULTS.items() if protocol in kind.applies_to and not kind.understands)
    for piece in (*slices(asked, cuts), *slices(replied, cuts)):
        bench.faults.set(data.draw(st.sampled_from(usable)))
        bench.ask(piece)
        bench.reply(piece)
        bench.clock.now_s += 0.05
        bench.do(bench.line.due(bench.clock()))
    bench.faults.clear()
    for direction in Direction:
        bench.do(bench.line.ended(direction, bench.clock()))
        assert bench.line.waiting(direction) == 0


def test_a_frame_is_held_until_it_is_whole_only_while_a_fault_wants_frames() -> None:
    bench, frame = Bench(), mbap(registers(10))
    assert bench.reply(frame[:5]) == [Act(0.0, REPLY, frame[:5])]
    number = bench.faults.set("wrong_unit").id
    assert bench.reply(frame[5:]) == [Act(0.0, REPLY, frame[5:])], "its beginning has gone: it can't be altered"
    assert bench.reply(frame[:9]) == []
    assert bench.line.waiting(REPLY) == 9
    bench.faults.clear(number)
    assert bench.acts[-1][1] == Act(0.0, REPLY, frame[:9])
    bench.reply(frame[9:])
    bench.faults.set("wrong_unit", as_unit=99)
    bench.reply(frame[:9])
    assert bench.reply(frame[9:]) == [Act(0.0, REPLY, mbap(registers(10), unit=99))]


def test_half_a_frame_is_not_held_for_ever() -> None:
    bench, frame = Bench("modbus_rtu"), framed(1, registers(10))
    bench.faults.set("wrong_crc")
    bench.reply(frame[:4])
    due_s = bench.line.next_due_s(bench.clock())
    assert due_s == pytest.approx(bench.clock() + 0.2)
    bench.clock.now_s = due_s
    assert bench.do(bench.line.due(due_s)) == [Act(0.0, REPLY, frame[:4])]
    assert bench.line.next_due_s(due_s) == math.inf
    ((_, act),) = [bench.acts[-1]]
    assert act.what == frame[:4]
    bench.reply(frame)
    assert bench.acts[-1][1].what != frame, "the line is in step again"


def test_a_request_on_a_serial_line_says_that_the_reply_before_it_is_over() -> None:
    bench, reply = Bench("modbus_rtu"), framed(1, registers(10))
    bench.reply(reply[:4])
    bench.ask(framed(1, read(20)))
    bench.faults.set("wrong_unit", as_unit=9)
    assert bench.reply(reply) == [Act(0.0, REPLY, framed(9, registers(10)))]


def test_unit_function_count_and_direction_choose_the_frames() -> None:
    bench = Bench()
    fault = bench.faults.set("wrong_unit", direction="both", unit=2, function=4, count=2, as_unit=9)
    for unit, function in ((2, 3), (1, 4), (2, 4)):
        bench.ask(mbap(read(0, function=function), unit=unit))
        bench.reply(mbap(registers(0, function=function), unit=unit))
    assert fault.acted == 2
    assert not fault.alive(bench.clock())
    bench.ask(mbap(read(0, function=4), unit=2))
    right = [mbap(read(0), unit=2), mbap(read(0, function=4), unit=1)]
    altered = mbap(read(0, function=4), unit=9)
    assert bench.arrived(ASK) == b"".join([*right, altered, mbap(read(0, function=4), unit=2)])


def test_an_exception_is_of_the_function_that_it_refuses() -> None:
    bench = Bench()
    fault = bench.faults.set("no_answer", function=3)
    bench.reply(mbap(b"\x83\x02"))
    assert (bench.arrived(REPLY), fault.acted) == (b"", 1)


def test_a_fault_ends_by_time() -> None:
    bench, frame = Bench(), mbap(registers(10))
    bench.faults.set("black_hole", duration_s=2.0)
    assert bench.reply(frame) == []
    bench.clock.now_s += 2.0
    assert bench.reply(frame) == [Act(0.0, REPLY, frame)]
    assert bench.faults.as_json()[0] | {"id": 1} == {
        "id": 1,
        "target": "",
        "fault": "black_hole",
        "directions": ["request", "reply"],
        "duration_s": 2.0,
        "acted": 1,
        "active": False,
        "ends_in_s": 0.0,
    }


def test_chance_is_the_seeds() -> None:
    def lost(seed: int) -> list[bool]:
        bench = Bench(seed=seed)
        bench.faults.set("no_answer", probability=0.3)
        return [bench.reply(mbap(registers(n))) == [] for n in range(300)]

    assert lost(1) == lost(1)
    assert lost(1) != lost(2)
    assert 60 < sum(lost(1)) < 120


def test_two_alterations_of_one_frame_are_both_seen() -> None:
    bench = Bench()
    bench.faults.set("wrong_unit", as_unit=9)
    bench.faults.set("wrong_transaction", by=3)
    bench.faults.set("truncated", keep=8)
    bench.faults.set("wrong_count")
    bench.faults.set("extra_bytes", size=2)
    (act,) = bench.reply(mbap(registers(10), transaction=7))
    assert isinstance(act.what, bytes)
    assert act.what[:-2] == mbap(registers(10), transaction=10, unit=9)[:8]
    assert [fault["acted"] for fault in bench.faults.as_json()] == [1, 1, 1, 0, 1]


def test_what_a_fault_can_not_alter_is_not_counted() -> None:
    bench, echo = Bench("modbus_rtu"), framed(1, struct.pack(">BHH", 16, 10, 2))
    fault = bench.faults.set("wrong_length", count=1)
    assert bench.reply(echo) == [Act(0.0, REPLY, echo)]
    assert fault.acted == 0
    bench.reply(framed(1, registers(10)))
    assert fault.acted == 1


def test_a_stall_keeps_everything_and_its_order_even_the_end() -> None:
    bench = Bench()
    stall = bench.faults.set("stall", duration_s=5.0)
    for part in (b"one", b"two"):
        assert bench.ask(part) == []
    assert bench.do(bench.line.ended(ASK, bench.clock())) == []
    assert bench.line.next_due_s(bench.clock()) == bench.clock() + 5.0
    assert stall.acted == 3
    bench.clock.now_s += 5.0
    bench.do(bench.line.due(bench.clock()))
    assert [act.what for _, act in bench.acts] == [b"one", b"two", Close.END]


def test_in_a_black_hole_nobody_hears_of_the_end() -> None:
    bench = Bench()
    bench.faults.set("black_hole")
    bench.ask(b"lost")
    bench.do(bench.line.ended(ASK, bench.clock(), reset=True))
    assert bench.acts == []
    bench.faults.clear()
    assert [act.what for _, act in bench.acts] == [Close.RESET]


def test_nothing_follows_a_break() -> None:
    bench = Bench()
    bench.faults.set("cut")
    assert bench.reply(mbap(registers(1))) == [Act(0.0, ASK, Close.RESET), Act(0.0, REPLY, Close.RESET)]
    assert bench.ask(b"x") == bench.reply(b"y") == bench.line.ended(ASK, 101.0) == bench.line.due(102.0) == []


def test_a_serial_line_is_there_again_after_a_break() -> None:
    bench, frame = Bench("modbus_rtu"), framed(1, registers(10))
    bench.reply(frame[:5])
    bench.faults.set("reset")
    bench.line.restart()
    assert bench.reply(frame) == [Act(0.0, REPLY, frame)]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("no_such", {}, "no fault 'no_such'; there are refuse, reset"),
        (None, {}, "no fault None"),
        ([], {}, "no fault []"),
        ("wrong_crc", {}, "wrong_crc: does not apply to modbus_tcp, but to modbus_rtu, modbus_rtu_tcp"),
        ("exception", {"code": 7}, "exception: code: expected one of 1, 2, 3, 4, 5, 6, 10, 11, not 7"),
        ("exception", {"code": 12}, "exception: code: expected a whole number from 1 to 11, not 12"),
        ("exception", {"direction": "reply"}, "exception: direction: it is of the request alone"),
        ("no_answer", {"direction": 3}, "no_answer: direction: expected request, reply or both, not 3"),
        ("refuse", {"count": 1}, "refuse: knows no count, but direction, duration_s"),
        ("reset", {"direction": "reply"}, "reset: direction: it is of the link as a whole"),
        ("latency", {"delay_s": -1}, "latency: delay_s: expected a number from 0 to 3600, not -1"),
        ("latency", {"delay_s": math.nan}, "latency: delay_s: expected a number"),
        ("latency", {"delay_s": True}, "latency: delay_s: expected a number"),
        (
            "no_answer",
            {"unit": 256, "count": 0},
            "no_answer: unit: expected a whole number from 0 to 255, not 256\nno_",
        ),
        ("no_answer", {"probability": 1.5}, "no_answer: probability: expected a number from 0 to 1, not 1.5"),
        ("no_answer", {"units": 1}, "no_answer: knows no units, but count, direction"),
    ],
)
def test_a_fault_that_can_not_be_is_refused_with_every_reason(
    name: str, options: dict[str, object], words: str
) -> None:
    bench = Bench()
    with pytest.raises(FaultError) as error:
        bench.faults.set_by(name, options)
    assert words in str(error.value)
    assert bench.faults.as_json() == []


def test_of_a_link_without_modbus_neither_unit_nor_function_can_be_chosen() -> None:
    with pytest.raises(FaultError, match="unit and function are of Modbus, not of mqtt"):
        Bench("mqtt").faults.set("latency", unit=1)


def test_spent_faults_are_forgotten_in_the_end() -> None:
    bench = Bench()
    for _ in range(1500):
        bench.faults.set("no_answer", count=1)
        bench.reply(mbap(registers(1)))
    assert len(bench.faults.as_json()) <= 102


def test_the_registry_is_data_that_a_program_can_read() -> None:
    listed = json.loads(json.dumps([kind.as_json() for kind in FAULTS.values()]))
    assert {tuple(item) for item in listed} == {("name", "applies_to", "what")}
    assert [item["name"] for item in listed] == list(FAULTS)
    assert all(item["what"] and item["applies_to"] for item in listed)

"""The writer: few writes, tightening before relaxing, retries, and when an order counts as written."""

from __future__ import annotations

from dataclasses import dataclass, field

from config.vocabulary import Setpoint, WriteResult, WriteStatus
from drivers.driver import LinkStats
from gateway.control.decision import Decision, DeviceSetpoint
from gateway.control.envelope import Envelope
from gateway.writer import WritePace, Writer


@dataclass
class Recorder:
    """A driver's write side: remembers setpoints until the test answers them."""

    name: str = "recorder"
    devices: tuple[str, ...] = ("a", "b")
    stats: LinkStats = field(default_factory=LinkStats)
    writes: list[Setpoint] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    async def run(self) -> None: ...

    def poll(self) -> tuple[str, ...]:
        return ()

    def write(self, setpoint: Setpoint) -> None:
        self.writes.append(setpoint)

    def forget(self, device: str) -> None:
        self.forgotten.append(device)

    async def rest(self, timeout_s: float) -> None: ...

    def taken(self) -> list[tuple[str, float]]:
        taken = [(write.device, write.power_w) for write in self.writes]
        self.writes.clear()
        return taken


class Desk:
    def __init__(self, **pace: float) -> None:
        self.now_s = 0.0
        self.recorder = Recorder()
        self.written: list[tuple[tuple[str, ...], float]] = []
        self.writer = Writer(
            {"a": self.recorder, "b": self.recorder},
            {"a": WritePace(**pace), "b": WritePace(**pace)},
            lambda: self.now_s,
            2.0,
            lambda ids, at_s: self.written.append((ids, at_s)),
        )

    def decide(self, side: str = "", orders: tuple[str, ...] = (), **powers_w: float) -> list[tuple[str, float]]:
        setpoints = tuple(DeviceSetpoint(name, power, "") for name, power in powers_w.items())
        decision = Decision(self.now_s, setpoints, Envelope(), (), 0.0, 0.0, 0.0, 0.0, side and "x", side, ())
        self.writer.submit(decision, orders)
        self.sent = list(self.recorder.writes)
        return self.recorder.taken()

    def answer(self, device: str, status: WriteStatus = WriteStatus.ACKNOWLEDGED) -> list[tuple[str, float]]:
        write = next(write for write in self.sent if write.device == device)
        self.writer.result(WriteResult(device, write.sequence, status, self.now_s))
        self.sent = list(self.recorder.writes)
        return self.recorder.taken()


def test_an_unchanged_setpoint_is_written_again_only_when_its_refresh_is_due() -> None:
    desk = Desk(refresh_s=5.0, deadband_w=10.0)
    assert desk.decide(a=1000.0) == [("a", 1000.0)]
    assert desk.decide(a=1000.0) == []
    assert desk.decide(a=1009.0) == [], "within the deadband"
    assert desk.decide(a=1011.0) == [("a", 1011.0)]
    desk.now_s = 5.0
    assert desk.decide(a=1011.0) == [("a", 1011.0)]


def test_a_register_that_wears_out_is_written_at_its_pace() -> None:
    desk = Desk(min_interval_s=60.0)
    assert desk.decide(a=1.0) == [("a", 1.0)]
    desk.now_s = 59.0
    assert desk.decide(a=2.0) == []
    desk.now_s = 60.0
    assert desk.decide(a=3.0) == [("a", 3.0)]


def test_what_relieves_a_bound_is_confirmed_before_what_presses_it_more() -> None:
    desk = Desk()
    desk.decide(a=5e3, b=5e3)
    desk.answer("a")
    desk.sent = desk.sent or []
    assert desk.decide(side="upper", a=8e3, b=2e3) == [("b", 2e3)], "the reduction goes first"
    assert desk.answer("b") == [("a", 8e3)], "and with its acknowledgement the increase"


def test_an_increase_held_back_is_replaced_by_the_next_cycle() -> None:
    desk = Desk()
    desk.decide(a=5e3, b=5e3)
    desk.decide(side="upper", a=8e3, b=2e3)
    reduction = desk.sent
    assert desk.decide(side="upper", a=6e3, b=2e3) == []
    desk.sent = reduction
    assert desk.answer("b") == [("a", 6e3)]


def test_a_lost_reduction_does_not_hold_the_others_for_ever() -> None:
    desk = Desk()
    desk.decide(a=5e3, b=5e3)
    desk.decide(side="upper", a=8e3, b=2e3)
    assert desk.answer("b", WriteStatus.INDETERMINATE) == [("a", 8e3)]
    assert desk.decide(side="upper", a=8e3, b=2e3) == [("b", 2e3)], "and it is tried again at once"


def test_a_refused_write_waits_a_second_before_it_is_tried_again() -> None:
    desk = Desk()
    desk.decide(a=5e3)
    desk.answer("a", WriteStatus.REFUSED)
    assert desk.decide(a=5e3) == []
    desk.now_s = 1.0
    assert desk.decide(a=5e3) == [("a", 5e3)]


def test_an_order_is_written_when_its_last_register_is_acknowledged() -> None:
    desk = Desk()
    desk.decide(orders=("o1",), a=1.0, b=2.0)
    desk.now_s = 0.5
    sent = desk.sent
    desk.answer("a")
    assert desk.written == []
    desk.now_s = 0.7
    desk.sent = sent
    desk.answer("b")
    assert desk.written == [(("o1",), 0.7)]


def test_an_order_that_changes_nothing_is_written_at_once() -> None:
    desk = Desk()
    desk.decide(a=1.0)
    desk.decide(orders=("o2",), a=1.0)
    assert desk.written == [(("o2",), 0.0)]


def test_a_device_that_returns_is_told_its_setpoint_again() -> None:
    desk = Desk()
    desk.decide(a=1.0)
    desk.writer.device_returned("a")
    assert desk.decide(a=1.0) == [("a", 1.0)]


def test_a_device_that_shows_something_else_is_written_whole_again() -> None:
    desk = Desk(min_interval_s=2.0, refresh_s=10.0)
    desk.decide(a=1.0)
    desk.answer("a")
    desk.writer.repair("a", at_once=True)
    assert desk.recorder.forgotten == ["a"]
    desk.now_s = 1.9
    assert desk.decide(a=1.0) == [], "no sooner than its registers bear"
    desk.now_s = 2.0
    assert desk.decide(a=1.0) == [("a", 1.0)]
    desk.now_s = 4.0
    assert desk.decide(a=1.0) == [], "and once"


def test_registers_that_wear_out_are_repaired_with_their_refresh() -> None:
    desk = Desk(refresh_s=10.0)
    desk.decide(a=1.0)
    desk.answer("a")
    desk.writer.repair("a", at_once=False)
    desk.now_s = 9.0
    assert desk.decide(a=1.0) == []
    assert desk.recorder.forgotten == ["a"]
    desk.now_s = 10.0
    assert desk.decide(a=1.0) == [("a", 1.0)]


def test_while_observing_nothing_is_written() -> None:
    desk = Desk()
    desk.writer.observe = True
    assert desk.decide(a=1.0) == []

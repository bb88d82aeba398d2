"""The order book: what is taken, what is refused and why, what holds, and what a restart finds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.messages import AckStatus, Down
from config.vocabulary import Absent
from gateway.orders.admission import Refused
from gateway.orders.book import OrderBook
from gateway.orders.held import ParentState
from gateway.parent.receive import Received, receive

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Clocks:
    """A wall clock and a monotonic clock that advance together, and a wall clock that can be corrected."""

    def __init__(self) -> None:
        self.monotonic_s, self.utc_s = 1000.0, NOW.timestamp()

    def advance(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.utc_s += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def book(clocks: Clocks) -> OrderBook:
    return new_book(clocks)


def new_book(clocks: Clocks) -> OrderBook:
    parents = {"dso": ParentState(3.0, dispatches=True), "market": ParentState(3.0, dispatches=False)}
    return OrderBook(100e3, parents, lambda: clocks.monotonic_s, lambda: clocks.utc_s)


def send(book: OrderBook, kind: Down | str, source: str = "dso", retained: bool = False, **message: Any) -> Received:
    return receive(book, source, str(kind), json.dumps(message).encode(), retained=retained)


def limit(order_id: str = "l1", value: Any = 10e3, quantity: str = "net_export_w", **more: Any) -> dict[str, Any]:
    return {"id": order_id, "issued_at": NOW.isoformat(), "quantity": quantity, "value": value, **more}


def dispatch(order_id: str = "d1", epoch: int = 0, net_power_w: float = 5e3, **more: Any) -> dict[str, Any]:
    return {"id": order_id, "issued_at": NOW.isoformat(), "epoch": epoch, "net_power_w": net_power_w, **more}


def status(received: Received) -> tuple[AckStatus, str]:
    return received.outcomes[0].status, received.outcomes[0].reason


def test_a_limit_holds_from_receipt_to_its_end_and_is_completed(book: OrderBook, clocks: Clocks) -> None:
    assert status(send(book, Down.LIMITS, **limit(duration_s=60)))[0] is AckStatus.ACCEPTED
    assert [one.value for one in book.in_force().limits] == [10e3]
    clocks.advance(61)
    assert [outcome.status for outcome in book.advance()] == [AckStatus.COMPLETED]
    assert book.in_force().limits == ()


def test_a_limit_that_ends_to_the_fallback_stays_as_unknown_even_over_a_restart(
    book: OrderBook, clocks: Clocks
) -> None:
    send(book, Down.LIMITS, **limit(duration_s=60, on_end="fallback"))
    clocks.advance(61)
    book.advance()
    assert [one.value for one in book.in_force().limits] == [Absent.UNKNOWN]
    later = new_book(clocks)
    assert later.restore(json.loads(json.dumps(book.dump()))) == []
    assert [one.value for one in later.in_force().limits] == [Absent.UNKNOWN]


def test_a_newer_limit_of_the_same_source_and_quantity_replaces_the_older_and_no_other(book: OrderBook) -> None:
    send(book, Down.LIMITS, **limit("a"))
    send(book, Down.LIMITS, **limit("b", quantity="net_import_w"))
    send(book, Down.LIMITS, source="market", **limit("c"))
    outcomes = send(book, Down.LIMITS, **limit("d", value=0.0)).outcomes
    assert [(one.order_id, one.status) for one in outcomes] == [
        ("d", AckStatus.ACCEPTED),
        ("a", AckStatus.SUPERSEDED),
    ]
    assert [(one.order_id, one.value) for one in book.in_force().limits] == [("b", 10e3), ("c", 10e3), ("d", 0.0)]


def test_an_announced_limit_lets_the_present_one_hold_until_it_begins(book: OrderBook, clocks: Clocks) -> None:
    send(book, Down.LIMITS, **limit("now"))
    send(book, Down.LIMITS, **limit("later", value=5e3, start=(NOW + timedelta(seconds=30)).isoformat()))
    assert [one.order_id for one in book.in_force().limits] == ["now"]
    clocks.advance(31)
    assert [(one.order_id, one.status) for one in book.advance()] == [("now", AckStatus.SUPERSEDED)]
    assert [one.order_id for one in book.in_force().limits] == ["later"]


@pytest.mark.parametrize(
    ("value", "taken"),
    [(5e3, True), (0.0, True), ("unknown", True), (10e3, True), (10.1e3, False), ("unlimited", False)],
)
def test_while_the_clock_is_not_trusted_a_limit_may_be_tightened_and_not_relaxed(
    book: OrderBook, value: Any, taken: bool
) -> None:
    book.clock_trusted = False
    assert status(send(book, Down.LIMITS, **limit("first")))[0] is AckStatus.ACCEPTED
    told, reason = status(send(book, Down.LIMITS, **limit("second", value=value)))
    assert told is (AckStatus.ACCEPTED if taken else AckStatus.REJECTED)
    assert taken or "clock is not trusted" in reason
    book.clock_trusted = True
    assert status(send(book, Down.LIMITS, **limit("third", value="unlimited")))[0] is AckStatus.ACCEPTED


def test_a_corrected_wall_clock_moves_what_has_not_begun(book: OrderBook, clocks: Clocks) -> None:
    send(book, Down.LIMITS, **limit("later", start=(NOW + timedelta(seconds=30)).isoformat()))
    clocks.utc_s += 20
    book.wall_clock_corrected()
    clocks.advance(11)
    book.advance()
    assert [one.order_id for one in book.in_force().limits] == ["later"]


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        (Down.LIMITS, limit(value=-1.0), "greater than or equal to 0"),
        (Down.LIMITS, limit(value="none"), "unlimited"),
        (Down.LIMITS, limit(quantity="power"), "quantity"),
        (Down.LIMITS, limit(device="pv"), "device: Extra inputs"),
        (Down.LIMITS, limit(issued_at="2026-06-01T12:00:00"), "timezone"),
        (Down.LIMITS, limit(duration_s=0), "duration_s"),
        (Down.LIMITS, limit(start=(NOW - timedelta(hours=2)).isoformat(), duration_s=60), "expired"),
        (Down.LIMITS, limit(start=(NOW + timedelta(days=30)).isoformat()), "days ahead"),
        (Down.LIMITS, limit(issued_at=(NOW + timedelta(hours=1)).isoformat()), "in the future"),
        (Down.LIMITS, limit(issued_at=(NOW - timedelta(hours=25)).isoformat()), "issued 25 h ago"),
        (Down.LIMITS, limit(issued_at="1970-01-01T00:00:00Z"), "too long on its way"),
        (Down.LIMITS, limit(issued_at="9999-12-31T23:59:59Z", duration_s=3e7), "in the future"),
        (Down.LIMITS, limit(start="9999-12-31T23:59:59Z", duration_s=3e7), "days ahead"),
        (Down.LIMITS, limit(issued_at=0), "time with its offset"),
        (Down.LIMITS, limit(start="tomorrow"), "time with its offset"),
        (Down.LIMITS, limit(duration_s=1e9), "duration_s"),
        (Down.LIMITS, limit(duration_s=-5), "duration_s"),
        (Down.LIMITS, limit(value=1e11), "less than or equal"),
        (Down.LIMITS, limit(value="10000"), "unlimited"),
        (Down.LIMITS, limit(value=True), "value"),
        (Down.DISPATCH, dispatch(net_power_w=99e3, regulation_down_w=2e3), "reserve reaches beyond"),
        (Down.DISPATCH, dispatch(net_power_w=-99e3, regulation_up_w=2e3), "reserve reaches beyond"),
        (Down.DISPATCH, dispatch(ramp_w_per_s=0), "ramp_w_per_s"),
        (Down.DISPATCH, dispatch(epoch=-1), "epoch"),
        (Down.REGULATION, {"epoch": 0, "sequence": 1, "issued_at": "2020-01-01T00:00:00Z", "signal": 0.0}, "issued"),
        (Down.DISPATCH, dispatch(net_power_w=2e5), "beyond the connection"),
        (Down.DISPATCH, dispatch(epoch=7), "epoch 7"),
        (Down.AUTHORITY, {"id": "a", "issued_at": NOW.isoformat(), "parent": "nobody", "epoch": 2}, "not a parent"),
        (Down.AUTHORITY, {"id": "a", "issued_at": NOW.isoformat(), "parent": "market", "epoch": 0}, "not above"),
        (Down.REGULATION, {"epoch": 0, "sequence": 1, "issued_at": NOW.isoformat(), "signal": 1.5}, "signal"),
        (Down.HEARTBEAT, {"sequence": -1, "issued_at": NOW.isoformat()}, "sequence"),
    ],
)
def test_a_bad_order_is_refused_with_its_reason_and_changes_nothing(
    book: OrderBook, kind: Down, message: dict[str, Any], reason: str
) -> None:
    before = book.dump()
    received = send(book, kind, **message)
    assert status(received)[0] is AckStatus.REJECTED
    assert reason in status(received)[1]
    assert received.outcomes[0].order_id == message.get("id", received.outcomes[0].order_id)
    assert (book.refused, book.dump()) == (1, before)
    assert not received.changed


def test_a_duplicate_is_refused_and_the_first_stays(book: OrderBook) -> None:
    send(book, Down.LIMITS, **limit())
    assert status(send(book, Down.LIMITS, **limit(value=99e3)))[1].startswith("duplicate")
    assert book.in_force().limits[0].value == 10e3


def test_a_retained_order_is_refused(book: OrderBook) -> None:
    assert "retained" in status(send(book, Down.LIMITS, retained=True, **limit()))[1]


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"id": NaN}', b"[" * 50_000, b'"x"' * 40_000]
)
def test_what_is_no_order_is_refused(book: OrderBook, payload: bytes) -> None:
    received = receive(book, "dso", "limits", payload)
    assert received.outcomes[0].status is AckStatus.REJECTED
    assert book.refused == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize(
    ("kind", "field"),
    [(Down.LIMITS, "value"), (Down.LIMITS, "duration_s"), (Down.DISPATCH, "net_power_w"), (Down.REGULATION, "signal")],
)
def test_what_is_no_finite_number_changes_nothing(book: OrderBook, kind: Down, field: str, number: str) -> None:
    message = {
        Down.LIMITS: limit(),
        Down.DISPATCH: dispatch(),
        Down.REGULATION: {"epoch": 0, "sequence": 1, "issued_at": NOW.isoformat(), "signal": 0.5},
    }[kind]
    text = json.dumps(message | {field: "THE_NUMBER"}).replace('"THE_NUMBER"', number)
    before = book.dump()
    received = receive(book, "dso", kind, text.encode())
    assert status(received)[0] is AckStatus.REJECTED
    assert "not a number" in status(received)[1]
    assert (book.dump(), received.changed) == (before, False)


def test_an_old_epoch_is_refused_and_the_newer_dispatch_stays(book: OrderBook) -> None:
    send(book, Down.AUTHORITY, id="a1", issued_at=NOW.isoformat(), parent="dso", epoch=4)
    send(book, Down.DISPATCH, **dispatch("new", epoch=4))
    before = book.dump()
    assert "epoch 3 is not the present epoch 4" in status(send(book, Down.DISPATCH, **dispatch("old", epoch=3)))[1]
    signal = {"epoch": 3, "sequence": 9, "issued_at": NOW.isoformat(), "signal": 1.0}
    assert "epoch 3" in status(send(book, Down.REGULATION, **signal))[1]
    back = {"id": "a2", "issued_at": NOW.isoformat(), "parent": "market", "epoch": 4}
    assert "epoch 4 is not above 4" in status(send(book, Down.AUTHORITY, **back))[1]
    assert book.dump() == before


def test_the_same_id_with_another_content_is_refused(book: OrderBook) -> None:
    send(book, Down.LIMITS, **limit("one", value=0.0))
    assert status(send(book, Down.DISPATCH, **dispatch("one")))[1].startswith("duplicate")
    assert status(send(book, Down.LIMITS, source="market", **limit("one", value="unlimited")))[1].startswith(
        "duplicate"
    )
    assert [held.value for held in book.in_force().limits] == [0.0]


@pytest.mark.parametrize(("lower_w", "upper_w"), [(1.0, -1.0), (float("nan"), 0.0), (0.0, float("inf"))])
def test_an_override_that_leaves_nothing_is_refused(book: OrderBook, lower_w: float, upper_w: float) -> None:
    with pytest.raises(Refused, match="leave nothing"):
        book.override("o1", "battery", lower_w, upper_w)
    assert book.overrides() == ()
    stored = {"overrides": [{"id": "o1", "device": "b", "lower_w": lower_w, "upper_w": upper_w, "until": None}]}
    assert "leave nothing" in book.restore(stored)[0]


def test_an_order_that_was_taken_is_taken_up_again_however_old_it_is(book: OrderBook, clocks: Clocks) -> None:
    send(book, Down.LIMITS, **limit("long"))
    clocks.advance(40 * 86_400.0)
    later = new_book(clocks)
    assert later.restore(json.loads(json.dumps(book.dump()))) == []
    assert [one.order_id for one in later.in_force().limits] == ["long"]


@given(st.binary(max_size=300), st.sampled_from([*Down, "offer", ""]))
def test_no_bytes_raise(payload: bytes, kind: str) -> None:
    book = new_book(Clocks())
    receive(book, "dso", kind, payload)
    assert book.in_force().limits == ()


def test_only_the_parent_with_authority_dispatches_and_it_can_hand_over(book: OrderBook) -> None:
    assert "no dispatch authority" in status(send(book, Down.DISPATCH, source="market", **dispatch()))[1]
    send(book, Down.DISPATCH, **dispatch("d0"))
    authority = {"id": "a1", "issued_at": NOW.isoformat(), "parent": "market", "epoch": 3}
    assert "no authority" in status(send(book, Down.AUTHORITY, source="market", **authority))[1]
    outcomes = send(book, Down.AUTHORITY, **authority).outcomes
    assert [(one.order_id, one.status) for one in outcomes] == [
        ("a1", AckStatus.ACCEPTED),
        ("d0", AckStatus.SUPERSEDED),
    ]
    assert status(send(book, Down.DISPATCH, **dispatch("d1", epoch=3)))[0] is AckStatus.REJECTED
    assert status(send(book, Down.DISPATCH, source="market", **dispatch("d2", epoch=3)))[0] is AckStatus.ACCEPTED
    assert status(send(book, Down.LIMITS, **limit()))[0] is AckStatus.ACCEPTED, "limits come from every parent"


def test_the_newest_regulation_signal_wins(book: OrderBook) -> None:
    send(book, Down.DISPATCH, **dispatch())
    signal = {"epoch": 0, "issued_at": NOW.isoformat()}
    assert send(book, Down.REGULATION, sequence=5, signal=0.5, **signal).changed
    assert "not newer" in status(send(book, Down.REGULATION, sequence=4, signal=-1.0, **signal))[1]
    regulation = book.in_force().regulation
    assert regulation is not None
    assert (regulation.sequence, regulation.signal) == (5, 0.5)


def test_silence_brings_the_fallback_and_a_fresh_heartbeat_lifts_it(book: OrderBook, clocks: Clocks) -> None:
    assert "not heard yet" in book.in_force().fallback_reason
    for source in ("dso", "market"):
        send(book, Down.HEARTBEAT, source=source, sequence=1, issued_at=NOW.isoformat())
    assert book.in_force().fallback_reason == ""
    clocks.advance(3.5)
    assert book.in_force().fallback_reason == "dso silent"
    assert status(send(book, Down.HEARTBEAT, sequence=1, issued_at=NOW.isoformat()))[1] == "heartbeat 1 repeated"
    assert book.in_force().fallback_reason == "dso silent", "a frozen sender is no life sign"
    send(book, Down.HEARTBEAT, sequence=2, issued_at=NOW.isoformat())
    assert book.in_force().fallback_reason == "market silent"
    assert send(book, Down.HEARTBEAT, source="market", sequence=2, issued_at=NOW.isoformat()).changed
    assert book.in_force().fallback_reason == ""


def test_orders_survive_a_restart_with_their_end(book: OrderBook, clocks: Clocks) -> None:
    send(book, Down.LIMITS, **limit("short", duration_s=10, quantity="net_import_w"))
    send(book, Down.LIMITS, **limit("long", duration_s=100))
    authority = {"id": "a1", "issued_at": NOW.isoformat(), "parent": "dso", "epoch": 4}
    send(book, Down.AUTHORITY, **authority)
    send(book, Down.DISPATCH, **dispatch(epoch=4, duration_s=100))
    clocks.advance(20)
    later = new_book(clocks)
    assert later.restore(json.loads(json.dumps(book.dump()))) == ["expired: its end has passed"]
    assert [one.order_id for one in later.in_force().limits] == ["long"]
    assert later.in_force().dispatch is not None
    assert later.epoch == 4
    assert status(send(later, Down.LIMITS, **limit("long")))[1].startswith("duplicate")
    clocks.advance(81)
    later.advance()
    assert later.in_force().limits == ()


@pytest.mark.parametrize(
    "stored", [{}, {"orders": [{}]}, {"orders": [{"kind": "limits", "source": "dso"}]}, {"seen": [1]}]
)
def test_a_broken_store_is_left_behind(book: OrderBook, stored: dict[str, Any]) -> None:
    book.restore(stored)
    assert book.in_force().limits == ()


def test_so_many_orders_and_no_more(book: OrderBook) -> None:
    for number in range(256):
        start = (NOW + timedelta(seconds=10 + number)).isoformat()
        send(book, Down.DISPATCH, **dispatch(f"d{number}", start=start))
    start = (NOW + timedelta(seconds=1000)).isoformat()
    assert "held already" in status(send(book, Down.DISPATCH, **dispatch("over", start=start)))[1]

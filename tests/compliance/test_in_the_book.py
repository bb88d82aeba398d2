"""Compliance between parents and control: governed limits, the fallback it stands for, restarts, and the journal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.compliance import Compliance
from config.messages import AckStatus, Down
from config.vocabulary import Quantity
from gateway.compliance.board import ComplianceBoard
from gateway.compliance.csip_aus import DerPrograms
from gateway.compliance.eebus import Limitation
from gateway.compliance.frame import ComplianceFunction
from gateway.compliance.g100 import LimitationScheme
from gateway.compliance.margin import DisturbanceMargin
from gateway.control.connection import initial_connection, sum_bounds
from gateway.control.decision import Decision
from gateway.control.envelope import Bound, Envelope, walk
from gateway.control.orders_in_force import LimitInForce, OrdersInForce
from gateway.journal import Journal
from gateway.orders.book import OrderBook
from gateway.orders.desk import OrderDesk
from gateway.orders.held import ParentState
from gateway.parent.receive import receive
from gateway.recording import _orders_in, _orders_out
from tests.control.plant import site as site_model

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
STATIC_W = {Quantity.NET_IMPORT_W: 50e3, Quantity.NET_EXPORT_W: 20e3}


class Clocks:
    """A monotonic and a wall clock that advance together."""

    def __init__(self) -> None:
        self.now_s, self.utc_s = 1000.0, NOW.timestamp()

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.utc_s += seconds


def functions(**settings: Any) -> list[ComplianceFunction]:
    one, made = Compliance.model_validate(settings), list[ComplianceFunction]()
    if one.eebus_lpc is not None:
        made.append(Limitation("eebus_lpc", "LPC", one.eebus_lpc))
    if one.eebus_lpp is not None:
        made.append(Limitation("eebus_lpp", "LPP", one.eebus_lpp))
    if one.g100 is not None:
        made.append(LimitationScheme(one.g100))
    if one.csip_aus is not None:
        made.append(DerPrograms(one.csip_aus, "site"))
    if one.disturbance_margin is not None:
        made.append(DisturbanceMargin(one.disturbance_margin, 100e3, 200.0))
    return made


class Gateway:
    """Book, desk and journal without anything below or above."""

    def __init__(self, clocks: Clocks, directory: Path, **settings: Any) -> None:
        self.clocks = clocks
        parents = {"dso": ParentState(60.0, dispatches=True)}
        board = ComplianceBoard(functions(**settings), STATIC_W)
        self.book = OrderBook(100e3, parents, lambda: clocks.now_s, lambda: clocks.utc_s, compliance=board)
        journal = Journal(directory, lambda: clocks.now_s, lambda: clocks.utc_s, own_thread=False)
        self.desk = OrderDesk(self.book, journal, lambda: clocks.utc_s, lambda *_: None, lambda _: None)
        self.path, self.beats, self.stored = journal.path, 0, journal.stored_orders
        self.orders = self.desk.in_force()

    def after(self, seconds: float, net_w: float | None = 0.0) -> dict[Quantity, tuple[str, Any]]:
        """What holds after so long: the source and value of each limit."""
        self.clocks.advance(seconds)
        envelope = Envelope(Bound(-20e3, "connection"), Bound(50e3, "connection"))
        self.desk.measure(Decision(self.clocks.now_s, (), envelope, (), net_w, None, None, None, "", "", (), ""))
        self.orders = self.desk.in_force()
        return {one.quantity: (f"{one.source} {one.order_id}", one.value) for one in self.orders.limits}

    def beat(self) -> None:
        self.beats += 1
        self.book.heartbeat("dso", self.beats)

    def limit(self, order_id: str, value: Any, quantity: str = "net_import_w", **more: Any) -> tuple[AckStatus, str]:
        issued = datetime.fromtimestamp(self.clocks.utc_s, UTC).isoformat()
        message = {"id": order_id, "issued_at": issued, "quantity": quantity, "value": value, **more}
        outcome = receive(self.book, "dso", Down.LIMITS, json.dumps(message).encode()).outcomes[0]
        return outcome.status, outcome.reason

    def transitions(self) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [entry for entry in entries if entry["event"] == "compliance"]


LPC = {"eebus_lpc": {"source": "dso", "failsafe_w": 4200.0}}
BOTH = LPC | {"eebus_lpp": {"source": "dso", "failsafe_w": 0.0}}


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


async def test_a_governed_limit_acts_through_its_function_and_is_named(clocks: Clocks, tmp_path: Path) -> None:
    gateway = Gateway(clocks, tmp_path, **LPC)
    assert gateway.after(0.0) == {Quantity.NET_IMPORT_W: ("eebus_lpc init: fail-safe value (dso)", 4200.0)}
    gateway.beat()
    assert gateway.limit("l1", 9000.0)[0] is AckStatus.ACCEPTED
    assert gateway.after(1.0) == {Quantity.NET_IMPORT_W: ("eebus_lpc limited: dso l1", 9000.0)}
    assert gateway.limit("l2", 3000.0, "net_export_w")[0] is AckStatus.ACCEPTED
    assert gateway.after(1.0)[Quantity.NET_EXPORT_W] == ("dso l2", 3000.0), "export is not LPC's: it acts by itself"
    state = gateway.after(121.0)[Quantity.NET_IMPORT_W]
    assert state == ("eebus_lpc failsafe: fail-safe value (dso)", 4200.0), "the stale limit of 9 kW is gone"
    told = gateway.transitions()
    assert [(one["left"], one["entered"], one["clause"]) for one in told] == [
        ("init", "limited", "[LPC-904]"),
        ("limited", "failsafe", "[LPC-912]"),
    ]


async def test_a_limit_without_a_heartbeat_is_rejected_with_its_clause(clocks: Clocks, tmp_path: Path) -> None:
    gateway = Gateway(clocks, tmp_path, **LPC)
    before = gateway.book.dump()
    status, reason = gateway.limit("l1", 0.0)
    assert status is AckStatus.REJECTED
    assert "section 2.2" in reason
    assert gateway.book.dump() == before
    gateway.beat()
    assert gateway.limit("l2", "unknown")[0] is AckStatus.REJECTED


@pytest.mark.parametrize(("settings", "reason"), [(LPC, "dso not heard yet"), (BOTH, "")])
async def test_the_fallback_of_the_site_gives_way_only_where_both_directions_are_ruled(
    clocks: Clocks, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    gateway = Gateway(clocks, tmp_path, **settings)
    assert gateway.orders.fallback_reason == reason
    assert {limit.source for limit in gateway.orders.limits} == settings.keys()


async def test_failsafe_survives_the_gateway(clocks: Clocks, tmp_path: Path) -> None:
    gateway = Gateway(clocks, tmp_path, **BOTH)
    gateway.beat()
    gateway.limit("l1", 9000.0)
    gateway.after(1.0)
    gateway.after(121.0)
    stored, unreadable = gateway.stored()
    assert unreadable == ""
    clocks.advance(600.0)
    later = Gateway(clocks, tmp_path, **BOTH)
    assert later.book.restore(stored) == []
    held = later.after(0.0)
    assert held[Quantity.NET_IMPORT_W] == ("eebus_lpc failsafe: fail-safe value (dso)", 4200.0)
    held = later.after(7200.0 - 601.0)
    assert held[Quantity.NET_IMPORT_W][1] == 4200.0
    assert Quantity.NET_IMPORT_W not in later.after(2.0), "[LPC-922]"


async def test_lock_outs_are_stored_at_once(clocks: Clocks, tmp_path: Path) -> None:
    gateway = Gateway(clocks, tmp_path, g100={"max_export_w": 3680.0})
    for _ in range(62):
        gateway.after(1.0, net_w=-5000.0)
    assert gateway.after(0.0)[Quantity.NET_EXPORT_W] == ("g100 state 3: maximum export limit", 0.0)
    later = Gateway(clocks, tmp_path, g100={"max_export_w": 3680.0})
    later.book.restore(later.stored()[0])
    assert later.after(0.0)[Quantity.NET_EXPORT_W][1] == 0.0


async def test_no_bound_is_above_the_installers(clocks: Clocks, tmp_path: Path) -> None:
    gateway = Gateway(clocks, tmp_path, g100={"max_export_w": 99e3})
    source, value = gateway.after(0.0)[Quantity.NET_EXPORT_W]
    assert value == 20e3
    assert "held to the installer's limit" in source


async def test_several_functions_hold_and_the_tightest_is_named(clocks: Clocks, tmp_path: Path) -> None:
    csip = {"programs": [{"source": "dso"}], "default_export_w": 1500.0, "set_max_w": 10e3}
    gateway = Gateway(clocks, tmp_path, g100={"max_export_w": 3680.0}, csip_aus=csip)
    envelope = walk(site_model(), gateway.orders, clocks.now_s, None, 0.0)
    assert envelope.lower.value_w == -1500.0
    assert envelope.lower.source.startswith("csip_aus default control, no program heard")


async def test_margins_reach_control_and_a_recording(clocks: Clocks, tmp_path: Path) -> None:
    gateway = Gateway(clocks, tmp_path, disturbance_margin={})
    for number in range(200):
        gateway.after(0.1, net_w=-19_800.0 + 900.0 * (-1) ** number)
    margins = gateway.orders.margins
    assert margins is not None
    assert (margins.source, margins.upper_w) == ("disturbance_margin", 200.0)
    assert 600.0 < margins.lower_w <= 3000.0
    assert _orders_in(json.loads(json.dumps(_orders_out(gateway.orders)))) == gateway.orders
    envelope = walk(site_model(), gateway.orders, clocks.now_s, None, 0.0)
    assert (envelope.lower_margin_w, envelope.upper_margin_w) == (margins.lower_w, 200.0)


def test_control_stays_inside_by_the_margin_and_never_less_than_declared() -> None:
    model = site_model()
    rest = initial_connection(model).rest
    rest.lower_w = rest.upper_w = 0.0
    envelope = Envelope(Bound(0.0, "zero export"), Bound(50e3, "connection"))
    plain, _ = sum_bounds(model, envelope, rest)
    assert plain.lower_w == model.margin_w
    envelope.lower_margin_w = model.margin_w + 700.0
    wider, _ = sum_bounds(model, envelope, rest)
    assert (wider.lower_w, wider.upper_w) == (model.margin_w + 700.0, plain.upper_w)
    envelope.lower_margin_w = 1e9
    assert sum_bounds(model, envelope, rest)[0].lower_w == 12_500.0, "a quarter of the interval is the most"


def test_a_recording_of_before_has_no_margins() -> None:
    raw = _orders_out(OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.LOAD_W, 1.0),)))
    del raw["margins"]
    assert _orders_in(raw).margins is None


async def test_the_operator_s_word_reaches_a_function_by_name(clocks: Clocks, tmp_path: Path) -> None:
    board = Gateway(clocks, tmp_path, **LPC).book.compliance
    assert board.command({"function": "eebus_lpc", "failsafe_w": 1000.0}, 0.0).startswith("eebus_lpc: fail-safe 1000 W")
    with pytest.raises(ValueError, match="no such compliance function"):
        board.command({"function": "g100"}, 0.0)

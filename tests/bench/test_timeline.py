"""What was in force when, rebuilt from what a DSO sent; every time line is worked out by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest

from config.site import Site
from config.vocabulary import Quantity
from gateway.bench.dso_orders import orders_of
from gateway.bench.run_files import Run, read_run
from gateway.bench.timeline import Hold, InForce, Step, in_force, loosened, lost_times, sampled, tightest

EPOCH = datetime(2026, 6, 8, 9, 0, tzinfo=UTC)


def utc(at_s: float) -> str:
    return (EPOCH + timedelta(seconds=at_s)).isoformat()


class Dso:
    """Writes what a DSO sent, at times from 0, with its heartbeat kept up over the whole run unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    def beats(self, *times: float) -> None:
        for sequence, at_s in enumerate(times):
            self._sent(at_s, "heartbeat", {"sequence": sequence, "issued_at": utc(at_s)})

    def limit(self, at_s: float, order_id: str, quantity: str, value: Any, **more: Any) -> None:
        message = {"id": order_id, "issued_at": utc(at_s), "quantity": quantity, "value": value, **more}
        self._sent(at_s, "limits", message)

    def dispatch(self, at_s: float, order_id: str, net_power_w: float, **more: Any) -> None:
        message = {"id": order_id, "issued_at": utc(at_s), "epoch": 1, "net_power_w": net_power_w, **more}
        self._sent(at_s, "dispatch", message)

    def signal(self, at_s: float, sequence: int, value: float, **more: Any) -> None:
        message = {"epoch": 1, "sequence": sequence, "issued_at": utc(at_s), "signal": value, **more}
        self._sent(at_s, "regulation", message)

    def answer(self, at_s: float, kind: str, order_id: str, status: str, **more: Any) -> None:
        line = {"event": "order", "monotonic_s": at_s, "utc": utc(at_s), "kind": kind, "id": order_id}
        self.answers.append({**line, "source": "dso", "status": status, "reason": "", "message": None, **more})

    def _sent(self, at_s: float, kind: str, message: dict[str, Any]) -> None:
        line = {"event": "sent", "monotonic_s": at_s, "kind": kind, "id": message.get("id"), "message": message}
        self.events.append(line)

    def run(self) -> Run:
        for name, events in (("dso.jsonl", self.events), ("gateway.jsonl", self.answers)):
            (self.folder / name).write_text("".join(json.dumps(event) + "\n" for event in events))
        return read_run(self.folder)

    def in_force(self, site: Site) -> InForce:
        run = self.run()
        return in_force(run, orders_of(run), site)


@pytest.fixture
def dso(tmp_path: Path) -> Dso:
    return Dso(tmp_path)


@pytest.fixture
def heard(dso: Dso) -> Dso:
    dso.beats(*(float(second) for second in range(100)))
    return dso


def limits(found: InForce, quantity: Quantity, until_s: float = 90.0) -> list[tuple[float, float | None, str]]:
    """Steps from 0 on, rounded to a millisecond."""
    steps = [step for step in found.limits.get(quantity, ()) if step.start_s < until_s]
    return [(round(step.start_s, 3), step.value, step.source) for step in steps if step.start_s >= 0.0]


IMPORT, EXPORT = Quantity.NET_IMPORT_W, Quantity.NET_EXPORT_W
OPEN = (0.0, 100000.0, "installer")


def test_a_limit_holds_from_receipt_to_its_end_and_then_is_gone(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_import_w", 8000.0, duration_s=5.0)
    assert limits(heard.in_force(demo_site), IMPORT) == [OPEN, (10.0, 8000.0, "a"), (15.0, 100000.0, "installer")]


def test_receipt_is_when_the_gateway_had_it(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_import_w", 8000.0)
    heard.answer(10.5, "limits", "a", "accepted", received_s=10.25)
    assert limits(heard.in_force(demo_site), IMPORT) == [OPEN, (10.25, 8000.0, "a")]


def test_a_limit_replaces_the_one_on_the_same_quantity_even_when_it_is_looser(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_import_w", 8000.0)
    heard.limit(12.0, "b", "net_export_w", 1000.0)
    heard.limit(20.0, "c", "net_import_w", 30000.0)
    heard.limit(30.0, "d", "net_import_w", "unlimited")
    found = heard.in_force(demo_site)
    expected = [OPEN, (10.0, 8000.0, "a"), (20.0, 30000.0, "c"), (30.0, 100000.0, "installer")]
    assert limits(found, IMPORT) == expected
    assert limits(found, EXPORT) == [OPEN, (12.0, 1000.0, "b")]


def test_a_limit_with_a_later_start_leaves_the_earlier_one_in_force_until_then(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_import_w", 8000.0)
    heard.limit(11.0, "b", "net_import_w", 3000.0, start=utc(20.0), duration_s=10.0)
    expected = [OPEN, (10.0, 8000.0, "a"), (20.0, 3000.0, "b"), (30.0, 100000.0, "installer")]
    assert limits(heard.in_force(demo_site), IMPORT) == expected


def test_zero_is_a_limit(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_export_w", 0.0)
    assert limits(heard.in_force(demo_site), EXPORT) == [OPEN, (10.0, 0.0, "a")]


def test_the_fallback_follows_a_limit_that_asks_for_it(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_import_w", 40000.0, duration_s=5.0, on_end="fallback")
    heard.limit(30.0, "b", "net_import_w", 50000.0)
    found = heard.in_force(demo_site)
    expected = [OPEN, (10.0, 40000.0, "a"), (15.0, 25000.0, "fallback"), (30.0, 50000.0, "b")]
    assert limits(found, IMPORT) == expected
    assert limits(found, EXPORT) == [OPEN, (15.0, 5000.0, "fallback"), (30.0, 100000.0, "installer")]


def test_an_unknown_limit_puts_the_fallback_in_its_place(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "generation_w", "unknown")
    heard.limit(20.0, "b", "generation_w", "unlimited")
    found = heard.in_force(demo_site)
    assert limits(found, EXPORT) == [OPEN, (10.0, 5000.0, "fallback"), (20.0, 100000.0, "installer")]
    assert limits(found, Quantity.GENERATION_W) == []


def test_the_fallback_holds_before_the_first_heartbeat_and_from_a_time_out_after_the_last(
    dso: Dso, demo_site: Site
) -> None:
    dso.beats(2.0, 3.0, 4.0, 20.0, 21.0)
    found = dso.in_force(demo_site)
    assert found.limits[IMPORT] == (
        Step(-inf, 25000.0, "fallback"),
        Step(2.0, 100000.0, "installer"),
        Step(7.0, 25000.0, "fallback"),
        Step(20.0, 100000.0, "installer"),
        Step(24.0, 25000.0, "fallback"),
    )


def test_while_the_parent_is_lost_the_tighter_of_its_limit_and_the_fallback_holds(dso: Dso, demo_site: Site) -> None:
    dso.beats(0.0, 1.0, 30.0, 31.0, 32.0, 33.0)
    dso.limit(0.5, "a", "net_import_w", 8000.0)
    dso.limit(0.6, "b", "net_export_w", 9000.0)
    found = dso.in_force(demo_site)
    assert limits(found, IMPORT, 34.0) == [(0.0, 100000.0, "installer"), (0.5, 8000.0, "a")]
    expected = [OPEN, (0.6, 9000.0, "b"), (4.0, 5000.0, "fallback"), (30.0, 9000.0, "b")]
    assert limits(found, EXPORT, 34.0) == expected


def test_without_the_dsos_log_the_gateways_word_says_when_the_fallback_held(dso: Dso, demo_site: Site) -> None:
    dso.answers += [
        {"event": "mode", "monotonic_s": 5.0, "state": "normal", "reason": ""},
        {"event": "mode", "monotonic_s": 9.0, "state": "fallback", "reason": "silence"},
    ]
    run = dso.run()
    (dso.folder / "dso.jsonl").unlink()
    run = read_run(dso.folder)
    assert in_force(run, (), demo_site).fallback == ((-inf, 5.0), (9.0, inf))


def test_lost_times_of_a_parent_that_is_never_heard() -> None:
    assert lost_times([], 3.0) == [(-inf, inf)]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"value": -1.0}, "value"),
        ({"device": "pv"}, "device"),
        ({"duration_s": 5.0, "issued_at": utc(-60.0)}, "ended before it was received"),
    ],
)
def test_an_order_that_must_be_refused_binds_nobody(
    heard: Dso, demo_site: Site, more: dict[str, Any], fault: str
) -> None:
    message = {"id": "x", "issued_at": utc(10.0), "quantity": "net_import_w", "value": 1000.0, **more}
    heard._sent(10.0, "limits", message)
    run = heard.run()
    (order,) = orders_of(run)
    assert order.fault.startswith(fault)
    assert limits(in_force(run, (order,), demo_site), IMPORT) == [OPEN]


def test_a_repeated_id_does_not_bind_and_its_refusal_is_not_the_first_ones(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_import_w", 8000.0, duration_s=20.0)
    heard.answer(10.1, "limits", "a", "accepted")
    heard.limit(15.0, "a", "net_import_w", 50000.0)
    heard.answer(15.1, "limits", "a", "rejected", reason="the id was used before")
    heard.answer(30.0, "limits", "a", "completed")
    run = heard.run()
    first, second = orders_of(run)
    assert (first.status, first.fault) == ("completed", "")
    assert (second.status, second.fault) == ("rejected", "repeats the id of an earlier order")
    found = in_force(run, (first, second), demo_site)
    assert limits(found, IMPORT) == [OPEN, (10.1, 8000.0, "a"), (30.0, 100000.0, "installer")]


def test_a_limit_binds_although_the_gateway_refused_it(heard: Dso, demo_site: Site) -> None:
    heard.limit(10.0, "a", "net_import_w", 8000.0)
    heard.answer(10.0, "limits", "a", "rejected", reason="not today")
    assert limits(heard.in_force(demo_site), IMPORT) == [OPEN, (10.0, 8000.0, "a")]


def test_a_payload_that_is_no_message_is_an_order_without_effect(heard: Dso, demo_site: Site) -> None:
    line = {"event": "sent", "monotonic_s": 10.0, "kind": "dispatch", "id": None, "message": '{"id": "half'}
    heard.events.append(line)
    heard.answer(10.1, "dispatch", "", "rejected", reason="not JSON")
    run = heard.run()
    (order,) = orders_of(run)
    assert (order.refused, order.binds, order.message) == (True, False, None)
    assert in_force(run, (order,), demo_site).target == (Step(-inf, None, ""),)


def test_regulation_moves_the_target_by_signal_times_capacity(heard: Dso, demo_site: Site) -> None:
    heard.dispatch(10.0, "d", -5000.0, regulation_up_w=8000.0, regulation_down_w=4000.0, duration_s=60.0)
    heard.signal(20.0, 1, 0.5)
    heard.signal(22.0, 2, -1.0)
    heard.signal(23.0, 2, 1.0)  # not newer: changes nothing
    found = heard.in_force(demo_site)
    assert [(round(step.start_s, 3), step.value) for step in found.target] == [
        (-inf, None),
        (10.0, -5000.0),
        (20.0, -9000.0),  # above 0: generate more, capacity up
        (22.0, -1000.0),  # below 0: capacity down
        (32.0, -5000.0),  # lost 10 s after the last one
        (70.0, None),
    ]
    assert found.regulated == ((20.0, 32.0),)


def test_a_dispatch_that_the_gateway_refused_gives_no_target(heard: Dso, demo_site: Site) -> None:
    heard.dispatch(10.0, "d", -5000.0)
    heard.dispatch(20.0, "e", 50000.0)
    heard.answer(20.0, "dispatch", "e", "rejected", reason="epoch 0 is over")
    found = heard.in_force(demo_site)
    assert [(step.start_s, step.value) for step in found.target] == [(-inf, None), (10.0, -5000.0)]


def test_the_tightest_of_overlapping_values_holds() -> None:
    holds = [Hold(0.0, 10.0, 5.0, "a"), Hold(2.0, 4.0, 3.0, "b"), Hold(3.0, 6.0, 4.0, "c"), Hold(8.0, 8.0, 1.0, "d")]
    assert tightest(holds) == (
        Step(-inf, None, ""),
        Step(0.0, 5.0, "a"),
        Step(2.0, 3.0, "b"),
        Step(4.0, 4.0, "c"),
        Step(6.0, 5.0, "a"),
        Step(10.0, None, ""),
    )


def test_with_a_grace_tightening_counts_later_and_loosening_at_once() -> None:
    steps = (Step(-inf, 100.0, "i"), Step(10.0, 20.0, "a"), Step(20.0, 50.0, "b"), Step(30.0, None, ""))
    values = loosened(steps, 0.5)
    times = [9.9, 10.1, 10.49, 10.5, 19.9, 20.0, 29.9, 30.0]
    assert sampled(values, times) == [100.0, 100.0, 100.0, 20.0, 20.0, 50.0, 50.0, None]


def test_a_refusal_without_an_id_belongs_to_the_latest_order_of_its_kind_that_nobody_answered(
    heard: Dso, demo_site: Site
) -> None:
    heard.dispatch(10.0, "good", 1000.0)
    heard.answer(10.01, "dispatch", "good", "accepted")
    heard.events.append({"event": "sent", "monotonic_s": 12.0, "kind": "dispatch", "id": None, "message": "{"})
    heard.answer(12.01, "dispatch", "", "rejected", reason="not JSON")
    heard.dispatch(14.0, "oversized", 2000.0)
    heard.answer(14.01, "dispatch", "", "rejected", reason="too large")
    run = heard.run()
    orders = orders_of(run)
    assert [(order.id, order.status, order.reason) for order in orders] == [
        ("good", "accepted", ""),
        ("dispatch without id", "rejected", "not JSON"),
        ("oversized", "rejected", "too large"),
    ]
    assert in_force(run, orders, demo_site).target[-1].value == 1000.0


def test_orders_that_only_the_gateway_journalled_count_from_its_journal(dso: Dso, demo_site: Site) -> None:
    message = {"id": "a", "issued_at": utc(3.0), "quantity": "net_import_w", "value": 7000.0}
    dso.answer(3.1, "limits", "a", "accepted", message=message)
    dso.answer(9.0, "limits", "a", "superseded")
    run = dso.run()
    (order,) = orders_of(run)
    assert (order.received_s, order.status, order.binds) == (3.1, "superseded", True)

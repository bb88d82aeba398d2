"""CSIP-AUS: the default control, primacy, setGradW and randomised starts."""

from __future__ import annotations

import pytest

from config.compliance import CsipAus
from config.vocabulary import Quantity
from gateway.compliance.csip_aus import DerPrograms
from tests.compliance.cycle_table import OFF, Row, Site, play

EXPORT, IMPORT = Quantity.NET_EXPORT_W, Quantity.NET_IMPORT_W
LOST, DEFAULT, ACTIVE = "default control, no program heard", "default control", "active control"
GUIDE, EVENT = "CSIP-AUS 4.4", "IEEE 2030.5"


def programs(**more: object) -> Site:
    settings = {
        "programs": [{"source": "dso", "primacy": 1}],
        "default_export_w": 1500.0,
        "set_max_w": 10e3,
        "set_grad_w": 0,
        **more,
    }
    return Site(DerPrograms(CsipAus.model_validate(settings), "site"), quantity=EXPORT)


def test_the_default_control_holds_without_any_other_and_on_loss() -> None:
    play(
        programs(),
        [
            Row(0, {}, LOST, {EXPORT: 1500.0}),
            Row(1, {"heartbeat": True}, DEFAULT, {EXPORT: 1500.0}, (GUIDE,)),
            Row(2, {"limit": ("c1", 5000.0, 100.0)}, ACTIVE, {EXPORT: 5000.0}, (EVENT,)),
            Row(102, {"heartbeat": True}, DEFAULT, {EXPORT: 1500.0}, (GUIDE,)),
            Row(103, {"limit": ("c2", 5000.0, 9000.0)}, ACTIVE, {EXPORT: 5000.0}, (EVENT,)),
            Row(702, {}, ACTIVE, {EXPORT: 5000.0}),
            Row(702.1, {}, LOST, {EXPORT: 1500.0}, (GUIDE,)),
            Row(800, {"heartbeat": True}, ACTIVE, {EXPORT: 5000.0}, (EVENT,)),
            Row(801, {"limit": ("c3", OFF)}, DEFAULT, {EXPORT: 1500.0}, (GUIDE,)),
        ],
    )


def test_on_loss_a_tighter_control_in_hand_runs_to_its_end() -> None:
    play(
        programs(),
        [
            Row(0, {"heartbeat": True, "limit": ("c1", 0.0, 1000.0)}, ACTIVE, {EXPORT: 0.0}, (EVENT,)),
            Row(601, {}, LOST, {EXPORT: 0.0}, (GUIDE,)),
            Row(1000, {}, LOST, {EXPORT: 1500.0}),
        ],
    )


def test_the_lowest_primacy_holds_whatever_is_tighter() -> None:
    site = programs(programs=[{"source": "dso", "primacy": 1}, {"source": "retailer", "primacy": 5}])
    both = {"heartbeat": True}
    play(
        site,
        [
            Row(0, both, DEFAULT, {EXPORT: 1500.0}, (GUIDE,)),
            Row(1, {"limit": ("r1", 200.0, None, "retailer")}, ACTIVE, {EXPORT: 200.0}, (EVENT,)),
            Row(2, {"limit": ("d1", 4000.0, 10.0)}, ACTIVE, {EXPORT: 4000.0}),
            Row(12, {}, ACTIVE, {EXPORT: 200.0}),
        ],
    )


def test_only_modes_of_the_default_control_are_governed() -> None:
    site = programs(default_import_w=2000.0)
    play(
        site,
        [
            Row(0, {"heartbeat": True}, DEFAULT, {EXPORT: 1500.0, IMPORT: 2000.0}, (GUIDE,)),
            Row(1, {"limit": ("c1", 9e3, None, None, IMPORT)}, ACTIVE, {EXPORT: 1500.0, IMPORT: 9e3}, (EVENT,)),
        ],
    )
    assert not site.function.governs("dso", Quantity.LOAD_W)


def test_set_grad_w_ramps_what_relaxes_and_tightens_at_once() -> None:
    play(
        programs(set_grad_w=100),
        [
            Row(0, {"heartbeat": True}, DEFAULT, {EXPORT: 1500.0}, (GUIDE,)),
            Row(10, {"limit": ("c1", 5000.0)}, ACTIVE, {EXPORT: 2500.0}, (EVENT,)),
            Row(20, {}, ACTIVE, {EXPORT: 3500.0}),
            Row(40, {}, ACTIVE, {EXPORT: 5000.0}),
            Row(41, {"limit": ("c2", 100.0)}, ACTIVE, {EXPORT: 100.0}),
        ],
    )


def test_set_grad_w_may_ramp_both_ways() -> None:
    play(
        programs(set_grad_w=100, ramp="both"),
        [
            Row(0, {"heartbeat": True}, DEFAULT, {EXPORT: 1500.0}, (GUIDE,)),
            Row(5, {"limit": ("c1", 0.0)}, ACTIVE, {EXPORT: 1000.0}, (EVENT,)),
            Row(20, {}, ACTIVE, {EXPORT: 0.0}),
        ],
    )


def begins_s(order_id: str) -> float:
    """When a control given at 100 s begins, to the second."""
    site = programs(randomise_start_s=300.0)
    site.feed({"heartbeat": True})
    site.step(0.0)
    site.now_s = 100.0
    site.give(order_id, 0.0, 400.0)
    for second in range(100, 900):
        if site.step(second).bounds[0].value_w == 0.0:
            return float(second)
    raise AssertionError("never")


def test_starts_are_spread_by_the_order_and_the_same_each_time() -> None:
    starts = [begins_s(f"c{number}") for number in range(12)]
    assert starts == [begins_s(f"c{number}") for number in range(12)]
    assert min(starts) >= 100.0
    assert max(starts) <= 401.0
    assert len(set(starts)) > 8


def test_a_control_that_is_replaced_holds_until_the_next_begins() -> None:
    site = programs(randomise_start_s=300.0)
    site.feed({"heartbeat": True})
    site.step(0.0)
    site.give("first", 0.0)
    site.step(301.0)
    site.feed({"heartbeat": True})
    site.give("c5", 1000.0)
    held = [site.step(301.0 + second).bounds[0].value_w for second in range(302)]
    assert set(held) == {0.0, 1000.0}, "never the default control in between"
    assert held == sorted(held)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_what_is_no_control_is_refused(value: float) -> None:
    site = programs()
    site.give("c1", value)
    assert "not a magnitude" in site.refused[0]

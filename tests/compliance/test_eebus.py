"""LPC and LPP: the states of a controllable system, row by row, with the rule that each transition cites."""

from __future__ import annotations

import pytest

from config.compliance import EebusLpc, EebusLpp
from config.vocabulary import Absent, Quantity
from gateway.compliance.eebus import Limitation
from tests.compliance.cycle_table import OFF, Row, Site, play, restarted

P = Quantity.NET_IMPORT_W
FAILSAFE = {P: 4200.0}
NONE: dict[Quantity, float] = {}


def lpc(autonomous: str = "unlimited", duration_s: float = 7200.0) -> Limitation:
    settings = {
        "source": "dso",
        "failsafe_w": 4200.0,
        "failsafe_duration_s": duration_s,
        "autonomous": autonomous,
    }
    return Limitation("eebus_lpc", "LPC", EebusLpc.model_validate(settings))


def beat(**more: object) -> dict[str, object]:
    return {"heartbeat": True, **more}


@pytest.fixture
def site() -> Site:
    return Site(lpc())


def test_from_start_the_failsafe_value_holds_until_a_heartbeat_and_a_limit(site: Site) -> None:
    play(
        site,
        [
            Row(0, {}, "init", FAILSAFE),
            Row(10, beat(), "init", FAILSAFE),
            Row(11, {"limit": ("l1", 2000.0)}, "limited", {P: 2000.0}, ("[LPC-904]",)),
        ],
    )


def test_a_deactivated_limit_leads_from_init_to_unlimited_controlled(site: Site) -> None:
    play(
        site,
        [
            Row(0, beat(), "init", FAILSAFE),
            Row(1, {"limit": ("l1", OFF)}, "unlimited/controlled", NONE, ("[LPC-902], [LPC-905]",)),
        ],
    )


def test_nobody_in_control_within_120_s_of_the_start_ends_init(site: Site) -> None:
    play(
        site,
        [
            Row(0, {}, "init", FAILSAFE),
            Row(120, {}, "init", FAILSAFE),
            Row(120.1, {}, "unlimited/autonomous", NONE, ("[LPC-906]",)),
            Row(5000, beat(), "unlimited/autonomous", NONE),
            Row(5001, {"limit": ("l1", 0.0)}, "limited", {P: 0.0}, ("[LPC-919]",)),
        ],
    )


def test_a_limit_without_a_fresh_heartbeat_is_refused_and_changes_nothing(site: Site) -> None:
    play(
        site,
        [
            Row(0, {"limit": ("l0", 99e3)}, "init", FAILSAFE),
            Row(10, beat(), "init", FAILSAFE),
            Row(70.1, {"limit": ("l1", 99e3)}, "init", FAILSAFE),
            Row(80, beat(limit=("l2", 99e3)), "limited", {P: 99e3}, ("[LPC-904]",)),
        ],
    )
    assert len(site.refused) == 2
    assert all("fresh heartbeat" in reason for reason in site.refused)


def test_in_contact_limits_come_change_end_and_are_deactivated(site: Site) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l0", OFF)), "unlimited/controlled", NONE, ("[LPC-902], [LPC-905]",)),
            Row(60, beat(limit=("l1", 5000.0, 100.0)), "limited", {P: 5000.0}, ("[LPC-910]",)),
            Row(70, {"limit": ("l2", 3000.0, 50.0)}, "limited", {P: 3000.0}, ("[LPC-914/1]",)),
            Row(119, beat(), "limited", {P: 3000.0}),
            Row(120, {}, "unlimited/controlled", NONE, ("[LPC-908]",)),
            Row(130, {"limit": ("l3", 1000.0)}, "limited", {P: 1000.0}, ("[LPC-910]",)),
            Row(230, beat(), "limited", {P: 1000.0}),
            Row(300, beat(), "limited", {P: 1000.0}),
            Row(301, {"limit": ("l4", OFF)}, "unlimited/controlled", NONE, ("[LPC-909]",)),
        ],
    )


def test_a_limit_that_vanishes_from_the_book_holds_until_it_ends_or_is_replaced(site: Site) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l1", 5000.0)), "limited", {P: 5000.0}, ("[LPC-904]",)),
            Row(1, {"gone": "l1"}, "limited", {P: 5000.0}),
            Row(100, beat(), "limited", {P: 5000.0}),
        ],
    )


@pytest.mark.parametrize(
    ("given", "state", "bounds", "clause"),
    [(5000.0, "limited", {P: 5000.0}, "[LPC-912]"), (OFF, "unlimited/controlled", NONE, "[LPC-911]")],
)
def test_120_s_without_a_heartbeat_are_failsafe(
    site: Site, given: float | Absent, state: str, bounds: dict[Quantity, float], clause: str
) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l1", given)), state, bounds, ("[LPC-90",)),
            Row(120, {}, state, bounds),
            Row(120.1, {}, "failsafe", FAILSAFE, (clause,)),
        ],
    )


@pytest.mark.parametrize(
    ("value", "state", "bounds", "clause"),
    [(1000.0, "limited", {P: 1000.0}, "[LPC-919]"), (OFF, "unlimited/controlled", NONE, "[LPC-918]")],
)
def test_failsafe_is_left_on_a_heartbeat_and_a_new_limit(
    site: Site, value: float | Absent, state: str, bounds: dict[Quantity, float], clause: str
) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l1", 9000.0)), "limited", {P: 9000.0}, ("[LPC-904]",)),
            Row(121, {}, "failsafe", FAILSAFE, ("[LPC-912]",)),
            Row(500, beat(), "failsafe", FAILSAFE),
            Row(530, {"limit": ("l2", value)}, state, bounds, (clause,)),
        ],
    )


def test_heartbeats_without_a_limit_end_failsafe_after_120_s(site: Site) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l1", 9000.0)), "limited", {P: 9000.0}, ("[LPC-904]",)),
            Row(121, {}, "failsafe", FAILSAFE, ("[LPC-912]",)),
            Row(500, beat(), "failsafe", FAILSAFE),
            Row(560, beat(), "failsafe", FAILSAFE),
            Row(620, beat(), "failsafe", FAILSAFE),
            Row(620.1, {}, "unlimited/autonomous", NONE, ("[LPC-921]",)),
        ],
    )


def test_one_heartbeat_alone_ends_nothing(site: Site) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l1", 9000.0)), "limited", {P: 9000.0}, ("[LPC-904]",)),
            Row(121, {}, "failsafe", FAILSAFE, ("[LPC-912]",)),
            Row(500, beat(), "failsafe", FAILSAFE),
            Row(700, {}, "failsafe", FAILSAFE),
            Row(7321, {}, "unlimited/autonomous", NONE, ("[LPC-922]",)),
        ],
        every_s=10.0,
    )


def test_the_failsafe_duration_minimum_ends_it_without_any_heartbeat(site: Site) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l1", OFF)), "unlimited/controlled", NONE, ("[LPC-902]",)),
            Row(121, {}, "failsafe", FAILSAFE, ("[LPC-911]",)),
            Row(7320, {}, "failsafe", FAILSAFE),
            Row(7321, {}, "unlimited/autonomous", NONE, ("[LPC-922]",)),
        ],
    )


def test_alone_the_failsafe_value_may_be_chosen_to_stay() -> None:
    site = Site(lpc(autonomous="failsafe"))
    play(site, [Row(0, {}, "init", FAILSAFE), Row(121, {}, "unlimited/autonomous", FAILSAFE, ("[LPC-906]",))])
    assert site.function.rule(site.moment()).failsafe


def test_the_failsafe_value_and_duration_can_be_set_and_survive(site: Site) -> None:
    site.function.command({"failsafe_w": 1000.0, "failsafe_duration_s": 86400}, 0.0)
    play(site, [Row(0, {}, "init", {P: 1000.0}, ("[LPC-022]",))])
    after = restarted(site, lpc(), 60.0)
    play(after, [Row(60, {}, "init", {P: 1000.0})])
    for bad in ({"failsafe_duration_s": 7199}, {"failsafe_duration_s": 86401}, {"failsafe_w": -1}, {}):
        with pytest.raises(ValueError, match="failsafe"):
            site.function.command(bad, 0.0)
    changed = Limitation("eebus_lpc", "LPC", EebusLpc(source="dso", failsafe_w=3000.0))
    assert restarted(site, changed, 60.0).step(60).bounds[0].value_w == 3000.0, "a changed site file is newer"


def test_a_restart_begins_in_init_and_releases_nothing(site: Site) -> None:
    play(site, [Row(0, beat(limit=("l1", 1000.0, 300.0)), "limited", {P: 1000.0}, ("[LPC-904]",))])
    after = restarted(site, lpc(), 100.0)
    play(
        after,
        [
            Row(100, {}, "init", {P: 1000.0}),
            Row(110, beat(), "init", {P: 1000.0}),
            Row(111, {"limit": ("l2", 5000.0)}, "limited", {P: 5000.0}, ("[LPC-904]",)),
        ],
    )
    late = restarted(site, lpc(), 301.0)
    play(late, [Row(301, {}, "init", FAILSAFE)])


def test_failsafe_goes_on_over_a_restart_with_what_is_left_of_it(site: Site) -> None:
    play(
        site,
        [
            Row(0, beat(limit=("l1", OFF)), "unlimited/controlled", NONE, ("[LPC-902]",)),
            Row(121, {}, "failsafe", FAILSAFE, ("[LPC-911]",)),
        ],
    )
    after = restarted(site, lpc(), 3600.0)
    play(
        after,
        [
            Row(3721, {}, "failsafe", FAILSAFE),
            Row(7320, {}, "failsafe", FAILSAFE),
            Row(7321, {}, "unlimited/autonomous", NONE, ("[LPC-922]",)),
        ],
    )


def test_production_has_the_same_states_under_its_own_rules() -> None:
    function = Limitation("eebus_lpp", "LPP", EebusLpp(source="dso", failsafe_w=0.0))
    site = Site(function, quantity=Quantity.NET_EXPORT_W)
    export = Quantity.NET_EXPORT_W
    play(
        site,
        [
            Row(0, {}, "init", {export: 0.0}),
            Row(10, beat(limit=("l1", 5000.0)), "limited", {export: 5000.0}, ("[LPP-904]",)),
            Row(131, {}, "failsafe", {export: 0.0}, ("[LPP-912]",)),
        ],
    )
    site.give("l2", 5000.0, quantity=Quantity.NET_IMPORT_W)
    assert not function.governs("dso", Quantity.NET_IMPORT_W)


def test_what_is_no_limit_is_refused(site: Site) -> None:
    site.heard_s["dso"] = 0.0
    site.give("l1", Absent.UNKNOWN)
    site.give("l2", float("nan"))
    site.give("l3", -1.0)
    assert len(site.refused) == 3

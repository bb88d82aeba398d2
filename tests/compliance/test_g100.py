"""EREC G100 issue 2: excursions of 15 s and 60 s, the counts that lock out, resets, and power loss."""

from __future__ import annotations

import pytest

from config.compliance import ErecG100
from config.vocabulary import Quantity
from gateway.compliance.g100 import LimitationScheme
from tests.compliance.cycle_table import Row, Site, play, restarted

EXPORT, IMPORT, LOAD = Quantity.NET_EXPORT_W, Quantity.NET_IMPORT_W, Quantity.CONTROLLABLE_LOAD_W
KEPT = {EXPORT: 3680.0}
STOPPED = {EXPORT: 0.0}
OVER, INSIDE = {"net_w": -4000.0}, {"net_w": -3000.0}


def scheme(**more: object) -> LimitationScheme:
    return LimitationScheme(ErecG100.model_validate({"max_export_w": 3680.0, **more}))


@pytest.fixture
def site() -> Site:
    return Site(scheme())


def excursion(site: Site, at_s: float, lasts_s: float) -> None:
    """Beyond the limit from `at_s` on for so long, seen each second, and back inside."""
    site.net_w = -4000.0
    for second in range(int(lasts_s) + 1):
        site.step(at_s + second)
    site.net_w = -3000.0
    site.step(at_s + lasts_s + 0.5)


def test_a_short_excursion_is_state_2_and_counts_nothing(site: Site) -> None:
    play(
        site,
        [
            Row(0, INSIDE, "state 1", KEPT),
            Row(1, OVER, "state 2", KEPT, ("states 1 to 3",)),
            Row(15.9, {}, "state 2", KEPT),
            Row(15.95, INSIDE, "state 1", KEPT, ("states 1 to 3",)),
        ],
    )
    assert site.function.rule(site.moment()).facts["excursions_24_h"] == 0


def test_after_15_s_it_counts_and_after_60_s_it_locks_out(site: Site) -> None:
    play(
        site,
        [
            Row(0, OVER, "state 2", KEPT, ("states",)),
            Row(15, {}, "state 2, counted", KEPT, ("4.5.1.3",)),
            Row(59.9, {}, "state 2, counted", KEPT),
            Row(60, {}, "state 3", STOPPED, ("4.5.1.3",)),
            Row(99_999, INSIDE, "state 3", STOPPED),
        ],
    )


def test_the_second_count_within_10_min_locks_out(site: Site) -> None:
    excursion(site, 0, 20)
    excursion(site, 700, 10)
    assert site.function.state == "state 1"
    excursion(site, 615.0 + 200, 20)
    assert site.function.state == "state 1", "the first count, at 15 s, is more than 10 min ago"
    excursion(site, 1300, 20)
    assert site.function.state == "state 3"


@pytest.mark.parametrize(("trigger", "locked_at"), [("third", 3), ("more_than_three", 4)])
def test_both_readings_of_the_count_in_24_h(trigger: str, locked_at: int) -> None:
    site = Site(scheme(count_trigger=trigger))
    states = []
    for number in range(4):
        excursion(site, 3600.0 * number, 20)
        states.append(site.function.state)
    assert states.index("state 3") == locked_at - 1


def test_counts_are_forgotten_after_24_h(site: Site) -> None:
    for number in range(10):
        excursion(site, 50_000.0 * number, 20)
    assert site.function.state == "state 1"


def test_import_locks_what_can_be_controlled() -> None:
    site = Site(scheme(max_import_w=10e3, max_export_w=None))
    play(
        site,
        [
            Row(0, {"net_w": 12e3}, "state 2", {IMPORT: 10e3}, ("states",)),
            Row(60, {}, "state 3", {IMPORT: 10e3, LOAD: 0.0}, ("4.5.1.3", "4.5.1.3")),
        ],
    )


def test_without_measurement_the_scheme_stops_and_an_excursion_goes_on(site: Site) -> None:
    play(
        site,
        [
            Row(0, OVER, "state 2", KEPT, ("states",)),
            Row(1, {"net_w": None}, "state 2", KEPT),
            Row(6, {}, "fail-safe", STOPPED, ("fail-safe",)),
            Row(15, {}, "fail-safe", STOPPED, ("4.5.1.3",)),
            Row(60, {}, "state 3", STOPPED, ("4.5.1.3",)),
        ],
    )


def test_the_fail_safe_ends_after_15_s_of_measurements(site: Site) -> None:
    play(
        site,
        [
            Row(0, {"net_w": float("nan")}, "state 1", KEPT),
            Row(5, {}, "fail-safe", STOPPED, ("fail-safe",)),
            Row(10, INSIDE, "fail-safe", STOPPED),
            Row(24.9, {}, "fail-safe", STOPPED),
            Row(25, {}, "state 1", KEPT, ("fail-safe",)),
        ],
    )


def lock(site: Site, at_s: float) -> None:
    excursion(site, at_s, 60)
    assert site.function.state == "state 3"


def test_the_user_resets_twice_in_30_days_and_the_installer_always(site: Site) -> None:
    for number in range(2):
        lock(site, 1000.0 * number)
        assert "user" in site.function.command({"reset": "user"}, site.now_s)
    lock(site, 5000.0)
    with pytest.raises(ValueError, match="only the installer"):
        site.function.command({"reset": "user"}, site.now_s)
    site.function.command({"reset": "installer"}, site.now_s)
    assert site.step(6000).transitions[0].clause.startswith("EREC G100 issue 2, resets")
    lock(site, 7000.0)
    site.function.command({"reset": "user"}, site.now_s)
    with pytest.raises(ValueError, match="nothing is locked"):
        site.function.command({"reset": "user"}, site.now_s)
    with pytest.raises(ValueError, match="user or installer"):
        site.function.command({}, site.now_s)


def test_commercial_premises_are_reset_after_4_h_and_by_no_user() -> None:
    site = Site(scheme(premises="commercial"))
    lock(site, 0)
    with pytest.raises(ValueError, match="4 h or the installer"):
        site.function.command({"reset": "user"}, site.now_s)
    play(
        site,
        [
            Row(60 + 4 * 3600 - 1, {}, "state 3", STOPPED),
            Row(60 + 4 * 3600, {}, "state 1", KEPT, ("resets",)),
        ],
    )


def test_counts_and_the_lock_out_survive_power_loss(site: Site) -> None:
    excursion(site, 0, 20)
    excursion(site, 7200, 20)
    after = restarted(site, scheme(), 3600.0)
    excursion(after, 12_000, 20)
    assert after.function.state == "state 3", "the third within 24 h, two of them before the power loss"
    again = restarted(after, scheme(), 90 * 86_400.0)
    assert again.step(again.now_s).state == "state 3"


def test_a_clock_that_went_back_ends_no_lock_out_early() -> None:
    site = Site(scheme(premises="commercial"))
    lock(site, 0)
    function = scheme(premises="commercial")
    function.restore(site.function.dump(60.0, 1e9), 0.0, 0.0)
    after = Site(function)
    assert after.step(4 * 3600 - 1).state == "state 3"
    assert after.step(4 * 3600).state == "state 1"


def test_power_loss_during_an_excursion_is_no_part_of_it(site: Site) -> None:
    site.net_w = -4000.0
    for second in range(50):
        site.step(second)
    after = restarted(site, scheme(), 1000.0)
    after.net_w = -4000.0
    assert after.step(1100).state == "state 2"
    assert after.step(1114).state == "state 2"

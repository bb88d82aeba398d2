"""AS/NZS 4777: soft limits contained within 15 s, hard limits that trip, and the loss of the measurement."""

from __future__ import annotations

from config.compliance import As4777
from config.vocabulary import Quantity
from gateway.compliance.as4777 import SoftAndHardLimits
from tests.compliance.cycle_table import Row, Site, play, restarted

EXPORT, GENERATION = Quantity.NET_EXPORT_W, Quantity.GENERATION_W
SOFT = {EXPORT: 5000.0}
ALONE = {EXPORT: 5000.0, GENERATION: 5000.0}
TRIPPED = {EXPORT: 5000.0, GENERATION: 0.0}


def limits(**more: float) -> SoftAndHardLimits:
    return SoftAndHardLimits(As4777.model_validate({"soft_export_w": 5000.0, "hard_export_w": 6000.0, **more}))


def test_a_soft_limit_is_contained_within_15_s_or_generation_is_held() -> None:
    play(
        Site(limits(), net_w=None),
        [
            Row(0, {}, "fail-safe", ALONE),
            Row(1, {"net_w": 0.0}, "within", SOFT, ("soft limit",)),
            Row(2, {"net_w": -5500.0}, "beyond the soft limit", SOFT, ("soft limit",)),
            Row(16.9, {}, "beyond the soft limit", SOFT),
            Row(17, {}, "beyond the soft limit for 15 s", ALONE, ("soft limit",)),
            Row(18, {"net_w": -4900.0}, "within", SOFT, ("soft limit",)),
        ],
    )


def test_beyond_the_hard_limit_generation_trips_and_reconnects() -> None:
    play(
        Site(limits(), net_w=0.0),
        [
            Row(0, {}, "within", SOFT, ("soft limit",)),
            Row(1, {"net_w": -6500.0}, "beyond the soft limit", SOFT, ("soft limit",)),
            Row(6, {}, "tripped", TRIPPED, ("hard limit",)),
            Row(7, {"net_w": 100.0}, "tripped", TRIPPED),
            Row(65.9, {}, "tripped", TRIPPED),
            Row(66, {}, "within", SOFT, ("hard limit",)),
        ],
    )


def test_unmeasured_generation_alone_stays_within_the_limits() -> None:
    play(
        Site(limits(soft_generation_w=4000.0), net_w=0.0),
        [
            Row(0, {}, "within", {EXPORT: 5000.0, GENERATION: 4000.0}, ("soft limit",)),
            Row(1, {"generation_w": None}, "within", {EXPORT: 5000.0, GENERATION: 4000.0}),
            Row(6, {}, "fail-safe", {EXPORT: 5000.0, GENERATION: 4000.0}, ("loss",)),
            Row(7, {"generation_w": 1000.0}, "within", {EXPORT: 5000.0, GENERATION: 4000.0}, ("soft limit",)),
            Row(8, {"generation_w": 4500.0}, "beyond the soft limit", {EXPORT: 5000.0, GENERATION: 4000.0}, ("soft",)),
        ],
    )


def test_a_trip_goes_on_over_a_restart() -> None:
    site = Site(limits(), net_w=-6500.0)
    site.step(0)
    assert site.step(5).state == "tripped"
    after = restarted(site, limits(), 30.0)
    assert after.step(64).state == "tripped"
    assert after.step(65).state == "within"

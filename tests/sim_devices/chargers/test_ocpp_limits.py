"""What comes of charging profiles: purposes, levels, times and units, as tables of profiles and instants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.ocpp_limits import HIGHEST_LEVEL, MOST_PROFILES, ChargingProfiles, Transaction

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC).timestamp()
RUNNING = Transaction(7, NOON)


def at(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def profile(
    number: int, limit: float, *, purpose: str = "TxDefaultProfile", level: int = 0, kind: str = "Relative", **more: Any
) -> dict[str, Any]:
    schedule = {
        "charging_rate_unit": more.pop("unit", "A"),
        "charging_schedule_period": more.pop("periods", [{"start_period": 0, "limit": limit}]),
        **{key: more.pop(key) for key in ("duration", "start_schedule") if key in more},
    }
    return {
        "charging_profile_id": number,
        "stack_level": level,
        "charging_profile_purpose": purpose,
        "charging_profile_kind": kind,
        "charging_schedule": schedule,
        **more,
    }


def holding(*profiles: dict[str, Any], connector: int = 1) -> ChargingProfiles:
    held = ChargingProfiles(3, 230.0)
    for each in profiles:
        own = 0 if each["charging_profile_purpose"] == "ChargePointMaxProfile" else connector
        assert held.install(own, each, RUNNING) == "Accepted"
    return held


def test_without_profiles_there_is_no_limit() -> None:
    assert holding().limit_a(NOON, RUNNING) is None


def test_the_highest_level_that_is_valid_rules() -> None:
    held = holding(profile(1, 6, level=0), profile(2, 16, level=3, valid_to=at(NOON + 60)), profile(3, 10, level=2))
    assert held.limit_a(NOON, None) == 16
    assert held.limit_a(NOON + 59, None) == 16
    assert held.limit_a(NOON + 60, None) == 10


def test_a_transaction_goes_by_its_own_profile_and_by_the_default_when_that_has_ended() -> None:
    own = profile(2, 20, purpose="TxProfile", kind="Absolute", start_schedule=at(NOON - 300), duration=360)
    held = holding(profile(1, 6, level=5), own)
    assert held.limit_a(NOON, RUNNING) == 20
    assert held.limit_a(NOON, None) == 6
    assert held.limit_a(NOON + 60, RUNNING) == 6
    held.end_transaction()
    assert held.limit_a(NOON, RUNNING) == 6


def test_the_charge_points_maximum_caps_everything() -> None:
    cap = profile(9, 8, purpose="ChargePointMaxProfile")
    assert holding(cap).limit_a(NOON, RUNNING) == 8
    assert holding(cap, profile(1, 16)).limit_a(NOON, RUNNING) == 8
    assert holding(cap, profile(1, 7)).limit_a(NOON, RUNNING) == 7


def test_periods_of_a_relative_profile_count_from_the_begin_of_the_transaction() -> None:
    periods = [{"start_period": 0, "limit": 6}, {"start_period": 600, "limit": 12}]
    held = holding(profile(1, 0, periods=periods))
    assert [held.limit_a(NOON + later_s, RUNNING) for later_s in (0, 599, 600, 10_000)] == [6, 6, 12, 12]
    assert held.limit_a(NOON + 10_000, None) == 6, "a transaction that begins now"


def test_a_recurring_profile_begins_each_day_anew() -> None:
    periods = [{"start_period": 0, "limit": 32}, {"start_period": 3600, "limit": 10}]
    daily = profile(
        1, 0, periods=periods, kind="Recurring", recurrency_kind="Daily", start_schedule=at(NOON - 5 * 86_400)
    )
    held = holding(daily)
    assert [held.limit_a(NOON + later_s, None) for later_s in (0, 3600, 86_399, 86_400)] == [32, 10, 10, 32]


@pytest.mark.parametrize(("phases", "expected_a"), [(None, 16.0), (3, 16.0), (1, 48.0)])
def test_watts_are_shared_by_the_phases_that_are_named(phases: int | None, expected_a: float) -> None:
    period: dict[str, Any] = {"start_period": 0, "limit": 11_040.0}
    if phases is not None:
        period["number_phases"] = phases
    assert holding(profile(1, 0, unit="W", periods=[period])).limit_a(NOON, None) == pytest.approx(expected_a)


def test_a_new_profile_takes_the_place_of_its_number_or_of_its_purpose_and_level() -> None:
    held = holding(profile(1, 6, level=1), profile(2, 7, level=2))
    assert held.install(1, profile(3, 10, level=2), None) == "Accepted"
    assert (len(held), held.limit_a(NOON, None)) == (2, 10)
    assert held.install(1, profile(1, 12, level=4), None) == "Accepted"
    assert (len(held), held.limit_a(NOON, None)) == (2, 12)


def test_profiles_are_cleared_by_number_purpose_and_level() -> None:
    held = holding(profile(1, 6, level=1), profile(2, 7, level=2), profile(3, 8, purpose="TxProfile"))
    assert not held.clear(9, None, None)
    assert not held.clear(1, "TxProfile", None)
    assert held.clear(None, "TxDefaultProfile", 2)
    assert held.limit_a(NOON, None) == 6
    assert held.clear(None, None, None)
    assert len(held) == 0


@pytest.mark.parametrize(
    ("connector", "what", "running"),
    [
        (1, profile(1, 6, level=HIGHEST_LEVEL + 1), RUNNING),
        (1, profile(1, 6, purpose="ChargePointMaxProfile"), RUNNING),
        (1, profile(1, 6, purpose="TxProfile"), None),
        (0, profile(1, 6, purpose="TxProfile"), RUNNING),
        (1, profile(1, 6, purpose="TxProfile", transaction_id=8), RUNNING),
        (2, profile(1, 6), RUNNING),
        (1, profile(1, 6, periods=[]), RUNNING),
    ],
)
def test_a_profile_that_fits_nothing_is_rejected(
    connector: int, what: dict[str, Any], running: Transaction | None
) -> None:
    held = ChargingProfiles(3, 230.0)
    assert held.install(connector, what, running) == "Rejected"
    assert len(held) == 0


def test_there_is_an_end_to_how_many_are_held() -> None:
    held = ChargingProfiles(3, 230.0)
    purposes = ("TxDefaultProfile", "TxProfile", "ChargePointMaxProfile")
    said = [
        held.install(
            0 if purpose == "ChargePointMaxProfile" else 1,
            profile(10 * at_ + level, 6, purpose=purpose, level=level),
            RUNNING,
        )
        for at_, purpose in enumerate(purposes)
        for level in range(HIGHEST_LEVEL + 1)
    ]
    assert said.count("Accepted") == MOST_PROFILES == len(held)


@given(
    limits=st.lists(st.floats(0, 80), min_size=1, max_size=5),
    cap_a=st.floats(0, 80),
    later_s=st.floats(-1e6, 1e6),
    text=st.text(max_size=20),
)
def test_no_limit_is_above_the_cap_whatever_the_times_say(
    limits: list[float], cap_a: float, later_s: float, text: str
) -> None:
    each = [profile(n, limit, level=n, valid_from=text) for n, limit in enumerate(limits)]
    held = holding(*each, profile(99, cap_a, purpose="ChargePointMaxProfile"))
    limit_a = held.limit_a(NOON + later_s, None)
    assert limit_a is not None
    assert limit_a <= cap_a

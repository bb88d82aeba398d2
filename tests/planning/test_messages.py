"""What crosses between planner and control: anything else than a plan that was asked for is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.planning.messages import (
    LONGEST_LINE,
    PlanMessage,
    RefusedMessageError,
    StateMessage,
    checked_curves,
    decode,
    encode,
)
from tests.planning.states import battery, car, plan, state

BOUNDS_W = {"battery_a": (-10e3, 10e3)}


def test_messages_come_back_as_they_were_sent() -> None:
    sent = state(batteries=(battery(),), cars=(car(),))
    assert decode(encode(sent), StateMessage) == sent
    assert decode(encode(plan()), PlanMessage) == plan()
    assert encode(sent).count(b"\n") == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_a_plan_or_refused(line: bytes) -> None:
    try:
        assert isinstance(decode(line, PlanMessage), PlanMessage)
    except RefusedMessageError as error:
        assert str(error)


@given(st.integers(0, 2**12), st.binary(min_size=1, max_size=3))
def test_a_plan_with_a_few_wrong_bytes_is_a_plan_or_refused(at: int, wrong: bytes) -> None:
    line = encode(plan())
    torn = line[: at % len(line)] + wrong + line[at % len(line) + len(wrong) :]
    try:
        made = decode(torn, PlanMessage)
        curves = checked_curves(made, BOUNDS_W)
        assert all(-10_001.0 <= power <= 10_001.0 for _, curve in curves for power in curve.powers_w)
    except RefusedMessageError as error:
        assert str(error)


@pytest.mark.parametrize("cut", [0, 1, 40, -2])
def test_half_a_message_is_none(cut: int) -> None:
    with pytest.raises(RefusedMessageError, match="malformed"):
        decode(encode(plan())[:cut], PlanMessage)


def test_a_line_has_a_longest_length_and_a_deepest_nesting() -> None:
    with pytest.raises(RefusedMessageError, match="bytes in a line"):
        decode(b" " * (LONGEST_LINE + 1), PlanMessage)
    with pytest.raises(RefusedMessageError, match="malformed"):
        decode(b"[" * 100_000, PlanMessage)


CURVES: dict[str, tuple[dict[str, Any], str]] = {
    "a device that was not asked for": ({"device": "pv"}, "nobody has asked for"),
    "power that rises with price": ({"powers_w": [0.0, 1.0]}, "must not rise"),
    "prices that fall": ({"prices_per_kwh": [0.3, 0.1]}, "ascending order"),
    "one power too many": ({"powers_w": [3.0, 2.0, 1.0]}, "2 prices, 3 powers"),
    "more than the device can": ({"powers_w": [10_500.0, 0.0]}, "beyond -10000 to 10000 W"),
}


@pytest.mark.parametrize(("change", "words"), CURVES.values(), ids=CURVES)
def test_a_curve_that_is_none_is_refused(change: dict[str, Any], words: str) -> None:
    curve = {"device": "battery_a", "prices_per_kwh": [0.1, 0.3], "powers_w": [10e3, -10e3]} | change
    with pytest.raises(RefusedMessageError, match=words):
        checked_curves(plan(curves=[curve]), BOUNDS_W)


def test_no_curve_comes_twice() -> None:
    curve = {"device": "battery_a", "prices_per_kwh": [0.1], "powers_w": [0.0]}
    with pytest.raises(RefusedMessageError, match="nobody has asked for"):
        checked_curves(plan(curves=[curve, curve]), BOUNDS_W)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "-1e9999"])
def test_numbers_are_finite(number: str) -> None:
    line = encode(plan()).replace(b"10000.0", number.encode(), 1)
    with pytest.raises(RefusedMessageError):
        checked_curves(decode(line, PlanMessage), BOUNDS_W)

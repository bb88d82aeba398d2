"""Whatever happens, in whatever order: no exception, no bound above the installer's, no fail-safe without a bound."""

from __future__ import annotations

import json
from math import inf, isfinite
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from config.compliance import Compliance
from config.vocabulary import Absent, LimitValue, Quantity
from gateway.compliance.as4777 import SoftAndHardLimits
from gateway.compliance.board import ComplianceBoard
from gateway.compliance.csip_aus import DerPrograms
from gateway.compliance.eebus import Limitation
from gateway.compliance.frame import ComplianceFunction, GivenLimit, Moment, Ruling
from gateway.compliance.g100 import LimitationScheme
from gateway.compliance.margin import DisturbanceMargin
from gateway.compliance.section_14a import Controllable, Reduction

STATIC_W = {Quantity.NET_IMPORT_W: 50e3, Quantity.NET_EXPORT_W: 20e3}
SETTINGS = Compliance.model_validate(
    {
        "eebus_lpc": {"source": "dso", "failsafe_w": 4200.0},
        "eebus_lpp": {"source": "dso", "failsafe_w": 60e3, "autonomous": "failsafe"},
        "g100": {"max_export_w": 30e3, "max_import_w": 40e3, "premises": "commercial"},
        "section_14a": {"source": "dso", "devices": {"ev": "charge_point"}},
        "csip_aus": {
            "programs": [{"source": "market", "primacy": 1}, {"source": "dso", "primacy": 2}],
            "default_export_w": 1500.0,
            "default_load_w": 5e3,
            "set_max_w": 10e3,
            "randomise_start_s": 60.0,
        },
        "as4777": {"soft_export_w": 5e3, "hard_export_w": 6e3, "hard_generation_w": 9e3},
        "disturbance_margin": {},
    }
)


def functions() -> list[ComplianceFunction]:
    """One of each, anew."""
    one = SETTINGS
    assert one.eebus_lpc and one.eebus_lpp and one.g100 and one.section_14a
    assert one.csip_aus and one.as4777 and one.disturbance_margin
    return [
        Limitation("eebus_lpc", "LPC", one.eebus_lpc),
        Limitation("eebus_lpp", "LPP", one.eebus_lpp),
        LimitationScheme(one.g100),
        Reduction(one.section_14a, [Controllable(("ev",), "charge_point", 11e3)]),
        DerPrograms(one.csip_aus, "site"),
        SoftAndHardLimits(one.as4777),
        DisturbanceMargin(one.disturbance_margin, 100e3, 200.0),
    ]


RULED = {
    "eebus_lpc": {Quantity.NET_IMPORT_W},
    "eebus_lpp": {Quantity.NET_EXPORT_W},
    "g100": {Quantity.NET_EXPORT_W, Quantity.NET_IMPORT_W, Quantity.CONTROLLABLE_LOAD_W},
    "section_14a": {Quantity.CONTROLLABLE_LOAD_W},
    "csip_aus": {Quantity.NET_EXPORT_W, Quantity.LOAD_W},
    "as4777": {Quantity.NET_EXPORT_W, Quantity.GENERATION_W},
}
"""What must be bounded while a function's state is a fail-safe one."""

any_number = st.one_of(st.floats(), st.floats(-1e5, 1e5), st.sampled_from([0.0, -0.0, 4200.0, -6500.0, 45e3]))
steps_s = st.one_of(st.sampled_from([0.0, 0.1, 15.0, 60.0, 120.1, 7200.0, 86_400.0]), st.floats(0.0, 1e5))
values: st.SearchStrategy[LimitValue] = st.one_of(any_number, st.sampled_from(Absent))
events = st.fixed_dictionaries(
    {
        "dt_s": steps_s,
        "net_w": st.one_of(st.none(), any_number),
        "generation_w": st.one_of(st.none(), any_number),
        "bounds": st.tuples(any_number, any_number),
        "heard": st.lists(st.sampled_from(["dso", "market"]), max_size=2),
        "limit": st.none()
        | st.tuples(
            st.sampled_from(["dso", "market", "stranger"]),
            st.sampled_from(Quantity),
            values,
            st.one_of(st.none(), st.floats(-100.0, 1e5)),
            st.one_of(st.just(0.0), st.floats(-100.0, 1e4)),
            st.one_of(st.none(), st.floats(0.0, 200.0)),
        ),
        "drop": st.booleans(),
        "restart": st.booleans(),
        "command": st.none() | st.sampled_from([{"reset": "user"}, {"reset": "installer"}, {"failsafe_w": 1.0}, {}]),
    }
)


def assert_safe(ruling: Ruling) -> None:
    """What holds of any ruling."""
    bounds = {bound.quantity: bound for bound in ruling.bounds}
    for quantity, bound in bounds.items():
        assert isfinite(bound.value_w)
        assert 0.0 <= bound.value_w <= STATIC_W.get(quantity, inf)
        assert bound.why
    if ruling.failsafe:
        assert RULED[ruling.function] & bounds.keys(), f"{ruling.function} in {ruling.state} without a bound"
    if ruling.function == "csip_aus":
        assert bounds.keys() == RULED["csip_aus"], "never without its default control"
    if ruling.margins is not None:
        assert min(ruling.margins.lower_w, ruling.margins.upper_w) >= 200.0
        assert max(ruling.margins.lower_w, ruling.margins.upper_w) <= 3000.0
    for transition in ruling.transitions:
        assert transition.clause
        assert transition.reason


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=25))
def test_any_story_is_survived_and_safe(story: list[dict[str, Any]]) -> None:
    board, now_s, limits = ComplianceBoard(functions(), STATIC_W), 1000.0, list[GivenLimit]()
    heard_s: dict[str, float] = {}
    for number, event in enumerate(story):
        now_s += event["dt_s"]
        heard_s |= dict.fromkeys(event["heard"], now_s)
        if event["drop"]:
            limits = limits[1:]
        if event["limit"] is not None:
            source, quantity, value, duration_s, later_s, age_s = event["limit"]
            end_s = None if duration_s is None else now_s + duration_s
            limits.append(GivenLimit(source, f"l{number}", quantity, value, now_s, now_s + later_s, end_s, age_s))
        if event["command"] is not None:
            for one in board.functions:
                command_of(one, event["command"], now_s)
        if event["restart"]:
            dumped = json.loads(json.dumps(board.dump(now_s, 1e9 + now_s)))
            board = ComplianceBoard(functions(), STATIC_W)
            assert board.restore(dumped, now_s, 1e9 + now_s) == []
        ages_s: dict[str, float | None] = {name: now_s - at_s for name, at_s in heard_s.items()}
        lower_w, upper_w = event["bounds"]
        board.step(
            Moment(
                now_s,
                1e9 + now_s,
                event["dt_s"],
                event["net_w"],
                event["generation_w"],
                lower_w,
                upper_w,
                ages_s,
                tuple(limits),
            )
        )
        for ruling in board.rulings:
            assert_safe(ruling)


def command_of(one: ComplianceFunction, request: dict[str, Any], now_s: float) -> None:
    try:
        one.command(request, now_s)
    except ValueError as error:
        assert str(error)


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(["failsafe", "state 3", "tripped"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["state", "entered", "limit_w", "ends", "failsafe_w", "counted", "locked", "configured"]),
            inner,
            max_size=8,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([one.name for one in functions()]), anything) | anything)
def test_any_store_is_taken_up_or_left_behind(dumped: object) -> None:
    board = ComplianceBoard(functions(), STATIC_W)
    for problem in board.restore(dumped, 1000.0, 1e9):
        assert problem.startswith("compliance")
    board.step(Moment(1000.0, 1e9))
    for ruling in board.rulings:
        assert_safe(ruling)

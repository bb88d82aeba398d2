"""The DSO twin's script: what the data may say, and what a duration makes of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sim_devices.dso.payloads import Writer
from sim_devices.dso.script import (
    Beat,
    GiveOrder,
    GiveSignal,
    PhaseBegins,
    Script,
    ScriptError,
    check_timing,
    load_script,
    load_signal,
    timeline,
)

LIMIT = {"quantity": "net_export_w", "value": "unlimited"}
PHASES = [{"name": "a", "start": 0.0}, {"name": "quiet", "start": 0.5, "silence": True}, {"name": "b", "start": 0.8}]


def script(**parts: Any) -> Script:
    return Script.model_validate({"phases": PHASES, **parts})


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"phases": [{"name": "late", "start": 0.1}]}, "phases start at 0 and ascend"),
        ({"phases": [*PHASES[:1], {"name": "a", "start": 0.2}]}, "'a' is there twice"),
        ({"phases": PHASES[:2]}, "the last phase can't be a silence"),
        ({"orders": [{"name": "x", "at": 0.6, "limit": LIMIT}]}, "x: falls into a silence"),
        ({"orders": [{"name": "x", "at": 0.1, "limit": LIMIT, "id_of": "y"}]}, "'y' is no earlier order"),
        ({"orders": [{"name": "x", "at": 0.2, "until": 0.1, "limit": LIMIT}]}, "`until` is not after `at`"),
        ({"orders": [{"name": "x", "at": 0.2}]}, "exactly one of limit"),
        ({"orders": [{"name": "x", "at": 0.2, "limit": {"quantity": "load_w"}}]}, "either `value_pu` or `value`"),
        ({"orders": [{"name": "x", "at": 0.2, "limit": LIMIT, "then": "completed"}]}, "`then` needs `until`"),
        ({"regulation": [{"name": "r", "at": 0.4, "until": 0.6}]}, "r: reaches into a silence"),
        ({"surprise": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("`", ".")):
        script(**parts)


def test_a_broken_file_is_named_with_every_finding(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("phases: [{name: A, start: 2}]\norders: [{name: x}]\n")
    with pytest.raises(ScriptError) as caught:
        load_script(path)
    places = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert set(places) >= {"phases.0.name", "phases.0.start", "orders.0.at"}


def test_a_silence_must_outlast_the_heartbeat_time_out() -> None:
    check_timing(script(), 30.0, 3.0)
    with pytest.raises(ScriptError, match="at least 37 s"):
        check_timing(script(), 30.0, 10.0)
    with pytest.raises(ScriptError, match="at least 30 s"):
        check_timing(script(), 29.0, 3.0)


@pytest.mark.parametrize("duration_s", [30.0, 60.0, 86_400.0])
def test_the_shipped_script_scales_to_any_duration(duration_s: float) -> None:
    shipped = load_script()
    check_timing(shipped, duration_s, 3.0)
    actions = timeline(shipped, duration_s, 1.0)
    assert [action.at_s for action in actions] == sorted(action.at_s for action in actions)
    assert 0 <= actions[0].at_s <= actions[-1].at_s < duration_s
    begins = {action.phase.name: action.at_s for action in actions if isinstance(action, PhaseBegins)}
    for action in actions:
        if isinstance(action, Beat | GiveOrder | GiveSignal):
            assert not begins["silence"] <= action.at_s < begins["recovery"]
    signals = [action for action in actions if isinstance(action, GiveSignal)]
    assert len(signals) >= 3
    assert [action.last for action in signals] == [False] * (len(signals) - 1) + [True]
    assert all(later.at_s - earlier.at_s == pytest.approx(2.0) for earlier, later in pairwise(signals))


def test_limits_of_the_shipped_script_meet_a_dispatch_that_would_break_them() -> None:
    orders = {order.name: order for order in load_script().orders}
    for limit, dispatch, sign in (("export_limit", "sell", -1), ("import_limit", "buy", 1)):
        bound, asked = orders[limit], orders[dispatch]
        assert bound.limit is not None and asked.dispatch is not None
        assert bound.limit.value_pu is not None
        assert asked.dispatch.net_power_pu * sign > bound.limit.value_pu
        assert asked.at < bound.at and bound.until == asked.until


def test_a_series_is_found_beside_the_script_and_checked(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("time_s,signal_pu\n0,0.5\n2,-1\n")
    assert load_signal("own.csv", tmp_path) == (0.5, -1.0)
    (tmp_path / "wrong.csv").write_text("time_s,signal_pu\n0,1.5\n")
    with pytest.raises(ScriptError, match="within -1 to 1"):
        load_signal("wrong.csv", tmp_path)
    with pytest.raises(ScriptError, match="not a series"):
        load_signal("missing.csv", tmp_path)


def test_a_backdated_order_has_ended_and_sequences_rise_across_runs() -> None:
    now = [1_780_912_800.0]
    writer = Writer("dso", 100_000.0, "run", utc_clock=lambda: now[0])
    expired = next(order for order in load_script().orders if order.name == "expired")
    message = json.loads(writer.order(GiveOrder(0.0, expired, None)).payload)
    assert message["start"] == message["issued_at"] == "2026-06-08T09:58:00.000Z"
    assert message["duration_s"] < expired.age_s
    first = writer.heartbeat().message
    now[0] += 60
    later = Writer("dso", 100_000.0, "next", utc_clock=lambda: now[0]).heartbeat().message
    assert isinstance(first, dict) and isinstance(later, dict)
    assert later["sequence"] > first["sequence"]

"""A planner that is taken away while limits bind: nothing is missed, the default curves hold, and it comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("cvxpy")

from gateway.bench.planner_outage import OutageRequest, _missed, _planners, outage_in_lockstep, outage_script
from gateway.bench.run_files import Event
from sim_devices.dso.script import timeline


def test_without_a_plan_limits_are_kept_and_no_cycle_is_missed(tmp_path: Path) -> None:
    request = OutageRequest("stalled", outage_s=45.0, before_s=12.0, after_s=14.0)
    told = outage_in_lockstep(request, tmp_path / "run")
    assert told["problems"] == []
    assert told["limits"] == 1
    assert told["kept"]
    assert told["missed_cycles"] == 0
    assert told["cycles"] >= 10 * request.duration_s
    assert told["longest_without_plan_s"] >= request.outage_s
    assert told["expired"] == 1
    assert told["refused"] > 0


def test_every_order_asks_for_more_than_its_limit_allows() -> None:
    script = outage_script(3780.0)
    assert len(script.orders) == 1 + 2 * 63
    assert timeline(script, 3780.0, 1.0)
    for order, limit in zip(script.orders[1::2], script.orders[2::2], strict=True):
        assert order.dispatch is not None
        assert limit.limit is not None
        assert limit.limit.value_pu is not None
        assert abs(order.dispatch.net_power_pu) > limit.limit.value_pu
        assert order.at < limit.at < (limit.until or 0.0) == order.until


def test_whom_the_gateway_has_started_is_read_from_its_journal_line_by_line(tmp_path: Path) -> None:
    journal = tmp_path / "gateway.jsonl"
    assert _planners(journal, 0) == ([], 0)
    line = json.dumps({"event": "plan", "state": "planner started", "pid": 7}) + "\n"
    journal.write_text(line + line[:20])
    assert _planners(journal, 0) == ([7], len(line))
    journal.write_text(line + line.replace("7", "8"))
    assert _planners(journal, len(line)) == ([8], 2 * len(line))


def test_a_tick_that_is_left_out_while_the_planner_is_away_is_counted() -> None:
    ticks = [0.1 * at for at in range(100) if at not in (20, 50, 51, 90)]
    told = [Event("cycle", at_s, {"start_jitter_ms": 0.2}) for at_s in ticks]
    told.append(Event("cycle", 5.04, {"start_jitter_ms": None}))
    assert _missed(told, 0.1, [3.0, 4.0, 8.0]) == 2
    assert _missed(told, 0.1, []) is None

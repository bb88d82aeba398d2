"""The benches of the cycle, the dispatch and the decision: what they print, and that they measure what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

THREE = {"p50", "p99", "max"}


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def figures(*arguments: str) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return printed


def test_every_cycle_writes_a_changed_setpoint_to_every_device() -> None:
    told = figures("cycle", "--devices", "4", "--duration", "1")
    assert set(told["cycle_ms"]) == THREE
    assert set(told["floor_ms"]) == {"p50", "p99"}
    assert told["ratio_p50"] > 0.0
    assert told["missed_cycles"] >= 0
    assert told["cpu_pct"] > 0.0
    assert told["cycles"] > 5
    assert told["acknowledged_writes"] == 4 * told["cycles"]
    assert told["failed_writes"] == 0


def test_the_table_names_the_same_figures() -> None:
    printed = run("cycle", "--devices", "2", "--duration", "1").stdout
    assert "cycle_ms.p50" in printed
    assert "ratio_p50" in printed


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ("nonsense", "nonsense: HOST:PORT is asked for"),
        ("127.0.0.1:65535", "127.0.0.1:65535: 2 ports from 65535 on go beyond 65535"),
        ("127.0.0.1:1", "127.0.0.1:1: Connection refused"),
    ],
)
def test_servers_that_cannot_be_used_are_bad_input(servers: str, why: str) -> None:
    assert run("cycle", "--devices", "2", "--servers", servers, code=2).stderr.strip() == why


def test_a_dispatch_reaches_every_register() -> None:
    told = figures("dispatch", "--devices", "3", "--dispatches", "10", "--embedded")
    assert told["broker"] == "amqtt"
    assert told["written"] == told["dispatches"] == 10
    for name in ("latency_ms", "published_to_received_ms", "received_to_acknowledged_ms"):
        assert set(told[name]) == THREE
    assert told["latency_ms"]["max"] > told["published_to_received_ms"]["p50"] > 0.0


def test_the_decision_alone() -> None:
    told = figures("control", "--devices", "6")
    assert set(told["decision_ms"]) == THREE
    assert set(told["clear_10000_ms"]) == {"p50", "p99"}
    assert [row["resources"] for row in told["growth"]] == [100, 1_000, 10_000]
    assert all(row["clear_ms"] > 0.0 for row in told["growth"])

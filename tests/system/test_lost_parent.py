"""A broker that is away at start, comes, is killed and comes back: the parent's story, and that of what it is told."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

from tests.system.operator_client import operator_at
from tests.system.processes import Started, closed_port, lasting, until
from tests.system.sites import steady_site, written

TOLERANCE_W = 1_000.0
FALLBACK_W = 25_000.0
KEPT = 3
"""Telemetry messages that the site keeps while the broker is away; one is made each second."""


async def test_the_parent_is_lost_with_its_broker_and_comes_back_with_it(started: Started) -> None:
    site = steady_site("battery_a", "charger_2", load_w=30_000.0)
    site["parents"][0] |= {"heartbeat_timeout_s": 1.5, "telemetry_backlog": KEPT}
    path = written(site, started.folder)
    port = closed_port()
    twins = await started.twins(path)
    gateway = started.gateway(path, started.folder / "state", "--twin", "all", broker=f"127.0.0.1:{port}", twins=twins)
    await gateway.ready()
    assert gateway.snapshot()["mode"] == {"state": "fallback", "reason": "dso not heard yet"}
    await lasting(lambda: twins.net_w <= FALLBACK_W + TOLERANCE_W, 0.5, "the fallback limit holds without any broker")
    assert parent(gateway.snapshot())["state"] == "lost"

    broker = await started.broker(port)
    await until(lambda: parent(gateway.snapshot())["state"] == "up", "the link comes up by itself")
    async with operator_at(port) as operator:
        await until(lambda: gateway.mode() == "normal", "the operator is heard")
        await operator.limit("net_import_w", 40_000.0)
        await operator.authority()
        await operator.dispatch(40_000.0)
        await lasting(lambda: abs(twins.net_w - 40_000.0) < 3_000.0, 0.5, "more than the fallback allows is dispatched")
        broker.running.send(signal.SIGKILL)
        await broker.running.ended()
    assert gateway.mode() == "normal", "the loss of a broker is not yet the loss of the parent"
    await until(lambda: gateway.mode() == "fallback", "silence is the loss of the parent")
    assert gateway.snapshot()["mode"]["reason"] == "dso silent"
    await lasting(lambda: twins.net_w <= FALLBACK_W + TOLERANCE_W, 0.5, "the fallback limit holds")
    lost_s = gateway.journal("mode", state="fallback")[-1]["monotonic_s"]
    await until(lambda: gateway.snapshot()["monotonic_s"] > lost_s + KEPT, "there is more telemetry than is kept")

    # Held still, so that somebody listens before the gateway sends what it kept.
    held = datetime.now(UTC)
    gateway.running.send(signal.SIGSTOP)
    await started.broker(port)
    async with operator_at(port) as operator:
        gateway.running.send(signal.SIGCONT)
        telemetry = operator.heard["telemetry"]
        await until(lambda: len(telemetry) > KEPT, "what was kept, and the first one after it")
        times = [datetime.fromisoformat(message["issued_at"]) for message in telemetry]
        assert times == sorted(times)
        assert 1 <= sum(time <= held for time in times) <= KEPT
        await until(lambda: gateway.mode() == "normal", "the operator is heard again")
        await lasting(lambda: abs(twins.net_w - 40_000.0) < 3_000.0, 0.5, "its orders hold as before")
        assert [message["compliance"]["state"] for message in telemetry[:KEPT]] == ["fallback"] * KEPT
    link = parent(gateway.snapshot())
    assert (link["state"], link["reconnects"]) == ("up", 2)
    assert len(gateway.logged("parent lost")) == 2, "named once for each loss, however often it is tried"
    assert gateway.journal("crash") == []


def parent(snapshot: dict[str, object]) -> dict[str, object]:
    """What a snapshot has of the parent's link."""
    links = snapshot["links"]
    assert isinstance(links, list)
    found: dict[str, object] = next(link for link in links if link["name"] == "parent dso")
    return found

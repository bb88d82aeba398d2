"""The end of a gateway, by order and by kill -9: what it leaves of the site, and how the next one takes over."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.system.operator_client import operator_at
from tests.system.processes import Broker, Gateway, Started, Twins, closed_port, lasting, until
from tests.system.sites import steady_site, written

TOLERANCE_W = 1_000.0
REVERSION_S = 6.0
"""The batteries' and the inverter's device-side timer; the charger's shortest is 10 s."""


class Field(NamedTuple):
    """Twins that live on whatever happens to a gateway."""

    site: Path
    broker: Broker
    twins: Twins


@pytest.fixture(scope="module")
def field(started_for_all: Started) -> Iterator[Field]:
    """`gateway twins` with every protocol, beside a broker of its own."""

    async def start() -> Field:
        site = steady_site("pv", "battery_a", "battery_b", "charger_2", "charger_3")
        for name in ("pv", "battery_a", "battery_b"):
            site["devices"][name]["reversion_s"] = REVERSION_S
        path = written(site, started_for_all.folder)
        broker = await started_for_all.broker()
        running = started_for_all.run(
            "twins", "gateway", "twins", str(path), "--ports", "free", "--broker", broker.address
        )
        said = await until(running.announced, "the twins serve")
        return Field(path, broker, Twins(running, said))

    yield asyncio.run(start())


def gateway_on(field: Field, started: Started) -> Gateway:
    """A gateway with a state directory of this test's."""
    state = started.folder / "state"
    return started.gateway(field.site, state, "--twin", "all", broker=field.broker.address, twins=field.twins)


def devices(field: Field) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = field.twins.state()["devices"]
    return found


def is_at_rest(field: Field) -> bool:
    """Batteries at 0 W by a setpoint, charging disabled, nothing generated."""
    now = devices(field)
    at_0_w = all(abs(now[name]["power_w"]) < 100.0 for name in ("battery_a", "battery_b", "charger_2", "pv"))
    return at_0_w and now["charger_2"]["offered_current_a"] == 0 and now["pv"]["ceiling_pu"] == 0


async def test_sigterm_writes_every_rest_state_and_leaves_nothing_behind(field: Field, started: Started) -> None:
    gateway = gateway_on(field, started)
    await gateway.ready()
    async with operator_at(field.broker.port) as operator:
        await until(lambda: gateway.mode() == "normal", "the gateway hears its operator")
        await operator.limit("generation_w", 20_000.0)
        await operator.authority()
        await operator.dispatch(60_000.0)
        await until(lambda: devices(field)["battery_a"]["power_w"] > 5_000.0, "the batteries work")
        reversions = {name: device["reversions"] for name, device in devices(field).items()}
        gateway.running.send(signal.SIGTERM)
        assert await gateway.running.ended() == 0
        await until(lambda: is_at_rest(field), lambda: f"rest states: {devices(field)}", within_s=REVERSION_S / 2)
        assert {name: device["reversions"] for name, device in devices(field).items()} == reversions
        assert devices(field)["battery_a"]["setpoint_w"] == 0.0
        assert devices(field)["battery_b"]["setpoint_w"] in (None, 0.0)
        assert gateway.running.alive() == {}
        assert not gateway.socket.exists()
        assert [entry["cycles"] > 0 for entry in gateway.journal("summary")] == [True]
        assert "Traceback" not in gateway.running.errors

        stale = await operator.order("limits", quantity="net_import_w", value=0.0, retain=True)
        again = gateway_on(field, started)
        await again.ready()
        refused = await operator.answer(stale)
        assert refused["status"] == "rejected"
        assert "retained" in refused["reason"]
        await operator.say("limits", b"", retain=True)
        await until(lambda: devices(field)["battery_a"]["power_w"] > 5_000.0, "the restored dispatch is followed")


async def test_kill_9_leaves_the_devices_to_their_timers_and_the_next_gateway_takes_over(
    field: Field, started: Started
) -> None:
    gateway = gateway_on(field, started)
    await gateway.ready()
    async with operator_at(field.broker.port) as operator:
        await until(lambda: gateway.mode() == "normal", "the gateway hears its operator")
        limit = await operator.limit("generation_w", 20_000.0)
        await operator.authority()
        dispatch = await operator.dispatch(60_000.0)
        await lasting(lambda: abs(field.twins.net_w - 60_000.0) < 5_000.0, 0.5, "the dispatch is followed")
        before = devices(field)
        assert before["pv"]["ceiling_pu"] < 0.5
        assert before["charger_2"]["offered_current_a"] > 0.0

        gateway.running.send(signal.SIGKILL)
        assert await gateway.running.ended() == -signal.SIGKILL
        assert gateway.socket.exists()
        await until(lambda: has_reverted(field, before), lambda: f"timers act: {devices(field)}", within_s=30.0)
        after = devices(field)
        assert after["pv"]["ceiling_pu"] is None
        assert (after["battery_a"]["setpoint_w"], after["battery_b"]["setpoint_w"]) == (None, None)
        assert after["charger_2"]["offered_current_a"] == 0.0
        assert after["charger_3"]["offered_current_a"] == before["charger_3"]["offered_current_a"], "it has no timer"

        stored = json.loads((gateway.socket.parent / "orders.json").read_text())
        assert {order["message"]["id"] for order in stored["orders"]} == {limit, dispatch}
        again = gateway_on(field, started)
        await again.ready()
        assert again.order_ids() == {limit, dispatch}
        await lasting(lambda: abs(field.twins.net_w - 60_000.0) < 5_000.0, 0.5, "the dispatch is followed again")
        assert devices(field)["pv"]["ceiling_pu"] < 0.5
        assert await operator.dispatch(50_000.0), "the epoch has survived as well"
    await until(lambda: again.mode() == "fallback", "the operator is missed")


def has_reverted(field: Field, before: dict[str, dict[str, Any]]) -> bool:
    now = devices(field)
    names = ("pv", "battery_a", "battery_b", "charger_2")
    acted = all(now[name]["reversions"] > before[name]["reversions"] for name in names)
    return acted and all(abs(now[name]["power_w"]) < 100.0 for name in names[1:])


async def test_what_run_started_ends_with_it_and_a_second_start_works_at_once(tmp_path: Path, started: Started) -> None:
    path, state = written(steady_site("battery_a"), tmp_path), tmp_path / "state"
    broker = f"127.0.0.1:{closed_port()}"
    for _ in range(2):
        gateway = started.gateway(path, state, "--twin", "all", broker=broker)
        await gateway.ready()
        assert any("sim_devices.process" in line for line in gateway.running.alive().values())
        gateway.running.send(signal.SIGINT)
        assert await gateway.running.ended() == 0
        assert gateway.running.alive() == {}
        assert not gateway.socket.exists()


async def test_children_end_by_themselves_when_run_is_killed(tmp_path: Path, started: Started) -> None:
    path, state = written(steady_site("battery_a"), tmp_path), tmp_path / "state"
    gateway = started.gateway(path, state, "--twin", "all", broker=f"127.0.0.1:{closed_port()}")
    await gateway.ready()
    gateway.running.send(signal.SIGKILL)
    await gateway.running.ended()
    await until(lambda: not gateway.running.alive(), "its twins are gone")

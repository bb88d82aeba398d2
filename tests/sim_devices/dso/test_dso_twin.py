"""The DSO twin against a small layer, over the embedded broker; a script of 30 s is played in 2.

Durations on the wire shrink with the script, the bounds on answers don't.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

from config.messages import DOWN_SCHEMAS, Down
from config.site import MqttBroker
from sim_devices.dso.log import JsonLines
from sim_devices.dso.script import Script, load_script
from sim_devices.dso.twin import DsoSettings, DsoTwin

SPEED = 15.0
QUICK = 60.0
"""For scripts in which little happens."""

TIMEOUT_S = 3.0


class Played:
    """What a run of the twin left behind."""

    def __init__(self, twin: DsoTwin, log: io.StringIO) -> None:
        self.failed = twin.checks.failed
        self.lines = [json.loads(line) for line in log.getvalue().splitlines()]

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        wanted = fields.items()
        return [line for line in self.lines if line["event"] == event and all(line.get(k) == v for k, v in wanted)]


async def play(port: int, script: Script, *, speed: float = SPEED, **settings: Any) -> Played:
    log = io.StringIO()
    chosen = DsoSettings(
        broker=MqttBroker(host="127.0.0.1", port=port),
        layer="demo",
        duration_s=30.0,
        rating_w=100_000.0,
        heartbeat_timeout_s=TIMEOUT_S,
        start_after_ready=True,
        speed=speed,
    )
    twin = DsoTwin(chosen._replace(**settings), script, JsonLines(log))
    await twin.run(asyncio.Event())
    return Played(twin, log)


def short(orders: Iterable[dict[str, Any]], **more: Any) -> Script:
    """A script of a few orders without a silence."""
    return Script.model_validate({"phases": [{"name": "all", "start": 0.0}], "orders": list(orders), **more})


LIMIT = {"quantity": "net_export_w", "value_pu": 0.1}


class Shipped(NamedTuple):
    """One run of the shipped script against a layer that keeps the interface."""

    script: Script
    played: Played
    layer: Any


@pytest.fixture(scope="module")
def shipped(dso_broker: Any, layer_at: Any) -> Shipped:
    async def run() -> Shipped:
        script = load_script()
        async with layer_at(dso_broker.port, TIMEOUT_S / SPEED) as layer:
            return Shipped(script, await play(dso_broker.port, script), layer)

    return asyncio.run(run())


def test_the_shipped_script_passes_against_a_layer_that_keeps_the_interface(shipped: Shipped) -> None:
    script, played, layer = shipped
    assert played.failed == []
    names = {line["name"] for line in played.of("check")}
    assert names >= {f"acknowledged:{order.name}" for order in script.orders}
    assert names >= {f"ended:{order.name}" for order in script.orders if order.then}
    assert names >= {"regulation_echo:regulation", "fallback_reported", "fallback_left", "up_messages_valid"}
    assert [line["name"] for line in played.of("phase")] == [phase.name for phase in script.phases]
    refused = {order.name for order in script.orders if order.expect == "rejected"}
    assert {order_id.rpartition("-")[0] for order_id in layer.accepted}.isdisjoint(refused)


def test_what_the_twin_writes_by_hand_the_schemas_read_as_the_script_means_it(shipped: Shipped) -> None:
    layer = shipped.layer
    for kind, payload in layer.down:
        if kind in ("heartbeat", "regulation"):
            DOWN_SCHEMAS[Down(kind)].model_validate_json(payload, strict=True)
    orders = {order_id.rpartition("-")[0]: order for order_id, order in layer.accepted.items()}
    assert (orders["authority"].parent, orders["authority"].epoch) == ("dso", 1)
    limit = orders["export_limit"]
    assert (limit.quantity, limit.value, limit.on_end) == ("net_export_w", 10_000.0, "unlimited")
    assert limit.duration_s == pytest.approx((0.15 - 0.08) * 30.0 / SPEED, abs=1e-3)
    assert orders["sell"].net_power_w == -25_000.0
    reserve = orders["reserve"]
    assert (reserve.net_power_w, reserve.regulation_up_w, reserve.regulation_down_w) == (0.0, 15_000.0, 15_000.0)


def test_nothing_is_sent_in_the_silence_and_the_heartbeat_is_first_after_it(shipped: Shipped) -> None:
    played = shipped.played
    begins = {line["name"]: line["monotonic_s"] for line in played.of("phase")}
    sent = played.of("sent")
    assert not [line for line in sent if begins["silence"] < line["monotonic_s"] < begins["recovery"]]
    assert next(line for line in sent if line["monotonic_s"] > begins["recovery"])["kind"] == "heartbeat"
    sequences = [line["message"]["sequence"] for line in sent if line["kind"] == "heartbeat"]
    assert sequences == sorted(set(sequences))


async def test_a_layer_that_never_acknowledges_fails_every_order_at_once(dso_broker: Any, layer_at: Any) -> None:
    script = short([{"name": "limit", "at": 0.1, "limit": LIMIT}, {"name": "authority", "at": 0.0, "authority": {}}])
    async with layer_at(dso_broker.port, TIMEOUT_S / SPEED, "deaf"):
        played = await play(dso_broker.port, script, speed=QUICK, answer_within_s=0.2)
    assert set(played.failed) == {"acknowledged:limit", "acknowledged:authority", "heard:acknowledgement"}


@pytest.mark.parametrize("trait", ["gullible", "wordless"])
async def test_a_bad_order_must_be_rejected_with_a_reason(trait: str, dso_broker: Any, layer_at: Any) -> None:
    bad = {"name": "bad", "at": 0.1, "expect": "rejected", "limit": LIMIT, "extra": {"device": "battery_a"}}
    script = short([bad, {"name": "good", "at": 0.2, "limit": LIMIT}])
    async with layer_at(dso_broker.port, TIMEOUT_S / SPEED, trait):
        played = await play(dso_broker.port, script, speed=QUICK)
    assert played.failed == ["acknowledged:bad"]


async def test_an_end_that_nobody_reports_fails(dso_broker: Any, layer_at: Any) -> None:
    script = short([{"name": "limit", "at": 0.0, "until": 0.1, "then": "completed", "limit": LIMIT}])
    async with layer_at(dso_broker.port, TIMEOUT_S / SPEED, "forgetful"):
        played = await play(dso_broker.port, script, speed=QUICK, answer_within_s=0.3)
    assert played.failed == ["ended:limit"]


async def test_a_layer_that_never_falls_back_or_echoes_is_found_out(dso_broker: Any, layer_at: Any) -> None:
    phases = [
        {"name": "regulation", "start": 0.0},
        {"name": "silence", "start": 0.4, "silence": True},
        {"name": "back", "start": 0.8},
    ]
    regulation = [{"name": "signal", "at": 0.1, "until": 0.3}]
    script = short([], phases=phases, regulation=regulation)
    async with layer_at(dso_broker.port, TIMEOUT_S / SPEED, "careless", "no_echo"):
        played = await play(dso_broker.port, script, speed=QUICK, answer_within_s=0.3)
    assert set(played.failed) == {"fallback_reported", "regulation_echo:signal", "heard:acknowledgement"}


async def test_a_device_name_in_telemetry_is_invalid_and_logged(dso_broker: Any, layer_at: Any) -> None:
    async with layer_at(dso_broker.port, TIMEOUT_S / SPEED, "talkative"):
        played = await play(dso_broker.port, short([]), speed=QUICK)
    assert {"up_messages_valid", "heard:telemetry"} <= set(played.failed)
    line = played.of("invalid", kind="telemetry")[0]
    assert line["reason"] == "battery_a_w: not part of the interface"
    assert "battery_a_w" in line["payload"]


async def test_without_a_layer_the_script_starts_after_a_bounded_wait_and_fails(dso_broker: Any) -> None:
    played = await play(dso_broker.port, short([]), speed=QUICK, wait_for_layer_s=0.2)
    assert played.failed[0] == "layer_seen"
    assert played.of("sent", kind="heartbeat")


async def test_a_killed_broker_is_found_again_and_later_orders_go_out(broker_process: Any, layer_at: Any) -> None:
    script = short([{"name": "limit", "at": 0.9, "until": 1.0, "limit": LIMIT}])
    broker = broker_process()
    async with layer_at(broker.port, TIMEOUT_S) as layer:
        playing = asyncio.create_task(play(broker.port, script, speed=SPEED))
        async with asyncio.timeout(5):
            await layer.heard.wait()
        await asyncio.to_thread(broker.kill)
        broker = await asyncio.to_thread(broker_process, broker.port)
        played = await playing
    await asyncio.to_thread(broker.close)
    assert [line["state"] for line in played.of("connection")] == ["connected", "away", "connected"]
    assert played.of("unsent", kind="heartbeat")
    assert "acknowledged:limit" not in played.failed


async def test_an_order_without_a_broker_fails_its_check_and_is_not_sent(broker_process: Any) -> None:
    script = short([{"name": "limit", "at": 0.1, "until": 0.5, "limit": LIMIT}])
    broker = await asyncio.to_thread(broker_process)
    await asyncio.to_thread(broker.kill)
    played = await play(broker.port, script, speed=100.0, wait_for_layer_s=0.1)
    assert "acknowledged:limit" in played.failed
    assert not played.of("sent")
    assert played.of("unsent", kind="limits")

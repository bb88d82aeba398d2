"""The bench of a dispatch: from the operator's publication to the last register, over a broker that really runs."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.bench.broker import mosquitto_program
from tests.bench.bench_command import THREE, run


async def figures(*arguments: str) -> dict[str, Any]:
    return (await run("dispatch", "--devices", "3", "--dispatches", "10", "--json", *arguments)).figures()


def check(told: dict[str, Any]) -> None:
    assert told["written"] == told["dispatches"] == 10
    for name in ("latency_ms", "published_to_received_ms", "received_to_acknowledged_ms"):
        assert set(told[name]) == THREE
    assert told["latency_ms"]["max"] > told["published_to_received_ms"]["p50"] > 0.0
    assert told["least_changes_at_a_server"] >= told["dispatches"], "each is another power for each device"


async def test_a_dispatch_reaches_every_register_through_the_embedded_broker() -> None:
    told = await figures("--embedded")
    assert told["broker"] == "amqtt"
    check(told)


@pytest.mark.skipif(mosquitto_program() is None, reason="mosquitto is not installed")
async def test_a_dispatch_reaches_every_register_through_mosquitto() -> None:
    told = await figures()
    assert told["broker"] == "mosquitto"
    check(told)

"""A gateway and its twins as one command starts them, and an operator who sends it good and bad orders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from tests.system.operator_client import Operator, ago, operator_at
from tests.system.processes import Broker, Gateway, Started, Twins, lasting, until
from tests.system.sites import demo_site, written

TOLERANCE_W = 1_000.0
"""One percent of the connection's rating."""


class Site(NamedTuple):
    """A running site: one gateway for all tests, twins whose physics can be looked into, a broker."""

    broker: Broker
    twins: Twins
    gateway: Gateway


@pytest.fixture(scope="module")
def running_site(started_for_all: Started) -> Iterator[Site]:
    """The demo site as it is shipped."""

    async def start() -> Site:
        path = written(demo_site(), started_for_all.folder)
        broker = await started_for_all.broker()
        twins = await started_for_all.twins(path, broker=broker)
        state = started_for_all.folder / "state"
        gateway = started_for_all.gateway(path, state, "--twin", "all", broker=broker.address, twins=twins)
        await gateway.ready()
        return Site(broker, twins, gateway)

    yield asyncio.run(start())


@pytest.fixture
async def operator(running_site: Site) -> AsyncIterator[Operator]:
    """An operator whom the gateway hears; what a test ordered is withdrawn after it."""
    async with operator_at(running_site.broker.port) as operator:
        await until(lambda: running_site.gateway.mode() == "normal", "the gateway hears its operator")
        yield operator
        for quantity in ("net_import_w", "net_export_w", "generation_w"):
            await operator.limit(quantity, "unlimited")


async def test_orders_are_acknowledged_and_the_physics_follows(running_site: Site, operator: Operator) -> None:
    gateway, twins = running_site.gateway, running_site.twins
    await operator.authority()
    dispatch = await operator.dispatch(30_000.0)
    await lasting(lambda: twins.net_w > 25_000.0, 0.5, "the site draws what was dispatched")
    limit = await operator.limit("net_import_w", 8_000.0)
    await lasting(lambda: twins.net_w <= 8_000.0 + TOLERANCE_W, 1.0, "the site is inside its limit")
    snapshot = gateway.snapshot()
    assert snapshot["connection"]["upper_w"] == 8_000.0
    assert snapshot["connection"]["upper_source"] == f"dso {limit}"
    assert {dispatch, limit} <= gateway.order_ids()
    other = await operator.dispatch(-20_000.0)
    superseded = await operator.answer(dispatch, number=2)
    assert (superseded["status"], superseded["reason"]) == ("superseded", f"replaced by {other}")
    await lasting(lambda: abs(twins.net_w + 20_000.0) < 3_000.0, 0.5, "the site gives what was dispatched")
    short = await operator.accepted("dispatch", net_power_w=0.0, epoch=1, duration_s=0.5)
    ended = await operator.answer(short, number=2)
    assert ended["status"] == "completed"
    assert ended["result"]["energy_wh"] is not None


BAD: dict[str, tuple[str, Any, str]] = {
    "malformed": ("limits", b'{"id": "cut off", "quantity": ', "not JSON"),
    "not a number": ("limits", b'{"id": "nan", "value": NaN}', "not JSON: NaN is not a number"),
    "not an object": ("limits", b"[]", "not a JSON object"),
    "oversized": ("limits", b'{"id": "%s"}' % (b"x" * 70_000), "payload of 70010 bytes; 65536 are allowed"),
    "out of range": ("limits", {"quantity": "net_import_w", "value": -1.0}, "greater than or equal to 0"),
    "unknown quantity": ("limits", {"quantity": "battery_a_w", "value": 0.0}, "quantity: "),
    "unknown field": ("limits", {"quantity": "net_import_w", "value": 0.0, "device": "battery_a"}, "device: "),
    "expired": (
        "limits",
        {"quantity": "net_import_w", "value": 0.0, "issued_at": ago(600), "duration_s": 60},
        "expired",
    ),
    "from the future": ("limits", {"quantity": "net_import_w", "value": 0.0, "issued_at": ago(-900)}, "in the future"),
    "beyond the connection": ("dispatch", {"net_power_w": 200_000.0, "epoch": 1}, "beyond the connection's 100000 W"),
    "of another epoch": ("dispatch", {"net_power_w": 0.0, "epoch": 99}, "epoch 99 is not the present epoch"),
    "to a stranger": ("authority", {"parent": "somebody", "epoch": 2}, "somebody is not a parent of this site"),
}


async def test_bad_orders_are_refused_with_a_reason_counted_and_change_nothing(
    running_site: Site, operator: Operator
) -> None:
    gateway = running_site.gateway
    await operator.authority()
    good = await operator.limit("net_import_w", 20_000.0)
    before = gateway.snapshot()
    for kind, message, reason in BAD.values():
        answered = len(operator.heard["acknowledgement"])
        if isinstance(message, bytes):
            await operator.say(kind, message)
        else:
            await operator.order(kind, **message)
        answer = await operator.next_answer(answered)
        if answer["status"] == "superseded":
            answer = await operator.next_answer(answered + 1)  # the limit of the test before, which `good` replaced
        assert (answer["status"], answer["kind"]) == ("rejected", kind)
        assert reason in answer["reason"]
    await operator.say("limits", {"id": good, "issued_at": ago(), "quantity": "net_import_w", "value": 0.0})
    repeated = await operator.answer(good, number=2)
    assert (repeated["status"], repeated["reason"]) == ("rejected", "duplicate: this id was taken before")
    await operator.say("nonsense", {"id": "no such message"})
    refused = len(BAD) + 2
    await until(
        lambda: gateway.snapshot()["refused_orders"] == before["refused_orders"] + refused, "every refusal is counted"
    )
    after = gateway.snapshot()
    assert [order["id"] for order in after["orders"]] == [order["id"] for order in before["orders"]]
    for bound in ("lower_w", "lower_source", "upper_w", "upper_source", "target_w", "target_source"):
        assert after["connection"][bound] == before["connection"][bound]


async def test_watch_tells_what_the_local_socket_does(running_site: Site, started: Started) -> None:
    state = running_site.gateway.socket.parent
    watch = started.run("watch", "gateway", "watch", "demo", "--json", "--state", str(state))
    await until(lambda: watch.out.count("\n") >= 2, "two snapshots")
    first, second = (json.loads(line) for line in watch.out.splitlines()[:2])
    assert first["site"] == "demo"
    assert first.keys() == running_site.gateway.snapshot().keys()
    assert second["cycle"]["count"] > first["cycle"]["count"]
    assert [link["state"] for link in second["links"]] == ["up"] * len(second["links"])
    assert len(second["devices"]) == 6

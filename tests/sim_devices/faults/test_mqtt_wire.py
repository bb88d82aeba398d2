"""Faults of brokers, of values on topics and of parents: the packets on the broker's side and those on the client's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.messages import DispatchOrder, Heartbeat, LimitOrder, RegulationSignal
from sim_devices.faults import FAULTS, FaultError, Target
from sim_devices.faults.mqtt_packets import Publication, acknowledgement, publication
from sim_devices.faults.mqtt_speech import MqttUnderstanding
from sim_devices.faults.points import KnownDevice, known_device
from sim_devices.faults.registry import MQTT, PARENT
from tests.sim_devices.faults.field import End, Field, field
from tests.sim_devices.faults.sites import shipped, site_of

CONNECT = bytes.fromhex("100e00044d51545404020005") + b"\x00\x02me"
CONNACK, SUBACK = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
CHARGER = "go-eCharger/7"
DSO = "lamina/v1/bench/dso/down"
ISSUED = "2026-06-08T10:00:00+00:00"


def said(topic: str, content: Any, **more: Any) -> bytes:
    """A message."""
    return Publication(topic, content if isinstance(content, bytes) else json.dumps(content).encode(), **more).packet()


def known() -> KnownDevice:
    """A go-e charger, whose topics are those of its serial number."""
    address = {"driver": "mqtt", "host": "127.0.0.1", "port": 1883, "parameters": {"serial": "7"}}
    profile = shipped("goe_charger")
    return known_device(site_of({"profile": "goe_charger", "address": address}), profile, "unit")


@asynccontextmanager
async def connected(on: Field) -> AsyncIterator[tuple[End, End]]:
    """A client and its connection at the broker, after their greetings."""
    on.answers = False
    client = await on.connect()
    broker = on.device[-1] if on.device else None
    await on.until(lambda: bool(on.device))
    broker = on.device[-1]
    client.transport.write(CONNECT)
    await on.until(lambda: broker.heard == CONNECT)
    broker.transport.write(CONNACK)
    await on.until(lambda: client.heard == CONNACK)
    client.heard = broker.heard = b""
    yield client, broker


class Case(NamedTuple):
    """A fault, and what passes under it: what broker and client say in turn, and what each hears in the end."""

    fault: str
    options: dict[str, Any]
    broker_says: list[bytes]
    client_hears: list[bytes]
    client_says: list[bytes] = []  # noqa: RUF012 (a tuple's default is never changed)
    broker_hears: list[bytes] = []  # noqa: RUF012
    target: str = "unit"

    @property
    def name(self) -> str:
        """For people who read the test's report."""
        return "-".join([self.fault, *(f"{key}={value}" for key, value in self.options.items())])


NRG = [230.0, 230.0, 230.0, 0, 6.0, 6.0, 6.0, 1380.0, 1380.0, 1380.0, 0, 4140.0, 100, 100, 100, 0]
MORE = [*NRG[:11], 8280.0, *NRG[12:]]
AT = f"{CHARGER}/nrg"
BEAT = f"{CHARGER}/rbt"


def with_power(power: float) -> list[float]:
    return [*NRG[:11], power, *NRG[12:]]


LIMIT = {"id": "l-1", "issued_at": ISSUED, "quantity": "net_export_w", "value": 5000.0}
DISPATCH = {"id": "d-1", "issued_at": ISSUED, "epoch": 7, "net_power_w": -2000.0}
SIGNAL = {"epoch": 7, "sequence": 4, "issued_at": ISSUED, "signal": 0.5}
AGAINST = {"issued_at": ISSUED, "id": "l-1-against", "epoch": 0, "net_power_w": -11_000.0}
HOUR_LATER, HOUR_BEFORE = "2026-06-08T11:00:00+00:00", "2026-06-08T09:00:00+00:00"

CASES = [
    # Of the broker
    Case("duplicate", {}, [said(AT, NRG, qos=1, identifier=5), PINGRESP],
         [said(AT, NRG, qos=1, identifier=5)] * 2 + [PINGRESP],
         [acknowledgement(5), acknowledgement(5), PINGREQ], [acknowledgement(5), PINGREQ]),
    Case("out_of_order", {"count": 1}, [said(AT, NRG), PINGRESP, said(BEAT, 1)],
         [PINGRESP, said(BEAT, 1), said(AT, NRG)]),
    Case("broker_slow", {"delay_s": 0.005}, [said(AT, NRG), said(BEAT, 1)], [said(AT, NRG), said(BEAT, 1)]),
    # Of values
    Case("frozen_value", {}, [said(AT, NRG), said(BEAT, 1), said(AT, MORE), said(BEAT, 2)],
         [said(AT, NRG), said(BEAT, 1), said(AT, NRG), said(BEAT, 2)]),
    Case("frozen_heartbeat", {}, [said(BEAT, 1), said(BEAT, 2), said(AT, NRG)],
         [said(BEAT, 1), said(BEAT, 1), said(AT, NRG)]),
    Case("nan", {}, [said(AT, NRG)], [said(AT, with_power(float("nan")))]),
    Case("scale_factor", {"by": 3}, [said(AT, NRG)], [said(AT, with_power(4.14))]),
    Case("flipped_sign", {}, [said(AT, NRG), said(AT, b"{")], [said(AT, with_power(-4140.0)), said(AT, b"{")]),
    Case("drift", {"pu_per_s": 0.0}, [said(AT, NRG)], [said(AT, NRG)]),
    Case("spikes", {"chance": 1.0, "size_pu": 0.0}, [said(AT, NRG)], [said(AT, NRG)]),
    Case("write_ignored", {}, [], [acknowledgement(9), said(f"{CHARGER}/amp/result", b"success")],
         [said(f"{CHARGER}/amp/set", 16, qos=1, identifier=9), PINGREQ], [PINGREQ]),
    Case("write_clipped", {"most_pu": 0.5}, [], [], [said(f"{CHARGER}/amp/set", 16), said(f"{CHARGER}/frc/set", 2)],
         [said(f"{CHARGER}/amp/set", 7), said(f"{CHARGER}/frc/set", 2)]),
    # Of a parent
    Case("heartbeat_lost", {},
         [said(f"{DSO}/heartbeat", {"sequence": 1, "issued_at": ISSUED}), said(f"{DSO}/limits", LIMIT)],
         [said(f"{DSO}/limits", LIMIT)], target="dso"),
    Case("contradictory_orders", {}, [said(f"{DSO}/limits", LIMIT), said(f"{DSO}/dispatch", DISPATCH)],
         [said(f"{DSO}/limits", LIMIT), said(f"{DSO}/limits", LIMIT | {"value": "unlimited"}),
          said(f"{DSO}/dispatch", AGAINST), said(f"{DSO}/dispatch", DISPATCH),
          said(f"{DSO}/dispatch", DISPATCH | {"net_power_w": 2000.0})], target="dso"),
    Case("stale_epoch", {},
         [said(f"{DSO}/dispatch", DISPATCH), said(f"{DSO}/regulation", SIGNAL), said(f"{DSO}/limits", LIMIT)],
         [said(f"{DSO}/dispatch", DISPATCH | {"epoch": 6}), said(f"{DSO}/regulation", SIGNAL | {"epoch": 6}),
          said(f"{DSO}/limits", LIMIT)], target="dso"),
    Case("clock_off", {}, [said(f"{DSO}/limits", LIMIT)], [said(f"{DSO}/limits", LIMIT | {"issued_at": HOUR_LATER})],
         target="dso"),
    Case("clock_back", {}, [said(f"{DSO}/limits", LIMIT)], [said(f"{DSO}/limits", LIMIT | {"issued_at": HOUR_BEFORE})],
         target="dso"),
]  # fmt: skip


def target_of(name: str, device: KnownDevice) -> Target:
    if name == "unit":
        return Target((MQTT,), "unit", device, understood=True)
    return Target((PARENT, MQTT), name, parent=name, understood=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_each_side_hears_of_a_message_that_goes_wrong(case: Case) -> None:
    device = known()
    async with field(MQTT, understanding=MqttUnderstanding([device])) as on, connected(on) as (client, broker):
        fault = on.proxy.faults.set_by(case.fault, case.options, target_of(case.target, device))
        for packet in case.broker_says:
            broker.transport.write(packet)
        for packet in case.client_says:
            client.transport.write(packet)
        expected = b"".join(case.client_hears), b"".join(case.broker_hears)
        sent = len(CONNECT) + sum(map(len, case.client_says))
        await on.until(lambda: on.proxy.counts.request_bytes == sent)
        await on.until(lambda: len(client.heard) >= len(expected[0]) and len(broker.heard) >= len(expected[1]))
        assert (client.heard, broker.heard) == expected
        changes = (case.broker_says, case.client_says) != (case.client_hears, case.broker_hears)
        assert (fault.acted > 0) == (changes or case.fault == "broker_slow")
        on.proxy.faults.clear()
        broker.transport.write(said(AT, NRG))
        await on.until(lambda: client.heard == expected[0] + said(AT, NRG))


async def test_another_parents_messages_are_left_alone() -> None:
    async with field(MQTT, understanding=MqttUnderstanding()) as on, connected(on) as (client, broker):
        fault = on.proxy.faults.set_by("clock_off", {}, target_of("aggregator", known()))
        broker.transport.write(said(f"{DSO}/limits", LIMIT))
        await on.until(lambda: client.heard == said(f"{DSO}/limits", LIMIT))
        assert fault.acted == 0


async def test_stale_messages_come_at_once_and_after_each_subscription() -> None:
    async with field(MQTT, understanding=MqttUnderstanding()) as on, connected(on) as (client, broker):
        broker.transport.write(said(AT, NRG, qos=1, identifier=5) + said(AT, MORE))
        await on.until(lambda: client.heard.endswith(said(AT, MORE)))
        client.heard = b""
        on.proxy.faults.set("stale_retained")
        stale = said(AT, NRG, retained=True)
        await on.until(lambda: client.heard == stale)
        broker.transport.write(SUBACK)
        await on.until(lambda: client.heard == stale + SUBACK + stale)
        on.proxy.faults.clear()
        broker.transport.write(SUBACK)
        await on.until(lambda: client.heard == stale + SUBACK + stale + SUBACK)
        assert broker.heard == b""


@pytest.mark.parametrize("keeps", [0, 1])
async def test_a_broker_that_restarts_is_gone_and_back_without_what_it_had_retained(keeps: int) -> None:
    kept, fresh = said(AT, NRG, retained=True, qos=1, identifier=5), said(BEAT, 2)
    async with field(MQTT, understanding=MqttUnderstanding()) as on:
        async with connected(on) as (client, _):
            on.proxy.faults.set("broker_restart", down_s=0.03, keeps_retained=keeps)
            await on.until(lambda: client.state == "reset")
        with pytest.raises(ConnectionRefusedError):
            await on.connect()
        again = await on.connect_when_let()
        await on.until(lambda: len(on.device) == 2)
        broker = on.device[-1]
        broker.transport.write(kept + fresh)
        heard = kept + fresh if keeps else fresh
        await on.until(lambda: again.heard == heard)
        await on.until(lambda: broker.heard == (b"" if keeps else acknowledgement(5)))


async def test_a_charger_that_reboots_is_silent_and_loses_its_setpoint_while_its_broker_lives() -> None:
    device = known()
    async with field(MQTT, understanding=MqttUnderstanding([device])) as on, connected(on) as (client, broker):
        number = on.proxy.faults.set_by("reboot", {"down_s": 60.0, "power_pu": 0.5}, target_of("unit", device)).id
        await on.until(lambda: broker.heard == said(f"{CHARGER}/amp/set", 7) + said(f"{CHARGER}/frc/set", 2))
        broker.transport.write(said(AT, NRG, qos=1, identifier=5) + said("other/topic", 1) + PINGRESP)
        await on.until(lambda: client.heard == said("other/topic", 1) + PINGRESP)
        await on.until(lambda: broker.heard.endswith(acknowledgement(5)))
        on.proxy.faults.clear(number)
        broker.transport.write(said(AT, NRG))
        await on.until(lambda: client.heard.endswith(said(AT, NRG)))


async def test_a_charger_without_a_timer_has_no_reversion() -> None:
    device = known()
    async with field(MQTT, understanding=MqttUnderstanding([device])) as on:
        with pytest.raises(FaultError, match="unit has no timer"):
            on.proxy.faults.set_by("reversion", {}, target_of("unit", device))


@given(
    st.builds(
        Publication,
        topic=st.text(max_size=40),
        payload=st.binary(max_size=300),
        qos=st.just(0),
        retained=st.booleans(),
        duplicate=st.booleans(),
        identifier=st.just(0),
        properties=st.just(b""),
    ),
    st.sampled_from([0, 1]),
)
def test_messages_are_written_as_they_are_read(message: Publication, qos: int) -> None:
    message = message._replace(qos=qos, identifier=77 * qos)
    assert publication(message.packet(), 4) == message
    with_properties = message._replace(properties=b"\x03\x02\x00\x01")
    assert publication(with_properties.packet(), 5) == with_properties


def test_a_message_looks_as_the_standard_has_it() -> None:
    assert said("a/b", b"hi", qos=1, identifier=10, retained=True) == b"\x33\x09\x00\x03a/b\x00\x0ahi"
    assert said("t", bytes(130))[:3] == b"\x30\x85\x01"


def test_the_orders_of_these_tests_are_orders() -> None:
    LimitOrder.model_validate_json(json.dumps(LIMIT))
    DispatchOrder.model_validate_json(json.dumps(DISPATCH))
    DispatchOrder.model_validate_json(json.dumps(AGAINST))
    RegulationSignal.model_validate_json(json.dumps(SIGNAL))
    Heartbeat.model_validate_json(json.dumps({"sequence": 1, "issued_at": ISSUED}))


OTHER_TESTS: dict[str, Callable[..., Awaitable[None]]] = {
    "stale_retained": test_stale_messages_come_at_once_and_after_each_subscription,
    "broker_restart": test_a_broker_that_restarts_is_gone_and_back_without_what_it_had_retained,
    "reboot": test_a_charger_that_reboots_is_silent_and_loses_its_setpoint_while_its_broker_lives,
    "reversion": test_a_charger_without_a_timer_has_no_reversion,
}


def test_every_fault_of_messages_has_a_test_on_the_wire() -> None:
    of_messages = {
        name
        for name, kind in FAULTS.items()
        if {MQTT, PARENT} & set(kind.applies_to) and (kind.understands or name == "duplicate")
    }
    assert {case.fault for case in CASES} | OTHER_TESTS.keys() == of_messages


async def test_bytes_that_are_no_mqtt_pass_as_they_are() -> None:
    async with field(MQTT, understanding=MqttUnderstanding()) as on:
        on.answers = False
        driver = await on.connect()
        await on.until(lambda: len(on.device) == 1)
        stream = bytes(range(256)) * 100
        driver.transport.write(stream)
        on.device[0].transport.write(stream[::-1])
        async with asyncio.timeout(10):
            await on.until(lambda: len(on.heard) == len(driver.heard) == len(stream))
        assert (on.heard, driver.heard) == (stream, stream[::-1])

"""Stories of the MQTT driver against real brokers: amqtt always, and mosquitto where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.profile import Profile
from config.site import MqttDevice, Tls
from config.vocabulary import ChargingState, LinkState, Quality, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.cancellation import heeded
from drivers.mqtt.connection import Arrival, NewestOfEachTopic
from drivers.mqtt.driver import MqttDriver
from drivers.mqtt.payload import LARGEST_PAYLOAD
from tests.drivers.field import Field, Wire
from tests.drivers.mqtt_field import (
    BROKERS,
    MOSQUITTO,
    PASSWORD,
    USER,
    Charger,
    Mosquitto,
    TestBroker,
    make_certificate,
)

PROFILE = Path("config/profiles/goe_charger.yaml")
PREFIX = "go-eCharger/000001/"


def profile_text() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(PROFILE.read_text())
    return raw


def charger(port: int, name: str = "charger", serial: str = "000001", **changes: Any) -> DeviceBinding:
    raw = profile_text()
    raw["pace"] = {"timeout_s": 0.4, "silence_s": 0.6}
    raw |= changes.pop("profile", {})
    where: dict[str, Any] = {"host": "127.0.0.1", "port": port} | changes.pop("broker", {})
    address = MqttDevice(driver="mqtt", parameters={"serial": serial}, **where)
    return DeviceBinding(name, Profile.model_validate(raw), address, 22_080.0, **changes)


def driver_for(field: Field, *bindings: DeviceBinding) -> MqttDriver:
    return MqttDriver("mqtt", bindings, field, time.monotonic, random.Random(1))


def setpoint(power_w: float, sequence: int = 1, life_s: float = 5.0, device: str = "charger") -> Setpoint:
    return Setpoint(device, power_w, "test", time.monotonic() + life_s, sequence)


@contextlib.asynccontextmanager
async def running(driver: MqttDriver) -> AsyncIterator[MqttDriver]:
    """The driver at work; once cancelled, it has left no task and no socket behind."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(driver.run())
    try:
        yield driver
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    assert [left for left in asyncio.all_tasks() - before if is_client(left)] == []


def is_client(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "/drivers/mqtt/" in code.co_filename


@pytest.fixture(params=sorted(BROKERS))
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TestBroker]:
    made = BROKERS[request.param](tmp_path)
    await made.start()
    yield made
    await made.stop()


async def test_values_arrive_with_quality_and_time(broker: TestBroker) -> None:
    field = Field()
    async with Charger(broker.port).online() as device, running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: field.sample("charger", "power_w").value == 11_040.0)
        assert field.sample("charger", "charging_state").value == ChargingState.C
        assert field.sample("charger", "voltage_v").value == 230.0
        assert field.sample("charger", "current_l3_a").value == 16.1
        assert field.sample("charger", "charging_allowed").value == 1.0
        assert field.present == [("charger", True, "answers")]

        changed = time.monotonic()
        await device.put("nrg", [0] * 11 + [4140] + [0] * 4)
        await field.until(lambda: field.sample("charger", "power_w").value == 4140.0)
        power = field.sample("charger", "power_w")
        assert power.quality is Quality.GOOD
        assert changed <= power.measured_s <= time.monotonic()
        assert driver.stats.devices == {"charger": True}
        assert driver.poll() == ()


async def test_a_live_device_with_a_constant_power_stays_fresh_and_a_silent_one_goes_bad(broker: TestBroker) -> None:
    field = Field()
    async with Charger(broker.port).online() as device, running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: field.sample("charger", "power_w").value == 11_040.0)
        first = field.sample("charger", "power_w").measured_s
        await field.until(lambda: field.sample("charger", "power_w").measured_s > first + 0.8)
        assert time.monotonic() - field.sample("charger", "power_w").measured_s < 0.5

        await device.freeze()
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.BAD)
        await field.until(lambda: field.present[-1][1] is False)
        assert "no sign of life" in field.present[-1][2]
        assert driver.stats.state is LinkState.UP
        device.beat()
        await field.until(lambda: field.sample("charger", "power_w").value == 11_040.0)


async def test_what_the_broker_kept_of_a_dead_device_is_never_a_measurement(broker: TestBroker) -> None:
    async with Charger(broker.port).online():
        pass
    field = Field()
    async with running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: bool(field.present))
        assert field.present[0][:2] == ("charger", False)
        assert all(sample.quality is Quality.BAD for sample in field.points["charger"].values())
        assert driver.stats.good == 0


async def test_a_repeated_heartbeat_is_no_sign_of_life(broker: TestBroker) -> None:
    field = Field()
    async with Charger(broker.port).online() as device, running(driver_for(field, charger(broker.port))):
        await field.until(lambda: field.sample("charger", "power_w").value == 11_040.0)
        await device.freeze()
        repeating = asyncio.create_task(device.repeat("rbt", device.rbt))
        await field.until(lambda: field.present[-1][1] is False)
        assert field.sample("charger", "power_w").quality is Quality.BAD
        repeating.cancel()
        await asyncio.gather(repeating, return_exceptions=True)
        device.beat()
        await field.until(lambda: field.sample("charger", "power_w").value == 11_040.0)


def numbered_meter(port: int) -> DeviceBinding:
    """A meter that sends power and a number in one message."""
    source = {"document": "A manual", "version": "1", "publisher": "A maker"}
    points = {
        name: {"mqtt": {"topic": "meter/now", "json_path": [name]}, "unit": unit, "source": "table 1"}
        for name, unit in (("power_w", "W"), ("heartbeat", ""))
    }
    points["voltage_v"] = {"mqtt": {"topic": "meter/later"}, "unit": "V", "source": "table 2"}
    raw = {"profile": "meter", "title": "A meter", "kind": "meter", "protocol": "mqtt", "source": source}
    profile = Profile.model_validate(raw | {"points": points, "pace": {"timeout_s": 0.4, "silence_s": 5}})
    address = MqttDevice(driver="mqtt", host="127.0.0.1", port=port)
    return DeviceBinding("meter", profile, address, 10_000.0)


NUMBERED = (
    (1000, 10.0, True),
    (1001, 20.0, True),
    (1001, 20.0, False),  # again, as QoS 1 allows
    (1001, 99.0, False),
    (998, 98.0, False),  # overtaken
    (1002, 30.0, True),
    (3, 40.0, True),  # the meter has been restarted
    (4, 50.0, True),
    (3, 60.0, True),  # and again
)


async def test_a_message_that_is_sent_again_or_comes_late_is_no_measurement(broker: TestBroker) -> None:
    field = Field()
    async with (
        aiomqtt.Client("127.0.0.1", broker.port, identifier="meter") as meter,
        running(driver_for(field, numbered_meter(broker.port))) as driver,
    ):
        await field.until(lambda: driver.stats.state is LinkState.UP)
        for at, (number, power_w, taken) in enumerate(NUMBERED):
            before = field.sample("meter", "power_w")
            await heeded(meter.publish("meter/now", json.dumps({"power_w": power_w, "heartbeat": number}), qos=1))
            await heeded(meter.publish("meter/later", str(at), qos=1))
            await field.until(lambda at=at: field.sample("meter", "voltage_v").value == at)  # type: ignore[misc]
            after = field.sample("meter", "power_w")
            assert (after.value == power_w and after.measured_s > before.measured_s) if taken else after == before
        assert driver.stats.rejected == sum(not taken for _, _, taken in NUMBERED)


async def test_the_last_will_is_heard_at_once(broker: TestBroker) -> None:
    patient = profile_text()["pace"] | {"silence_s": 60, "timeout_s": 0.4}
    field = Field()
    binding = charger(broker.port, profile={"pace": patient})
    async with Charger(broker.port).online() as device, running(driver_for(field, binding)):
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        await device.freeze()
        await device.put("mcc", False)
        await field.until(lambda: field.present[-1][1] is False)
        assert field.present[-1][2] == "it was announced to be gone"
        assert field.sample("charger", "power_w").quality is Quality.BAD
        await device.put("mcc", True)
        await field.until(lambda: field.present[-1][1] is True)


async def test_a_setpoint_is_whole_amps_before_release_and_a_pause_leaves_them(broker: TestBroker) -> None:
    field = Field()
    async with Charger(broker.port).online() as device, running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        driver.write(setpoint(7_500.0))
        await field.until(lambda: len(field.results) == 1)
        assert field.results[0].status is WriteStatus.ACKNOWLEDGED
        assert device.commands == [("amp", "10"), ("frc", "2")]
        await field.until(lambda: field.sample("charger", "requested_current_a").value == 10.0)

        driver.write(setpoint(4_000.0, 2))  # 5.8 A: less than a car may be offered
        await field.until(lambda: len(field.results) == 2)
        assert device.commands[2:] == [("frc", "1")]
        await driver.rest(2.0)
        assert device.commands[3:] == [("amp", "6"), ("frc", "0")]


async def test_the_devices_refusal_is_told_and_nothing_is_released(broker: TestBroker) -> None:
    field = Field()
    made = Charger(broker.port)
    made.answers["amp"] = "value must be between 6 and 16"
    async with made.online() as device, running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        driver.write(setpoint(22_080.0))
        await field.until(lambda: len(field.results) == 1)
        assert field.results[0].status is WriteStatus.REFUSED
        assert "between 6 and 16" in field.results[0].detail
        assert device.commands == [("amp", "32")]


async def test_a_device_that_does_not_answer_makes_the_write_indeterminate_and_costs_no_connection(
    broker: TestBroker,
) -> None:
    field = Field()
    made = Charger(broker.port)
    made.answers["amp"] = None
    async with made.online(), running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        driver.write(setpoint(7_500.0))
        await field.until(lambda: len(field.results) == 1)
        assert field.results[0].status is WriteStatus.INDETERMINATE
        assert driver.stats.state is LinkState.UP
        assert driver.stats.lost == 0


async def test_the_newest_setpoint_supersedes_one_that_has_not_gone_out(broker: TestBroker) -> None:
    field = Field()
    async with Charger(broker.port).online() as device, running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        for sequence in (1, 2, 3):
            driver.write(setpoint(6_900.0 + 690.0 * sequence, sequence))
        await field.until(lambda: len(field.results) == 3)
        assert {r.sequence: r.status for r in field.results} == {
            1: WriteStatus.SUPERSEDED,
            2: WriteStatus.SUPERSEDED,
            3: WriteStatus.ACKNOWLEDGED,
        }
        assert device.commands == [("amp", "13"), ("frc", "2")]


async def test_a_device_that_comes_back_is_given_the_current_setpoint_again(broker: TestBroker) -> None:
    field = Field()
    made = Charger(broker.port)
    async with running(driver_for(field, charger(broker.port))) as driver:
        async with made.online():
            await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
            driver.write(setpoint(7_500.0, life_s=30))
            await field.until(lambda: len(field.results) == 1)
        await field.until(lambda: field.present[-1][1] is False)
        made.commands.clear()
        made.commanded.clear()
        async with made.online():
            async with asyncio.timeout(5):
                await made.commanded.wait()
            assert made.commands[0] == ("amp", "10")
            assert len(field.results) == 1


async def test_a_broker_that_dies_and_returns_gets_each_command_at_most_once(broker: TestBroker) -> None:
    field = Field()
    async with running(driver_for(field, charger(broker.port))) as driver:
        async with Charger(broker.port).online():
            await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        await broker.stop()
        await field.until(field.is_lost)
        assert field.sample("charger", "power_w").quality is Quality.BAD
        driver.write(setpoint(6_900.0, 1, life_s=0.05))
        driver.write(setpoint(7_590.0, 2, life_s=0.1))
        await field.until(lambda: len(field.results) == 2)
        assert [r.status for r in field.results] == [WriteStatus.SUPERSEDED, WriteStatus.EXPIRED]
        driver.write(setpoint(8_280.0, 3, life_s=20))

        await broker.start()
        returned = time.monotonic()
        made = Charger(broker.port)
        async with made.online():
            await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
            assert time.monotonic() - returned < 2.0
            await field.until(lambda: len(field.results) == 3)
            driver.write(setpoint(8_970.0, 4))
            await field.until(lambda: len(field.results) == 4)
        assert {value for key, value in made.commands if key == "amp"} <= {"12", "13"}
        assert driver.stats.reconnects == 1


async def test_a_broker_that_falls_silent_while_a_command_is_out_gets_it_at_most_once(broker: TestBroker) -> None:
    """The line goes dark under the command; after it, only the newest setpoint goes out, on a new connection."""
    field = Field()
    made = Charger(broker.port)
    wire = Wire(broker.port)
    await wire.start()
    try:
        async with made.online(), running(driver_for(field, charger(wire.port))) as driver:
            await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
            wire.go_dark()
            driver.write(setpoint(6_900.0, 1))
            await field.until(lambda: len(field.results) == 1)
            assert field.results[0].status is WriteStatus.INDETERMINATE
            await field.until(field.is_lost)
            driver.write(setpoint(8_280.0, 2))
            wire.go_light()
            await field.until(
                lambda: any(r.sequence == 2 and r.status is WriteStatus.ACKNOWLEDGED for r in field.results)
            )
            assert [value for key, value in made.commands if key == "amp"] == ["12"]
    finally:
        await wire.stop()


async def test_two_devices_share_a_connection_and_one_does_not_hurt_the_other(broker: TestBroker) -> None:
    field = Field()
    bindings = [charger(broker.port), charger(broker.port, "second", "000002", writable=False)]
    async with Charger(broker.port).online(), running(driver_for(field, *bindings)) as driver:
        async with Charger(broker.port, "000002").online():
            await field.until(lambda: field.sample("second", "power_w").quality is Quality.GOOD)
        await field.until(lambda: field.sample("second", "power_w").quality is Quality.BAD)
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        assert driver.stats.devices == {"charger": True, "second": False}
        driver.write(setpoint(7_500.0, 7, device="second"))
        assert field.results[-1].status is WriteStatus.REFUSED
        assert driver.stats.lost == 0


async def test_garbage_on_a_topic_is_a_bad_sample_and_the_rest_goes_on(broker: TestBroker) -> None:
    field = Field()
    async with Charger(broker.port).online() as device, running(driver_for(field, charger(broker.port))) as driver:
        await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
        garbage = [b"\xff\xfe", b"", b"null", b"[", b"[NaN]", b"[[" * 9000, b"x" * (LARGEST_PAYLOAD + 1), b"1e999"]
        for payload in garbage:
            await device.put("nrg", [0] * 16)
            await field.until(lambda: field.sample("charger", "power_w").value == 0.0)
            await device.say("nrg", payload)
            await field.until(lambda: field.sample("charger", "power_w").quality is Quality.BAD)
            assert field.sample("charger", "charging_state").quality is Quality.GOOD
        assert driver.stats.rejected >= len(garbage) - 1  # an empty retained message may be taken back by the broker
        assert driver.stats.lost == 0


async def test_a_peer_that_talks_nonsense_is_a_lost_link_and_nothing_more() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(random.Random(7).randbytes(400))
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    field = Field()
    try:
        async with running(driver_for(field, charger(server.sockets[0].getsockname()[1]))) as driver:
            await field.until(field.is_lost)
            driver.write(setpoint(7_500.0, life_s=0.3))
            await field.until(lambda: len(field.results) == 1)
            assert field.results[0].status is WriteStatus.EXPIRED
            assert len(field.links) == 2
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.skipif("mosquitto" not in BROKERS, reason="mosquitto is not installed; amqtt waits 10 s for such a client")
@pytest.mark.parametrize("seed", range(3))
async def test_bytes_that_are_no_mqtt_in_the_middle_of_a_session_cost_one_connection(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some of them begin a packet that would go on for megabytes, and that nothing but the missing ping's answer ends.
    monkeypatch.setattr("drivers.mqtt.connection._KEEP_ALIVE_S", 1)
    broker = BROKERS["mosquitto"](tmp_path)
    await broker.start()
    field, wire = Field(), Wire(broker.port)
    await wire.start()
    try:
        async with Charger(broker.port).online(), running(driver_for(field, charger(wire.port))) as driver:
            await field.until(lambda: field.sample("charger", "power_w").value == 11_040.0)
            # A packet type that is reserved (MQTT 3.1.1, table 2.1), and whatever follows.
            wire.inject(b"\x00" + random.Random(seed).randbytes(64))
            await field.until(lambda: field.sample("charger", "power_w").value is None)
            await field.until(lambda: field.sample("charger", "power_w").value == 11_040.0, within_s=20)
            assert driver.stats.lost == driver.stats.reconnects == 1
    finally:
        await wire.stop()
        await broker.stop()


async def test_a_driver_that_is_cancelled_while_it_connects_leaves_nothing_behind() -> None:
    accepted = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(16)
        if data:
            accepted.set()
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    try:
        async with running(driver_for(Field(), charger(server.sockets[0].getsockname()[1]))):
            async with asyncio.timeout(5):
                await accepted.wait()
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("kind", sorted(BROKERS))
async def test_tls_is_spoken_and_a_stranger_is_not_trusted(kind: str, trusted: bool, tmp_path: Path) -> None:
    context = make_certificate(tmp_path / "broker")
    make_certificate(tmp_path / "stranger")
    made = BROKERS[kind](tmp_path / "broker", tls=True)
    await made.start()
    field = Field()
    tls = Tls(ca_file=str(tmp_path / ("broker" if trusted else "stranger") / "cert.pem"))
    binding = charger(made.port, broker={"tls": tls})
    try:
        async with Charger(made.port, tls_context=context).online(), running(driver_for(field, binding)):
            if trusted:
                await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
            else:
                await field.until(field.is_lost)
                assert "certificate" in field.links[-1][1].lower()
    finally:
        await made.stop()


LOGINS = [(PASSWORD, None), ("wrong", "uthori"), (None, "LAMINA_TEST_PASSWORD")]


@pytest.mark.parametrize(("password", "said"), LOGINS if MOSQUITTO is not None else [])
async def test_a_login_is_used_and_a_wrong_one_is_named(
    password: str | None, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Mosquitto(tmp_path, password_file=await make_accounts(tmp_path / "accounts"))
    await made.start()
    if password is not None:
        monkeypatch.setenv("LAMINA_TEST_PASSWORD", password)
    field = Field()
    login = {"username": USER, "password_env": "LAMINA_TEST_PASSWORD"}
    try:
        async with running(driver_for(field, charger(made.port, broker=login))):
            await field.until(lambda: len(field.links) == 2)
            state, reason = field.links[1]
            assert (state is LinkState.UP) == (said is None), reason
            assert said is None or said in reason
    finally:
        await made.stop()


async def make_accounts(file: Path) -> Path:
    tool = shutil.which("mosquitto_passwd")
    assert tool is not None
    quiet = asyncio.subprocess.PIPE
    making = await asyncio.create_subprocess_exec(tool, "-b", "-c", str(file), USER, PASSWORD, stderr=quiet)
    await making.communicate()
    assert making.returncode == 0
    return file


def test_a_topic_without_its_parameter_is_refused_at_once() -> None:
    raw = charger(1883)
    address = MqttDevice(driver="mqtt", host="127.0.0.1", parameters={})
    with pytest.raises(ValueError, match="parameters"):
        driver_for(Field(), DeviceBinding("charger", raw.profile, address, 22_080.0))
    with pytest.raises(ValueError, match="one broker"):
        driver_for(Field(), charger(1883), charger(1884, "second"))


def test_the_queue_holds_the_newest_of_each_topic_that_is_wanted() -> None:
    queue = NewestOfEachTopic({"a", "b"})
    for topic, payload in (("a", b"1"), ("b", b"2"), ("a", b"3"), ("stranger", b"4")):
        queue.put_nowait(aiomqtt.Message(topic, payload, 0, False, 0, None))
    assert [queue.get_nowait().payload for _ in range(2)] == [b"3", b"2"]
    assert queue.empty()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=16)
)
TOPICS = st.sampled_from(["nrg", "car", "wh", "amp", "frc", "rbt", "utc", "mcc", "amp/result", "stranger"])


@given(
    topic=TOPICS, payload=st.binary(max_size=200) | JSON.map(lambda document: repr(document).encode("utf-8", "replace"))
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_payload_raises_or_becomes_a_value_that_its_point_does_not_have(topic: str, payload: bytes) -> None:
    async def story() -> None:
        field = Field()
        driver = driver_for(field, charger(1883))
        driver._take(Arrival(PREFIX + topic, payload, retained=False))
        points = profile_text()["points"]
        for name, sample in field.points.get("charger", {}).items():
            assert (sample.value is None) == (sample.quality is Quality.BAD)
            if isinstance(sample.value, float):
                assert math.isfinite(sample.value)
                low, high = points[name].get("range", (-math.inf, math.inf))
                assert low <= sample.value <= high
            elif sample.value is not None:
                assert name in ("charging_state", "clock")

    asyncio.run(story())

"""Messages that say when they were made: what is sent again, overtaken or stored on the way is no new measurement."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.profile import Profile
from config.site import MqttDevice
from config.vocabulary import LinkState, Quality
from drivers.binding import DeviceBinding
from drivers.cancellation import heeded
from drivers.mqtt.driver import MqttDriver
from drivers.mqtt.message_clock import MessageClock, time_in
from tests.drivers.field import Field
from tests.drivers.mqtt_field import BROKERS
from tests.drivers.test_mqtt import driver_for, running

NOON_S = 1_800_000_000.0


def timed_meter(port: int, time_path: list[str] | None = None) -> DeviceBinding:
    """A meter that sends power and a time in one message, and a voltage without any on another topic."""
    source = {"document": "A manual", "version": "1", "publisher": "A maker"}
    power = {"topic": "meter/now", "json_path": ["power_w"], "time_path": time_path or ["ts"]}
    points: dict[str, Any] = {
        "power_w": {"mqtt": power, "unit": "W", "source": "table 1"},
        "voltage_v": {"mqtt": {"topic": "meter/later"}, "unit": "V", "source": "table 2"},
    }
    raw = {"profile": "meter", "title": "A meter", "kind": "meter", "protocol": "mqtt", "source": source}
    profile = Profile.model_validate(raw | {"points": points, "pace": {"timeout_s": 0.4, "silence_s": 5}})
    return DeviceBinding("meter", profile, MqttDevice(driver="mqtt", host="127.0.0.1", port=port), 10_000.0)


class Story:
    """A meter that publishes, and what the driver makes of it."""

    def __init__(self, field: Field, driver: MqttDriver, meter: aiomqtt.Client) -> None:
        self._field, self._driver, self._meter = field, driver, meter
        self._count = 0

    async def says(self, *, retain: bool = False, **message: Any) -> bool:
        """Publish; whether that was taken as a new measurement."""
        before = self._field.sample("meter", "power_w")
        await heeded(self._meter.publish("meter/now", json.dumps(message), qos=1, retain=retain))
        self._count += 1
        await heeded(self._meter.publish("meter/later", str(self._count), qos=1))
        await self._field.until(lambda: self._field.sample("meter", "voltage_v").value == self._count)
        after = self._field.sample("meter", "power_w")
        assert after == before or after.value == message["power_w"]
        return after != before


async def test_what_comes_again_is_no_measurement_and_no_sign_of_life(tmp_path: Path) -> None:
    broker = BROKERS[sorted(BROKERS)[-1]](tmp_path)
    await broker.start()
    field = Field()
    try:
        async with (
            aiomqtt.Client("127.0.0.1", broker.port, identifier="meter") as meter,
            running(driver_for(field, timed_meter(broker.port))) as driver,
        ):
            await field.until(lambda: driver.stats.state is LinkState.UP)
            story = Story(field, driver, meter)
            assert await story.says(power_w=10.0, ts=NOON_S)
            assert await story.says(power_w=10.0, ts=NOON_S + 0.1), "the same value, measured again"
            assert not await story.says(power_w=10.0, ts=NOON_S + 0.1), "the same message, as QoS 1 allows"
            assert await story.says(power_w=11.0, ts=NOON_S + 0.1), "a clock that shows no more than that"
            assert not await story.says(power_w=10.0, ts=NOON_S), "a bridge that plays back"
            assert not await story.says(power_w=12.0), "no time where there is to be one"
            assert await story.says(power_w=12.0, ts=NOON_S + 0.3)
            assert driver.stats.rejected == 3
            # Stored for a minute on its way, after one that came without a delay from a minute later.
            await heeded(meter.publish("meter/now", json.dumps({"power_w": 20.0, "ts": NOON_S + 120}), qos=1))
            await field.until(lambda: field.sample("meter", "power_w").value == 20.0)
            await heeded(meter.publish("meter/now", json.dumps({"power_w": 21.0, "ts": NOON_S + 60}), qos=1))
            assert not await story.says(power_w=22.0, ts=NOON_S + 61)
    finally:
        await broker.stop()


async def test_a_message_that_the_broker_had_kept_is_no_new_one_when_it_comes_again(tmp_path: Path) -> None:
    broker = BROKERS[sorted(BROKERS)[-1]](tmp_path)
    await broker.start()
    field = Field()
    try:
        async with aiomqtt.Client("127.0.0.1", broker.port, identifier="meter") as meter:
            kept = json.dumps({"power_w": 10.0, "ts": NOON_S})
            await heeded(meter.publish("meter/now", kept, qos=1, retain=True))
            async with running(driver_for(field, timed_meter(broker.port))) as driver:
                await field.until(lambda: driver.stats.state is LinkState.UP)
                story = Story(field, driver, meter)
                assert not await story.says(power_w=10.0, ts=NOON_S)
                assert await story.says(power_w=10.0, ts=NOON_S + 1)
    finally:
        await broker.stop()


async def test_what_was_stored_on_the_way_is_as_old_as_it_is(tmp_path: Path) -> None:
    """A bridge that was cut for a minute delivers what it has kept, oldest first."""
    broker = BROKERS[sorted(BROKERS)[-1]](tmp_path)
    await broker.start()
    field = Field()
    shift_s = 0.0
    binding = timed_meter(broker.port)
    driver = MqttDriver("mqtt", [binding], field, lambda: time.monotonic() + shift_s)
    try:
        async with aiomqtt.Client("127.0.0.1", broker.port, identifier="meter") as meter, running(driver):
            await field.until(lambda: driver.stats.state is LinkState.UP)
            story = Story(field, driver, meter)
            assert await story.says(power_w=10.0, ts=NOON_S)
            shift_s = 60.0
            assert await story.says(power_w=20.0, ts=NOON_S + 1)
            age_s = time.monotonic() + shift_s - field.sample("meter", "power_w").measured_s
            assert age_s == pytest.approx(59.0, abs=2.0)
            assert await story.says(power_w=30.0, ts=NOON_S + 61)
            sample = field.sample("meter", "power_w")
            assert sample.quality is Quality.GOOD
            assert time.monotonic() + shift_s - sample.measured_s < 2.0
    finally:
        await broker.stop()


# The clock of messages alone


def test_a_clock_that_was_set_back_is_believed_after_it_has_run() -> None:
    clock = MessageClock()
    assert clock.late_s(NOON_S, b"a", 100.0) == 0.0
    told = [clock.late_s(NOON_S - 3600 + at, b"%d" % at, 101.0 + at) for at in range(15)]
    assert told[:10] == [None] * 10
    assert told[10:] == [0.0] * 5


def test_a_clock_that_was_set_on_is_believed_at_once_and_when_it_is_put_right() -> None:
    clock = MessageClock()
    assert clock.late_s(NOON_S, b"a", 100.0) == 0.0
    assert clock.late_s(NOON_S + 1e6, b"b", 101.0) == 0.0
    assert clock.late_s(NOON_S + 2, b"c", 102.0) is None
    assert clock.late_s(NOON_S + 12, b"d", 112.0) == 0.0


def test_one_message_again_and_again_is_never_believed() -> None:
    clock = MessageClock()
    assert clock.late_s(NOON_S, b"a", 100.0) == 0.0
    assert {clock.late_s(NOON_S, b"a", 100.0 + at) for at in range(1, 3600)} == {None}


def test_a_clock_that_runs_a_little_slow_is_no_delay() -> None:
    clock = MessageClock()
    told = {clock.late_s(NOON_S + 0.9999 * at, b"", 100.0 + at) for at in range(100_000)}
    assert told == {0.0}


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=50), st.floats(-1e6, 1e6))
def test_a_replay_of_all_that_was_said_is_refused_whole(gaps_s: list[float], offset_s: float) -> None:
    clock, now_s = MessageClock(), 0.0
    said = []
    for gap_s in gaps_s:
        now_s += gap_s
        said.append((NOON_S + offset_s + now_s, str(now_s).encode()))
        assert clock.late_s(*said[-1], now_s) == 0.0
    for made_s, payload in said:
        now_s += 0.001
        assert clock.late_s(made_s, payload, now_s) is None


@given(st.floats(0, 4e9))
def test_a_time_is_read_however_it_is_written(made_s: float) -> None:
    made_s = float(int(made_s) if made_s >= 1e9 else int(made_s) + 1e9)
    iso = datetime.fromtimestamp(made_s, UTC).isoformat()
    assert time_in(made_s) == made_s
    assert time_in(made_s * 1000) == made_s
    assert time_in(str(int(made_s))) == made_s
    assert time_in(iso) == time_in(iso.replace("+00:00", "Z")) == time_in(iso[:19]) == made_s


@given(st.one_of(st.text(), st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers())))
def test_whatever_stands_there_is_a_time_or_none(raw: object) -> None:
    found = time_in(raw)
    assert found is None or isinstance(found, float)

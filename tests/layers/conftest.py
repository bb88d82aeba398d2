"""A real broker for each test: mosquitto where it is installed, else amqtt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.site import MqttBroker
from tests.drivers.mqtt_field import MOSQUITTO, Amqtt, Mosquitto


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[MqttBroker]:
    running = Mosquitto(tmp_path) if MOSQUITTO else Amqtt(tmp_path)
    await running.start()
    yield MqttBroker(host="127.0.0.1", port=running.port)
    await running.stop()

"""Stories of the parent's broker with TLS: whom the gateway trusts, who trusts the gateway, and what it says of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing

from config.site import MqttBroker
from gateway.parent.mqtt_parent import MqttParent
from tests.drivers.mqtt_field import MOSQUITTO, PASSWORD, USER, Mosquitto
from tests.drivers.test_mqtt import make_accounts
from tests.drivers.tls_field import Authority

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def parent(**broker: Any) -> MqttParent:
    return MqttParent(
        layer="depot",
        source="dso",
        broker=MqttBroker.model_validate({"host": "127.0.0.1", **broker}),
        handle=lambda kind, payload, retained: None,
        utc=time.time,
        heartbeat_interval_s=60.0,
        telemetry_backlog=10,
    )


@contextlib.asynccontextmanager
async def running(made: MqttParent) -> AsyncIterator[MqttParent]:
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def logs_wake() -> Iterator[None]:
    """Whatever is logged wakes who waits."""

    def wake(_: Any, __: str, ___: Any) -> Any:
        for waiting in WAITING:
            waiting.set()
        raise structlog.DropEvent

    structlog.reset_defaults()
    with structlog.testing.capture_logs(processors=[wake]):
        yield


WAITING: list[asyncio.Event] = []


async def until(made: MqttParent, *, connected: bool) -> str:
    """Wait until it is connected, or has said why it can't be; the reason."""
    told = asyncio.Event()
    WAITING.append(told)
    try:
        async with asyncio.timeout(10):
            while made.connected is not connected or bool(made.reason) is connected:
                told.clear()
                await told.wait()
    finally:
        WAITING.remove(told)
    return made.reason


async def told_by(**broker: Any) -> str:
    async with running(parent(**broker)) as made:
        return await until(made, connected=False)


async def test_the_parents_broker_is_verified_and_gets_our_certificate(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "authority"), Authority(tmp_path / "stranger")
    folder = authority.issue(tmp_path / "broker", "127.0.0.1")
    ours = authority.issue(tmp_path / "ours", "lamina")
    pair = {"cert_file": str(ours / "cert.pem"), "key_file": str(ours / "key.pem")}
    tls = {"ca_file": str(authority.ca_file)}
    broker = Mosquitto(folder, tls=True, more=[f"cafile {authority.ca_file}", "require_certificate true"])
    await broker.start()
    try:
        async with running(parent(port=broker.port, tls=tls | pair)) as made:
            await until(made, connected=True)
            await broker.stop()
            await until(made, connected=False)
            await broker.start()
            returned = time.monotonic()
            await until(made, connected=True)
            assert time.monotonic() - returned < 2.0
            assert made.reconnects == 1
        wrong = {"ca_file": str(stranger.ca_file)}
        assert "its certificate is refused" in await told_by(port=broker.port, tls=wrong | pair)
        told = await told_by(port=broker.port, tls=tls | pair | {"server_name": "elsewhere.example"})
        assert "Hostname mismatch" in told
        assert "No such file" in await told_by(port=broker.port, tls={"ca_file": str(tmp_path / "absent.pem")})
    finally:
        await broker.stop()


async def test_a_password_is_sent_within_tls_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_TEST_PASSWORD", PASSWORD)
    monkeypatch.setenv("LAMINA_TEST_WRONG", "something else")
    login = {"username": USER, "password_env": "LAMINA_TEST_PASSWORD"}
    authority = Authority(tmp_path / "authority")
    folder = authority.issue(tmp_path / "broker", "127.0.0.1")
    broker = Mosquitto(folder, tls=True, password_file=await make_accounts(tmp_path / "accounts"))
    await broker.start()
    tls = {"ca_file": str(authority.ca_file)}
    try:
        async with running(parent(port=broker.port, tls=tls, **login)) as made:
            await until(made, connected=True)
        told = await told_by(port=broker.port, tls=tls, **(login | {"password_env": "LAMINA_TEST_WRONG"}))
        assert "uthori" in told
    finally:
        await broker.stop()
    assert "the password is not sent" in await told_by(host="192.0.2.1", **login)
    assert "LAMINA_TEST_UNSET" in await told_by(
        port=broker.port, tls=tls, username="x", password_env="LAMINA_TEST_UNSET"
    )

"""Stories of TLS between the MQTT driver and mosquitto: who is trusted, who is asked for a certificate, who returns."""

from __future__ import annotations

import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.profile import Profile
from config.site import MqttDevice
from config.vocabulary import LinkState, Quality, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.mqtt.driver import MqttDriver
from tests.drivers.field import Field
from tests.drivers.mqtt_field import MOSQUITTO, PASSWORD, USER, Charger, Mosquitto
from tests.drivers.test_mqtt import make_accounts, running
from tests.drivers.tls_field import Authority

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

PROFILE = Path("config/profiles/goe_charger.yaml")


class Grounds:
    """An authority with the broker's and our certificate, and another one with its own."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        self.stranger = Authority(folder / "stranger", "Another authority")
        self.broker = self.authority.issue(folder / "broker", "127.0.0.1")
        self.named = self.authority.issue(folder / "named", "broker.example")
        self.expired = self.authority.issue(folder / "expired", "127.0.0.1", valid=timedelta(days=-1))
        self.ours = self.authority.issue(folder / "ours", "lamina")
        self.false = self.stranger.issue(folder / "false", "lamina")

    def tls(self, pair: Path | None = None, **more: Any) -> dict[str, Any]:
        files = {} if pair is None else {"cert_file": str(pair / "cert.pem"), "key_file": str(pair / "key.pem")}
        return {"ca_file": str(self.authority.ca_file), **files, **more}

    def asks_for_certificates(self) -> list[str]:
        return [f"cafile {self.authority.ca_file}", "require_certificate true"]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Grounds:
    return Grounds(tmp_path_factory.mktemp("tls"))


@contextlib.asynccontextmanager
async def serving(broker: Mosquitto) -> AsyncIterator[Mosquitto]:
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def driver(field: Field, port: int, tls: dict[str, Any] | None, host: str = "127.0.0.1", **login: Any) -> MqttDriver:
    raw: dict[str, Any] = yaml.safe_load(PROFILE.read_text())
    raw["pace"] = {"timeout_s": 1, "silence_s": 2}
    address = MqttDevice.model_validate(
        {"driver": "mqtt", "host": host, "port": port, "parameters": {"serial": "000001"}, "tls": tls, **login}
    )
    binding = DeviceBinding("charger", Profile.model_validate(raw), address, 22_080.0)
    return MqttDriver("mqtt", [binding], field, time.monotonic, random.Random(1))


async def told_by(port: int, tls: dict[str, Any]) -> str:
    """Why a link is lost that never was up."""
    field = Field()
    async with running(driver(field, port, tls)):
        await field.until(lambda: len(field.links) > 1, within_s=10)
        assert field.links[1][0] is LinkState.LOST
    return field.links[1][1]


async def is_let_in(port: int, tls: dict[str, Any], **login: Any) -> None:
    field = Field()
    async with running(driver(field, port, tls, **login)):
        await field.until(lambda: len(field.links) > 1, within_s=10)
        assert field.links[1] == (LinkState.UP, "")


async def test_a_broker_is_verified_by_authority_validity_and_name(grounds: Grounds) -> None:
    async with serving(Mosquitto(grounds.broker, tls=True)) as broker:
        await is_let_in(broker.port, grounds.tls())
        wrong = grounds.tls() | {"ca_file": str(grounds.stranger.ca_file)}
        assert "its certificate is refused: unable to get local issuer certificate" in await told_by(broker.port, wrong)
        told = await told_by(broker.port, grounds.tls(server_name="broker.example"))
        assert "Hostname mismatch, certificate is not valid for 'broker.example'" in told
    async with serving(Mosquitto(grounds.named, tls=True)) as broker:
        assert "not valid for '127.0.0.1'" in await told_by(broker.port, grounds.tls())
        await is_let_in(broker.port, grounds.tls(server_name="broker.example"))
        await is_let_in(broker.port, grounds.tls(check_host=False))
        assert "refused" in await told_by(broker.port, wrong | {"check_host": False})
    async with serving(Mosquitto(grounds.expired, tls=True)) as broker:
        assert "certificate has expired" in await told_by(broker.port, grounds.tls())


async def test_a_broker_that_asks_for_a_certificate_gets_ours(grounds: Grounds) -> None:
    more = grounds.asks_for_certificates()
    async with serving(Mosquitto(grounds.broker, tls=True, more=more)) as broker:
        await is_let_in(broker.port, grounds.tls(grounds.ours))
        assert "it asks for a client certificate" in await told_by(broker.port, grounds.tls())
        assert "it refuses our certificate" in await told_by(broker.port, grounds.tls(grounds.false))


async def test_files_that_are_of_no_use_are_named(grounds: Grounds, tmp_path: Path) -> None:
    async with serving(Mosquitto(grounds.broker, tls=True)) as broker:
        absent = str(tmp_path / "absent.pem")
        assert f"ca_file {absent}: No such file" in await told_by(broker.port, grounds.tls() | {"ca_file": absent})
        other = grounds.tls(grounds.ours) | {"key_file": str(grounds.false / "key.pem")}
        assert "key values mismatch" in await told_by(broker.port, other)


async def test_a_plain_port_is_no_broker_with_tls(grounds: Grounds, tmp_path: Path) -> None:
    async with serving(Mosquitto(tmp_path)) as broker:
        assert "cannot connect" in await told_by(broker.port, grounds.tls())


async def test_a_password_goes_out_within_tls_alone(grounds: Grounds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_TEST_PASSWORD", PASSWORD)
    login = {"username": USER, "password_env": "LAMINA_TEST_PASSWORD"}
    accounts = await make_accounts(grounds.broker / "accounts")
    async with serving(Mosquitto(grounds.broker, tls=True, password_file=accounts)) as broker:
        await is_let_in(broker.port, grounds.tls(), **login)
    field = Field()
    async with running(driver(field, 1883, None, "192.0.2.1", **login)):
        await field.until(field.is_lost)
        assert field.links[-1][1] == "cannot connect: the password is not sent: the connection has no `tls`"


async def test_a_broker_with_tls_that_restarts_is_found_again_with_the_current_setpoint(grounds: Grounds) -> None:
    field = Field()
    broker = Mosquitto(grounds.broker, tls=True)
    async with serving(broker):
        link = driver(field, broker.port, grounds.tls())
        context = ssl.create_default_context(cafile=grounds.authority.ca_file)
        async with running(link):
            async with Charger(broker.port, tls_context=context).online():
                await field.until(lambda: field.sample("charger", "power_w").quality is Quality.GOOD)
                link.write(Setpoint("charger", 6_900.0, "test", time.monotonic() + 30, 1))
                await field.until(lambda: len(field.results) == 1)
            await broker.stop()
            await field.until(field.is_lost)
            link.write(Setpoint("charger", 8_280.0, "test", time.monotonic() + 30, 2))
            await broker.start()
            returned = time.monotonic()
            made = Charger(broker.port, tls_context=context)
            async with made.online():
                await field.until(lambda: field.links[-1][0] is LinkState.UP)
                assert time.monotonic() - returned < 2.0
                await field.until(lambda: field.results[-1].sequence == 2)
                assert field.results[-1].status in (WriteStatus.ACKNOWLEDGED, WriteStatus.INDETERMINATE)
            assert [value for key, value in made.commands if key == "amp"][:1] in ([], ["12"])

"""A secured OPC UA battery and certificates for both sides, for the tests of the driver and of the commands."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from config.profile import Profile
from config.site import OpcUaServer
from config.twin import DeviceTwin
from config.vocabulary import LinkState, Quality
from drivers.binding import DeviceBinding
from drivers.certificates import Certificate, CertificateRequest, load_certificate, make_certificate, trust, write_pair
from drivers.opcua.driver import OpcUaDriver
from sim_devices.models import BatteryModel
from sim_devices.opcua_battery import OpcUaBattery
from sim_devices.opcua_security import TwinSecurity
from tests.drivers.field import Field

SERVER_URI = "urn:twin:battery"
USER, PASSWORD = "operator", "kept out of every log"


@dataclass
class Pair:
    """A certificate and its key, as files and as bytes."""

    cert_file: Path
    key_file: Path

    @property
    def certificate(self) -> Certificate:
        return load_certificate(self.cert_file)


def made(folder: Path, name: str, uri: str, *, since: datetime | None = None, days: int = 30) -> Pair:
    """A new pair in a folder."""
    request = CertificateRequest(name, uri, ["localhost", "127.0.0.1"], days=days)
    certificate, key = make_certificate(request, since or datetime.now(UTC))
    pair = Pair(folder / f"{name}.der", folder / f"{name}.key")
    write_pair(pair.cert_file, pair.key_file, certificate, key)
    return pair


class SecuredSite:
    """A folder with the gateway's pair, a user's, the server's in the trust folder, and others that it is to refuse.

    Without `others`, the trust folder holds the server's alone. A key takes half a second to make.
    """

    def __init__(self, folder: Path, *, others: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.ours = made(folder, "gateway", "urn:test:lamina")
        self.server = made(folder, "twin", SERVER_URI)
        self.trust_dir = folder / "trusted"
        self.no_trust_dir = folder / "nobody"
        self.no_trust_dir.mkdir()
        for pair in (self.server, *((self.decoy, self.expired, self.early) if others else ())):
            trust(self.trust_dir, pair.certificate)

    @cached_property
    def stranger(self) -> Pair:
        return made(self._folder, "stranger", "urn:test:stranger")

    @cached_property
    def user(self) -> Pair:
        return made(self._folder, "user", "urn:test:user")

    @cached_property
    def decoy(self) -> Pair:
        return made(self._folder, "decoy", SERVER_URI)

    @cached_property
    def expired(self) -> Pair:
        return made(self._folder, "expired", SERVER_URI, since=datetime.now(UTC) - timedelta(days=40))

    @cached_property
    def early(self) -> Pair:
        return made(self._folder, "early", SERVER_URI, since=datetime.now(UTC) + timedelta(days=4))

    def twin(self) -> OpcUaBattery:
        """A battery that takes every kind of login, with every mode, from the gateway alone."""
        model = BatteryModel("battery", 30_000.0, DeviceTwin(soc=0.4), capacity_wh=60_000.0)
        security = TwinSecurity(
            SERVER_URI,
            self.server.certificate.der,
            self.server.key_file.read_bytes(),
            modes=("none", "sign", "sign_and_encrypt"),
            clients=frozenset({self.ours.certificate.der}),
            users={USER: PASSWORD},
            user_certificates=frozenset({self.user.certificate.der}),
        )
        return OpcUaBattery(model, time.monotonic, security=security)

    def address(self, url: str, login: dict[str, Any] | None = None, **security: Any) -> OpcUaServer:
        """The server's address, secured with the gateway's pair unless `security` says otherwise."""
        section = {
            "cert_file": str(self.ours.cert_file),
            "key_file": str(self.ours.key_file),
            "trust_dir": str(self.trust_dir),
        } | security
        return OpcUaServer.model_validate({"driver": "opcua", "url": url, "security": section, **(login or {})})


@contextmanager
def claims(twin: OpcUaBattery, **fields: Any) -> Iterator[None]:
    """The server says something else of itself in its endpoints meanwhile."""
    endpoints = twin._server.iserver.endpoints
    uri, certificate = fields.get("uri", SERVER_URI), fields.get("certificate")
    before = [(endpoint.ServerCertificate, endpoint.Server.ApplicationUri) for endpoint in endpoints]
    for endpoint in endpoints:
        endpoint.ServerCertificate = certificate or endpoint.ServerCertificate
        endpoint.Server.ApplicationUri = uri
    try:
        yield
    finally:
        for endpoint, (kept, said) in zip(endpoints, before, strict=True):
            endpoint.ServerCertificate, endpoint.Server.ApplicationUri = kept, said


def profile(timeout_s: float = 2.0) -> Profile:
    raw: dict[str, Any] = yaml.safe_load(Path("config/profiles/opcua_battery.yaml").read_text())
    raw["pace"] |= {"timeout_s": timeout_s, "slow_poll_s": 0.2, "publishing_interval_s": 0.05}
    return Profile.model_validate(raw)


@asynccontextmanager
async def running(field: Field, address: OpcUaServer, timeout_s: float = 2.0) -> AsyncIterator[OpcUaDriver]:
    binding = DeviceBinding("battery", profile(timeout_s), address, rating_w=30_000.0, reversion_s=10.0)
    driver = OpcUaDriver("opcua", [binding], field, time.monotonic, random.Random(1))
    task = asyncio.create_task(driver.run())
    try:
        yield driver
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told_by(address: OpcUaServer, timeout_s: float = 2.0) -> str:
    """Why a link is lost that never was up."""
    field = Field()
    async with running(field, address, timeout_s):
        await field.until(lambda: len(field.links) > 1)
        assert [state for state, _ in field.links] == [LinkState.CONNECTING, LinkState.LOST]
        assert all(sample.quality is Quality.BAD for sample in field.points.get("battery", {}).values())
    return field.links[-1][1]

"""Stories of certificates, encryption and logins, against the battery's twin with a secured server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from asyncua import ua

from config.site import OpcUaServer
from config.vocabulary import LinkState, Quality, Setpoint, WriteStatus
from drivers.inspection import InspectionFailed
from drivers.opcua import connection
from drivers.opcua.inspection import opcua_inspector
from sim_devices.opcua_battery import OpcUaBattery
from tests.drivers.field import Field, Wire
from tests.drivers.opcua_field import PASSWORD, SERVER_URI, USER, SecuredSite, claims, profile, running, told_by

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
BY_NAME = {"username": USER, "password_env": "LAMINA_TEST_PASSWORD"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SecuredSite:
    return SecuredSite(tmp_path_factory.mktemp("pki"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twin(site: SecuredSite) -> AsyncIterator[OpcUaBattery]:
    async with site.twin() as battery:
        yield battery


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_TEST_PASSWORD", PASSWORD)
    monkeypatch.setenv("LAMINA_TEST_WRONG", "something else")


async def works(address: OpcUaServer) -> None:
    """The battery is read and written."""
    field = Field()
    async with running(field, address) as driver:
        driver.write(Setpoint("battery", 5_000.0, "test", time.monotonic() + 10, 1))
        await field.until(lambda: field.sample("battery", "soc").value == pytest.approx(0.4))
        await field.until(lambda: bool(field.results))
        assert field.results[0].status is WriteStatus.ACKNOWLEDGED, field.results
        await field.until(lambda: field.sample("battery", "setpoint_readback_w").value == 5_000.0)
        assert field.links == [(LinkState.CONNECTING, ""), (LinkState.UP, "")]


@pytest.mark.parametrize("mode", ["sign", "sign_and_encrypt"])
@pytest.mark.parametrize("login", ["anonymous", "name", "certificate"])
@ONE_LOOP
async def test_every_login_over_every_secured_channel(
    site: SecuredSite, twin: OpcUaBattery, mode: str, login: str
) -> None:
    by_certificate = {"user_cert_file": str(site.user.cert_file), "user_key_file": str(site.user.key_file)}
    who = {"anonymous": {}, "name": BY_NAME, "certificate": by_certificate}[login]
    await works(site.address(twin.url, who, mode=mode))


@ONE_LOOP
async def test_what_is_signed_and_encrypted_shows_nothing_on_the_wire(site: SecuredSite, twin: OpcUaBattery) -> None:
    wire = _Tap(twin.port)
    await wire.start()
    try:
        await works(site.address(f"opc.tcp://127.0.0.1:{wire.port}/", BY_NAME))
        assert b"ActivePower" not in wire.seen
        assert PASSWORD.encode() not in wire.seen
        wire.seen.clear()
        await works(site.address(f"opc.tcp://127.0.0.1:{wire.port}/", BY_NAME, mode="sign"))
        assert b"ActivePower" in wire.seen
        assert PASSWORD.encode() not in wire.seen
    finally:
        await wire.stop()


class _Tap(Wire):
    """A relay that keeps what went by."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.seen = bytearray()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.seen += data
                writer.write(data)


@ONE_LOOP
async def test_a_server_that_is_not_trusted_is_refused(site: SecuredSite, twin: OpcUaBattery) -> None:
    told = await told_by(site.address(twin.url, trust_dir=str(site.no_trust_dir)))
    assert told.startswith("the server is refused: its certificate ")
    assert site.server.certificate.thumbprint in told
    assert f"is not in {site.no_trust_dir};" in told
    assert "No such file" in await told_by(site.address(twin.url, trust_dir=str(site.no_trust_dir / "absent")))


@ONE_LOOP
async def test_a_server_whose_certificate_is_not_valid_now_is_refused(site: SecuredSite, twin: OpcUaBattery) -> None:
    with claims(twin, certificate=site.expired.certificate.der):
        assert "expired on" in await told_by(site.address(twin.url))
    with claims(twin, certificate=site.early.certificate.der):
        assert "is not valid before" in await told_by(site.address(twin.url))


@ONE_LOOP
async def test_a_server_of_another_application_is_refused(site: SecuredSite, twin: OpcUaBattery) -> None:
    with claims(twin, uri="urn:another:server"):
        told = await told_by(site.address(twin.url))
        assert f"is of {SERVER_URI}, and the server says it is urn:another:server" in told
    told = await told_by(site.address(twin.url, server_uri="urn:the:right:one"))
    assert f"it is {SERVER_URI}, and urn:the:right:one is asked for" in told
    await works(site.address(twin.url, server_uri=SERVER_URI))


@ONE_LOOP
async def test_a_server_without_the_key_of_a_trusted_certificate_is_refused(
    site: SecuredSite, twin: OpcUaBattery
) -> None:
    """A stranger shows a certificate that is trusted; the channel needs its key."""
    with claims(twin, certificate=site.decoy.certificate.der):
        told = await told_by(site.address(twin.url), timeout_s=0.3)
        assert told.startswith("no secure channel")


@ONE_LOOP
async def test_a_policy_that_is_not_offered_is_told_with_those_that_are(site: SecuredSite, twin: OpcUaBattery) -> None:
    told = await told_by(site.address(twin.url, policy="Aes256_Sha256_RsaPss"))
    assert "does not offer Aes256_Sha256_RsaPss with sign_and_encrypt" in told
    assert "it offers Basic256Sha256 with sign, Basic256Sha256 with sign_and_encrypt" in told


@ONE_LOOP
async def test_a_server_that_does_not_trust_us_says_so(site: SecuredSite, twin: OpcUaBattery) -> None:
    pair = {"cert_file": str(site.stranger.cert_file), "key_file": str(site.stranger.key_file)}
    assert "(BadCertificateUntrusted)" in await told_by(site.address(twin.url, **pair))


@ONE_LOOP
async def test_a_login_that_is_refused_is_told(site: SecuredSite, twin: OpcUaBattery) -> None:
    wrong = BY_NAME | {"password_env": "LAMINA_TEST_WRONG"}
    assert "wrong user or password" in await told_by(site.address(twin.url, wrong))
    assert "LAMINA_TEST_UNSET is not set" in await told_by(
        site.address(twin.url, BY_NAME | {"password_env": "LAMINA_TEST_UNSET"})
    )
    twin._server.set_identity_tokens([ua.AnonymousIdentityToken])
    with no_login_but_anonymous(twin):
        assert "takes no login by name and password" in await told_by(site.address(twin.url, BY_NAME))


@contextlib.contextmanager
def no_login_but_anonymous(twin: OpcUaBattery) -> Iterator[None]:
    endpoints = twin._server.iserver.endpoints
    before = [endpoint.UserIdentityTokens for endpoint in endpoints]
    for endpoint in endpoints:
        endpoint.UserIdentityTokens = [
            token for token in endpoint.UserIdentityTokens if token.TokenType == ua.UserTokenType.Anonymous
        ]
    try:
        yield
    finally:
        twin._server.set_identity_tokens([ua.AnonymousIdentityToken, ua.UserNameIdentityToken, ua.X509IdentityToken])
        for endpoint, tokens in zip(endpoints, before, strict=True):
            endpoint.UserIdentityTokens = tokens


@ONE_LOOP
async def test_our_own_files_are_told_when_they_are_of_no_use(
    site: SecuredSite, twin: OpcUaBattery, tmp_path: Path
) -> None:
    absent = tmp_path / "absent.key"
    assert f"{absent}: No such file" in await told_by(site.address(twin.url, key_file=str(absent)))
    other = str(site.stranger.key_file)
    assert "is not the key of" in await told_by(site.address(twin.url, key_file=other))
    assert "holds no certificate" in await told_by(site.address(twin.url, cert_file=other))
    old = {"cert_file": str(site.expired.cert_file), "key_file": str(site.expired.key_file)}
    assert "our certificate" in await told_by(site.address(twin.url, **old))


@ONE_LOOP
async def test_a_password_is_not_sent_without_encryption(site: SecuredSite, twin: OpcUaBattery) -> None:
    plain = {"driver": "opcua", "url": twin.url, **BY_NAME}
    assert "the password is not sent" in await told_by(OpcUaServer.model_validate(plain))
    wire = _Tap(twin.port)
    await wire.start()
    try:
        url = f"opc.tcp://127.0.0.1:{wire.port}/"
        with asks_for_plain_passwords(twin):
            told = await told_by(site.address(url, BY_NAME, mode="sign"))
            assert told == "the password is not sent: the server asks for it unencrypted"
            assert PASSWORD.encode() not in wire.seen
            await works(OpcUaServer.model_validate(plain | {"url": url, "acknowledged_plain_password": True}))
            assert PASSWORD.encode() in wire.seen
    finally:
        await wire.stop()
    # Where the server offers to take it encrypted, it is, also over a plain connection.
    await works(OpcUaServer.model_validate(plain | {"acknowledged_plain_password": True}))


@contextlib.contextmanager
def asks_for_plain_passwords(twin: OpcUaBattery) -> Iterator[None]:
    tokens = [
        token
        for endpoint in twin._server.iserver.endpoints
        for token in endpoint.UserIdentityTokens
        if token.TokenType == ua.UserTokenType.UserName
    ]
    before = [token.SecurityPolicyUri for token in tokens]
    for token in tokens:
        token.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
    try:
        yield
    finally:
        for token, uri in zip(tokens, before, strict=True):
            token.SecurityPolicyUri = uri


@ONE_LOOP
async def test_no_secret_is_logged(site: SecuredSite, twin: OpcUaBattery, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        await works(site.address(twin.url, BY_NAME))
        await told_by(site.address(twin.url, BY_NAME | {"password_env": "LAMINA_TEST_WRONG"}))
    said = caplog.text + str(logs)
    assert "link up" in said
    assert not any(secret in said for secret in (PASSWORD, "something else", "PRIVATE KEY"))


@ONE_LOOP
async def test_the_channel_is_renewed_under_way(
    site: SecuredSite, twin: OpcUaBattery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_RENEW_AT", 0.5 / 3600)
    renewed = 0
    renew = connection.OpcUaConnection._sense

    async def counting(self: Any, call: Any, what: str) -> Any:
        nonlocal renewed
        result = await renew(self, call, what)
        renewed += what == "the channel was not renewed"
        field._told.set()
        return result

    monkeypatch.setattr(connection.OpcUaConnection, "_sense", counting)
    field = Field()
    async with running(field, site.address(twin.url)) as driver:
        await field.until(lambda: renewed >= 3, within_s=10)
        beat = field.sample("battery", "power_w").measured_s
        await field.until(lambda: field.sample("battery", "power_w").measured_s > beat)
        driver.write(Setpoint("battery", 1_000.0, "test", time.monotonic() + 5, 1))
        await field.until(lambda: bool(field.results))
        assert field.results[0].status is WriteStatus.ACKNOWLEDGED
        assert driver.stats.lost == 0


@ONE_LOOP
async def test_bytes_of_somebody_else_cost_one_secured_connection(site: SecuredSite, twin: OpcUaBattery) -> None:
    wire = Wire(twin.port)
    await wire.start()
    field = Field()
    try:
        async with running(field, site.address(f"opc.tcp://127.0.0.1:{wire.port}/")) as driver:
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
            noise = random.Random(3).randbytes(128)
            wire.inject(b"MSGF" + (8 + len(noise)).to_bytes(4, "little") + noise)
            await field.until(field.is_lost)
            await field.until(lambda: field.links[-1][0] is LinkState.UP)
            await field.until(lambda: field.sample("battery", "power_w").quality is Quality.GOOD)
            assert driver.stats.lost == 1
    finally:
        await wire.stop()


@ONE_LOOP
async def test_a_secured_battery_is_looked_at_by_hand(site: SecuredSite, twin: OpcUaBattery) -> None:
    async with opcua_inspector(profile(), site.address(twin.url, BY_NAME), time.monotonic) as inspector:
        assert (await inspector.read(["soc"]))["soc"].sample.value == pytest.approx(0.4)
    with pytest.raises(InspectionFailed, match="is not in"):
        async with opcua_inspector(profile(), site.address(twin.url, trust_dir=str(site.no_trust_dir)), time.monotonic):
            pass

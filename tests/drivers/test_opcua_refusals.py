"""What a technician is told when an OPC UA server can't be reached or refuses: what to do, and the status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.ua.ua_binary import uatcp_to_binary

from config.site import OpcUaServer
from sim_devices.opcua_battery import OpcUaBattery
from tests.drivers.field import free_port
from tests.drivers.opcua_field import PASSWORD, USER, SecuredSite, told_by

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
BY_NAME = {"username": USER, "password_env": "LAMINA_TEST_PASSWORD"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SecuredSite:
    return SecuredSite(tmp_path_factory.mktemp("pki"), others=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twin(site: SecuredSite) -> AsyncIterator[OpcUaBattery]:
    async with site.twin() as battery:
        yield battery


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_TEST_PASSWORD", PASSWORD)
    monkeypatch.setenv("LAMINA_TEST_WRONG", "something else")


def plain(url: str) -> OpcUaServer:
    return OpcUaServer.model_validate({"driver": "opcua", "url": url})


@contextlib.asynccontextmanager
async def answering(to_hello: bytes, to_channel: bytes = b"") -> AsyncIterator[str]:
    """A server that says these two things, and closes after the last."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (to_hello, to_channel):
            if not answer or not await reader.read(65536):
                break
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()


def error(status: int) -> bytes:
    return bytes(uatcp_to_binary(ua.MessageType.Error, ua.ErrorMessage(ua.StatusCode(status), "")))


def acknowledge() -> bytes:
    said = ua.Acknowledge()
    said.ReceiveBufferSize = said.SendBufferSize = 65536
    return bytes(uatcp_to_binary(ua.MessageType.Acknowledge, said))


@contextlib.contextmanager
def sessions_end_with(twin: OpcUaBattery, status: int) -> Iterator[None]:
    """The server answers every CreateSession with this."""

    async def refuse(_: Any, __: Any) -> None:
        raise ServiceError(status)

    internal = twin._server.iserver
    before, internal.certificate_validator = internal.certificate_validator, refuse
    try:
        yield
    finally:
        internal.certificate_validator = before


@ONE_LOOP
async def test_nothing_listens() -> None:
    port = free_port()
    told = await told_by(plain(f"opc.tcp://127.0.0.1:{port}/"))
    assert told.startswith("cannot connect: Connection refused: 127.0.0.1 is there, but nothing listens on port ")
    assert str(port) in told
    assert "Errno" not in await told_by(plain(f"opc.tcp://localhost:{port}/"))


@ONE_LOOP
@pytest.mark.parametrize("host", ["no-such-battery.invalid", f"{'a' * 64}.local"])
async def test_a_name_that_nobody_knows(host: str) -> None:
    told = await told_by(plain(f"opc.tcp://{host}:4840/"))
    assert told.startswith("cannot connect: ")
    assert host in told or "no answer within" in told
    assert "Errno" not in told
    assert "codec" not in told


@ONE_LOOP
@pytest.mark.parametrize(
    ("to_hello", "to_channel", "words"),
    [
        (error(ua.StatusCodes.BadTcpEndpointUrlInvalid), b"", "no hello: the server knows no endpoint opc.tcp://127"),
        (error(ua.StatusCodes.BadTcpNotEnoughResources), b"", "no hello: the server takes no more sessions"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", "no hello: "),
        (acknowledge(), error(ua.StatusCodes.BadSecurityPolicyRejected), "the server does not take a connection with"),
        (acknowledge(), b"", "the server closed the connection"),
    ],
)
async def test_a_server_that_ends_it_before_there_is_a_channel(to_hello: bytes, to_channel: bytes, words: str) -> None:
    async with answering(to_hello, to_channel) as url:
        told = await told_by(plain(url), timeout_s=0.5)
    assert words in told
    assert not any(leak in told for leak in ("Errno", "unpack", "0x", "Connection is closed", "Traceback"))


@ONE_LOOP
async def test_a_server_that_does_not_trust_our_certificate_at_the_channel(
    site: SecuredSite, twin: OpcUaBattery
) -> None:
    """Most servers refuse the channel itself, by a code that hides the reason, or without any word."""
    ours = str(site.ours.cert_file)
    for said, words in (
        (error(ua.StatusCodes.BadSecurityChecksFailed), "mostly it does not trust our certificate: trust"),
        (error(ua.StatusCodes.BadCertificateUntrusted), "the server does not trust our certificate: trust"),
        (b"", "the server closed the connection; where it does not trust our certificate: trust"),
    ):
        async with refusing_channels(twin, said) as url:
            told = await told_by(site.address(url), timeout_s=1.0)
        assert told.startswith("no secure channel: ")
        assert f"{words} {ours} there" in told


@contextlib.asynccontextmanager
async def refusing_channels(twin: OpcUaBattery, said: bytes) -> AsyncIterator[str]:
    """The twin, but for channels with security, which are answered with `said` and closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", twin.port)
        with contextlib.suppress(OSError):
            for _ in range(8):
                asked = await reader.read(65536)
                if not asked or (asked.startswith(b"OPN") and b"Basic256Sha256" in asked):
                    writer.write(said)
                    break
                there.write(asked)
                writer.write(await back.read(65536))
        for end in (writer, there):
            end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()


@ONE_LOOP
async def test_a_server_that_does_not_trust_our_certificate_at_the_session(
    site: SecuredSite, twin: OpcUaBattery
) -> None:
    pair = {"cert_file": str(site.stranger.cert_file), "key_file": str(site.stranger.key_file)}
    assert await told_by(site.address(twin.url, **pair)) == (
        f"no session: the server does not trust our certificate: trust {site.stranger.cert_file} there, often "
        "by moving it out of the server's list of rejected ones (BadCertificateUntrusted)"
    )


@ONE_LOOP
async def test_a_server_that_we_do_not_trust(site: SecuredSite, twin: OpcUaBattery) -> None:
    told = await told_by(site.address(twin.url, trust_dir=str(site.no_trust_dir)))
    assert told.endswith("compare it, then put it there by `gateway certificate trust`")


@ONE_LOOP
async def test_a_server_that_is_full(site: SecuredSite, twin: OpcUaBattery) -> None:
    with sessions_end_with(twin, ua.StatusCodes.BadTooManySessions):
        told = await told_by(site.address(twin.url))
    assert told.startswith("no session: the server takes no more sessions: others are connected")
    assert told.endswith("(BadTooManySessions)")


@ONE_LOOP
async def test_a_login_that_is_refused(site: SecuredSite, twin: OpcUaBattery) -> None:
    wrong = BY_NAME | {"password_env": "LAMINA_TEST_WRONG"}
    assert await told_by(site.address(twin.url, wrong)) == (
        "login refused: wrong user or password (BadUserAccessDenied)"
    )
    stranger = {"user_cert_file": str(site.stranger.cert_file), "user_key_file": str(site.stranger.key_file)}
    with nobody_logs_in(twin):
        told = await told_by(site.address(twin.url, stranger))
        assert f"does not let the holder of {site.stranger.cert_file} in" in told
        assert "lets nobody in without a login" in await told_by(site.address(twin.url))


@contextlib.contextmanager
def nobody_logs_in(twin: OpcUaBattery) -> Iterator[None]:
    class Nobody:
        def get_user(self, *_: Any, **__: Any) -> None:
            return None

    internal = twin._server.iserver
    before, internal.user_manager = internal.user_manager, Nobody()
    try:
        yield
    finally:
        internal.user_manager = before

"""Real brokers and a go-e charger of few words, for the tests of the MQTT driver."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import aiomqtt
from amqtt.broker import Broker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drivers.cancellation import ended, heeded
from tests.drivers.field import free_port

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
USER, PASSWORD = "lamina", "a good password"


class TestBroker(Protocol):
    """A broker that can be stopped at once and started again on the same port."""

    __test__ = False
    port: int

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Amqtt:
    """amqtt, in this process. It can do TLS; its accounts are left aside."""

    def __init__(self, folder: Path, tls: bool = False) -> None:
        self.port = free_port()
        listener: dict[str, Any] = {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}
        if tls:
            listener |= {"ssl": True, "certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem")}
        plugins: dict[str, Any] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        self._config = {"listeners": {"default": listener}, "plugins": plugins}
        self._broker: Broker | None = None

    async def start(self) -> None:
        self._broker = broker = Broker(self._config)
        serve = broker.stream_connected

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
            try:
                await serve(reader, writer, listener_name=listener_name)
            finally:
                # It can leave a client connected that came or went just before its shutdown.
                writer.transport.abort()

        broker.stream_connected = connected
        await broker.start()

    async def stop(self) -> None:
        if self._broker is not None:
            broker, self._broker = self._broker, None
            await broker.shutdown()
            await asyncio.sleep(0)


class Mosquitto:
    """mosquitto, as a process that is killed when it is to stop."""

    def __init__(
        self, folder: Path, tls: bool = False, password_file: Path | None = None, more: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "log_dest stderr", "log_type all"]
        lines.append("set_tcp_nodelay true")
        lines.append("allow_anonymous true" if password_file is None else f"password_file {password_file}")
        if tls:
            lines += [f"certfile {folder / 'cert.pem'}", f"keyfile {folder / 'key.pem'}"]
        # As root, mosquitto would become a user who may not read the test's own folder.
        lines.append("user root")
        lines += more
        self._file = folder / "mosquitto.conf"
        self._file.write_text("\n".join(lines) + "\n")
        self._process: asyncio.subprocess.Process | None = None
        self._draining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        assert MOSQUITTO is not None
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(MOSQUITTO, "-c", str(self._file), stderr=pipe)
        assert self._process.stderr is not None
        said = b""
        async with asyncio.timeout(5):
            while line := await self._process.stderr.readline():
                said += line
                if b" running" in line:
                    self._draining = asyncio.create_task(self._drain(self._process.stderr))
                    return
        raise AssertionError(said.decode())

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        while await stream.readline():
            pass

    async def stop(self) -> None:
        if self._process is not None and self._draining is not None:
            process, self._process = self._process, None
            process.kill()
            await process.wait()
            await self._draining


BROKERS: dict[str, Callable[..., TestBroker]] = {"amqtt": Amqtt}
if MOSQUITTO is not None:
    BROKERS["mosquitto"] = Mosquitto


class Charger:
    """What a go-e charger does on a broker: keys as retained JSON, a beating rbt, answers to what is set."""

    def __init__(self, port: int, serial: str = "000001", **connection: Any) -> None:
        self.prefix = f"go-eCharger/{serial}/"
        self.commands: list[tuple[str, str]] = []
        self.answers: dict[str, str | None] = {}
        self.commanded = asyncio.Event()
        self.keys: dict[str, Any] = {
            "nrg": [230, 231, 229, 0, 16, 15.9, 16.1, 3680, 3670, 3690, 0, 11040, 100, 100, 100, 100],
            "car": 2,
            "wh": 1234.5,
            "eto": 987654,
            "alw": True,
            "amp": 16,
            "frc": 0,
            "fwv": "060.4",
        }
        self._connection = {"hostname": "127.0.0.1", "port": port, "timeout": 5, **connection}
        self._connection["socket_options"] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        self._session = 0
        self._client: aiomqtt.Client | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.rbt = 498_429_772

    @contextlib.asynccontextmanager
    async def online(self, beating: bool = True) -> AsyncIterator[Charger]:
        will = aiomqtt.Will(self.prefix + "mcc", "false", qos=1, retain=True)
        self._session += 1
        identifier = f"{self.prefix.replace('/', '-')}{self._session}"
        async with aiomqtt.Client(**self._connection, identifier=identifier, will=will) as self._client:
            await self._client.subscribe([(self.prefix + f"{key}/set", 1) for key in ("amp", "frc")])
            await self.put("mcc", True)
            for key, value in self.keys.items():
                await self.put(key, value)
            self._tasks = [asyncio.create_task(self._answering())]
            if beating:
                self.beat()
            try:
                yield self
            finally:
                await self.freeze()
                await ended(self._tasks)

    async def put(self, key: str, value: Any, retain: bool = True) -> None:
        await self.say(key, json.dumps(value), retain)

    async def say(self, key: str, payload: str | bytes, retain: bool = True) -> None:
        assert self._client is not None
        await heeded(self._client.publish(self.prefix + key, payload, qos=1, retain=retain))

    async def repeat(self, key: str, value: Any) -> None:
        """Send the same again and again, as somebody does who has recorded it."""
        while True:
            await self.put(key, value)
            await asyncio.sleep(0.05)

    def beat(self) -> None:
        self._beating = asyncio.create_task(self._beat())

    async def freeze(self) -> None:
        """It falls silent, with its connection open."""
        beating: asyncio.Task[None] | None = getattr(self, "_beating", None)
        if beating is not None:
            await ended([beating])

    async def _beat(self) -> None:
        while True:
            self.rbt += 50
            await self.put("rbt", self.rbt)
            await asyncio.sleep(0.05)

    async def _answering(self) -> None:
        assert self._client is not None
        async for message in self._client.messages:
            if not message.topic.value.endswith("/set"):
                continue  # amqtt sends every newcomer what others have subscribed to
            key = message.topic.value.removeprefix(self.prefix).removesuffix("/set")
            payload = bytes(message.payload).decode()
            self.commands.append((key, payload))
            self.commanded.set()
            answer = self.answers.get(key, "success")
            if answer is not None:
                await self.say(f"{key}/result", answer, retain=False)
            if answer == "success":
                await self.say(key, payload)


def make_certificate(folder: Path) -> ssl.SSLContext:
    """Write a certificate for 127.0.0.1 to a new folder; returns a client's context that trusts it."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))

"""The DSO twin as a process of its own: exit codes, signals, and the broker's TLS and passwords."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from sim_devices.dso.process import main

BAD_ORDER = {
    "phases": [{"name": "all", "start": 0.0}],
    "orders": [
        {"name": "bad", "at": 0.1, "expect": "rejected", "limit": {"quantity": "net_export_w", "value": -1.0}},
        {"name": "good", "at": 0.2, "limit": {"quantity": "net_export_w", "value": "unlimited"}},
    ],
}


def command(port: int, log: Path, *more: str, host: str = "127.0.0.1") -> list[str]:
    fixed = ["--layer", "demo", "--duration", "30", "--rating-w", "100000", "--heartbeat-timeout", "3"]
    return [sys.executable, "-m", "sim_devices.dso", "--broker", f"{host}:{port}", *fixed, "--log", str(log), *more]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, stderr=pipe)


async def ready(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(10):
        line: dict[str, Any] = json.loads(await process.stdout.readline())
    return line


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Exit code and what was written to stderr; the pipe to stdin is closed."""
    try:
        async with asyncio.timeout(10):
            _, errors = await process.communicate(b"")
    except TimeoutError:
        process.kill()
        await process.communicate(b"")
        raise
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds that no event tells."""
    deadline_s = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s
        await asyncio.sleep(0.02)


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


async def test_the_shipped_script_ends_with_0(dso_broker: Any, layer_at: Any, tmp_path: Path) -> None:
    log = tmp_path / "run" / "dso.jsonl"
    async with layer_at(dso_broker.port, 3.0 / 15):
        process = await start(*command(dso_broker.port, log, "--start-after-ready", "--speed", "15"))
        assert (await ready(process))["ready"] is True
        assert await finish(process) == (0, "")
    events = {line["event"] for line in lines(log)}
    assert events == {"connection", "phase", "sent", "received", "check", "done"}
    assert lines(log)[-1]["failed"] == []


async def test_a_layer_that_accepts_a_bad_order_ends_it_with_1(dso_broker: Any, layer_at: Any, tmp_path: Path) -> None:
    log, script = tmp_path / "dso.jsonl", tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump(BAD_ORDER))
    async with layer_at(dso_broker.port, 3.0, "gullible"):
        process = await start(*command(dso_broker.port, log, "--speed", "60", "--script", str(script)))
        assert await finish(process) == (1, "")
    assert lines(log)[-1]["failed"] == ["acknowledged:bad"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "eof", "eof while no broker is there"])
async def test_it_stops_cleanly_when_told(how: Any, dso_broker: Any, broker_process: Any, tmp_path: Path) -> None:
    log, port = tmp_path / "dso.jsonl", dso_broker.port
    if how == "eof while no broker is there":
        gone = await asyncio.to_thread(broker_process)
        await asyncio.to_thread(gone.kill)
        port = gone.port
    process = await start(*command(port, log, "--until-eof"))
    if port == dso_broker.port:
        await ready(process)
    if isinstance(how, signal.Signals):
        process.send_signal(how)
        await process.wait()
    assert await finish(process) == (0, "")
    assert lines(log)[-1] | {"monotonic_s": 0} == {
        "event": "done",
        "monotonic_s": 0,
        "stopped": True,
        "passed": 0,
        "failed": [],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "20"], "duration 20 s: a script needs at least 30 s"),
        (["--heartbeat-timeout", "60"], "the duration must be at least 359 s"),
        (["--script", "missing.yaml"], "missing.yaml"),
        (["--broker", "localhost"], "is not HOST:PORT"),
        (["--rating-w", "-1"], "is not above 0"),
        (["--tls-ca", "missing.pem"], "TLS: "),
        (["--tls-cert", "own.pem"], "needs --tls-ca"),
        (["--username", "dso", "--password-env", "LAMINA_TEST_NO_SUCH"], "no variable LAMINA_TEST_NO_SUCH"),
        (["--log", "/proc/none/dso.jsonl"], "--log /proc/none/dso.jsonl"),
    ],
)
def test_bad_input_ends_with_2_and_one_clear_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(command(1, tmp_path / "dso.jsonl", *arguments)[3:])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    output = capsys.readouterr()
    assert (code, output.out) == (2, "")
    assert said in output.err.splitlines()[-1]


SECURED_BROKER = """
import asyncio, json, logging, sys
from amqtt.broker import Broker
logging.disable(logging.CRITICAL)
async def serve(certificate, key, passwords):
    listener = {"type": "tcp", "bind": "127.0.0.1:0", "ssl": True, "certfile": certificate, "keyfile": key}
    login = {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": passwords}}
    broker = Broker({"listeners": {"default": listener}, "plugins": login})
    await broker.start()
    print(broker._servers["default"].instance.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await broker.shutdown()
asyncio.run(serve(*sys.argv[1:]))
"""


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(today - timedelta(1)).not_valid_after(today + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(pem, pkcs8, plain))
    return certificate_file, key_file


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A broker with TLS that knows the user dso with the password secret: its port and its certificate."""
    certificate, key = make_certificate(tmp_path)
    passwords = tmp_path / "passwords"
    passwords.write_text(
        f"dso:{PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),)).hash('secret')}\n"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", SECURED_BROKER, str(certificate), str(key), str(passwords)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield int(process.stdout.readline()), certificate
    process.communicate(timeout=10)


@pytest.mark.parametrize("password", ["secret", "wrong"])
async def test_tls_and_a_password_open_the_broker(
    password: str, secured: tuple[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, certificate = secured
    log = tmp_path / "dso.jsonl"
    monkeypatch.setitem(os.environ, "DSO_PASSWORD", password)
    login = ["--username", "dso", "--password-env", "DSO_PASSWORD", "--tls-ca", str(certificate)]
    process = await start(*command(port, log, *login, "--until-eof", host="localhost"))
    if password == "secret":
        assert (await ready(process))["ready"] is True
    else:
        # A refused login is no reason to end: the process goes on trying until it is told to stop.
        await until(lambda: log.exists() and '"away"' in log.read_text())
    assert await finish(process) == (0, "")
    assert password not in log.read_text()

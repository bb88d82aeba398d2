"""The DSO twin as a process: `python -m sim_devices.dso --broker HOST:PORT --layer NAME ...`.

Exit codes: 0 done or stopped, 1 a check failed, 2 bad input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from config.site import MqttBroker, Tls
from sim_devices.dso.link import BrokerSettingsError
from sim_devices.dso.log import JsonLines
from sim_devices.dso.script import ScriptError, check_timing, load_script
from sim_devices.dso.twin import DsoSettings, DsoTwin
from sim_devices.until import end_of_process


def main(argv: Sequence[str]) -> int:
    """Run the twin until its script ends, SIGTERM or SIGINT comes, or stdin ends with --until-eof."""
    options = _parser().parse_args(argv)
    beside = None if options.script is None else options.script.parent
    try:
        script = load_script(options.script)
        settings = _settings(options)
        check_timing(script, settings.duration_s, settings.heartbeat_timeout_s)
        with _open_log(options.log) as file:
            log = JsonLines(file)
            twin = DsoTwin(settings, script, log, beside=beside, on_connected=_announce_once(settings))
            return _play(twin, log, until_eof=options.until_eof)
    except (ScriptError, BrokerSettingsError) as error:
        sys.stderr.write(f"dso: {error}\n")
        return 2


def _open_log(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise ScriptError(f"--log {path}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim_devices.dso", description="Plays a DSO's orders over MQTT.")
    parser.add_argument("--broker", required=True, type=_host_and_port, metavar="HOST:PORT")
    parser.add_argument("--layer", required=True)
    parser.add_argument("--source", default="dso")
    parser.add_argument("--duration", required=True, type=_positive, metavar="S")
    parser.add_argument("--rating-w", required=True, type=_positive, metavar="W")
    parser.add_argument("--heartbeat-timeout", required=True, type=_positive, metavar="S")
    parser.add_argument("--log", required=True, type=Path, metavar="FILE")
    parser.add_argument("--script", type=Path, metavar="FILE", help="default: the shipped demo")
    parser.add_argument("--epoch", type=int, default=1, help="of the authority the twin takes at the start")
    parser.add_argument("--until-eof", action="store_true", help="stop when stdin ends")
    parser.add_argument("--start-after-ready", action="store_true", help="wait for the layer's first life sign")
    parser.add_argument("--speed", type=_positive, default=1.0, help="seconds of the script in one second")
    parser.add_argument("--username")
    parser.add_argument("--password-env", metavar="NAME", help="environment variable that holds the password")
    parser.add_argument("--tls-ca", metavar="FILE", help="PEM; switches TLS on")
    parser.add_argument("--tls-cert", metavar="FILE")
    parser.add_argument("--tls-key", metavar="FILE")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _settings(options: argparse.Namespace) -> DsoSettings:
    host, port = options.broker
    if options.tls_ca is None and (options.tls_cert or options.tls_key):
        raise BrokerSettingsError("TLS: a certificate of our own needs --tls-ca as well")
    try:
        tls = None
        if options.tls_ca is not None:
            tls = Tls(ca_file=options.tls_ca, cert_file=options.tls_cert, key_file=options.tls_key)
        broker = MqttBroker(host=host, port=port, username=options.username, password_env=options.password_env, tls=tls)
    except ValidationError as error:
        raise BrokerSettingsError(
            "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        ) from error
    return DsoSettings(
        broker=broker,
        layer=options.layer,
        source=options.source,
        duration_s=options.duration,
        rating_w=options.rating_w,
        heartbeat_timeout_s=options.heartbeat_timeout,
        epoch=options.epoch,
        start_after_ready=options.start_after_ready,
        speed=options.speed,
    )


def _play(twin: DsoTwin, log: JsonLines, *, until_eof: bool) -> int:
    stopped = asyncio.run(_until_stopped(twin, until_eof=until_eof))
    log.write("done", {"stopped": stopped, "passed": twin.checks.passed, "failed": twin.checks.failed})
    return 1 if twin.checks.failed else 0


async def _until_stopped(twin: DsoTwin, *, until_eof: bool) -> bool:
    """Run the twin; whether it was stopped before its script ended."""
    stop = end_of_process(until_eof=until_eof)
    await twin.run(stop)
    return stop.is_set()


def _announce_once(settings: DsoSettings) -> Callable[[], None]:
    announced = False

    def announce() -> None:
        nonlocal announced
        if announced:
            return
        announced = True
        broker = f"{settings.broker.host}:{settings.broker.port}"
        ready = {"ready": True, "role": "dso", "source": settings.source, "broker": broker, "pid": os.getpid()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()

    return announce

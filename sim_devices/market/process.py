"""A market twin as a process: `python -m sim_devices.market --broker HOST:PORT --child NAME:IMPORT_W:EXPORT_W ...`.

Over MQTT on the real topics it takes authority over its children, hears their offers and telemetry, clears at each gate
and dispatches. With --parent it is itself a layer below another market. Exit codes: 0 done or stopped, 2 bad input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from config.site import MqttBroker
from sim_devices.dso.link import BrokerSettingsError
from sim_devices.dso.log import JsonLines
from sim_devices.market.settings import Interface, MarketSettings, SupplyCurve, constant_price
from sim_devices.market.twin import MarketTwin, Upward
from sim_devices.until import end_of_process

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


def main(argv: Sequence[str]) -> int:
    """Run until the duration is over, SIGTERM or SIGINT comes, or stdin ends with --until-eof."""
    options = _parser().parse_args(argv)
    try:
        settings = _settings(options)
        host, port = options.broker
        broker = MqttBroker(host=host, port=port, username=options.username, password_env=options.password_env)
        upward = None
        if options.parent is not None:
            upward = Upward(options.layer or settings.source, options.parent, options.rating_w)
        options.log.parent.mkdir(parents=True, exist_ok=True)
        with options.log.open("w", encoding="utf-8") as file:
            log = JsonLines(file)
            twin = MarketTwin(settings, _supply(options), broker, log, upward=upward, signal_s=options.signal_s)
            asyncio.run(_play(twin, options))
            log.write("done", {"rounds": twin.rounds, "refused": dict(twin.market.book.refused)})
    except (BrokerSettingsError, ValidationError, ValueError) as error:
        sys.stderr.write(f"market: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"market: --log {options.log}: {error.strerror or error}\n")
        return 2
    return 0


async def _play(twin: MarketTwin, options: argparse.Namespace) -> None:
    stop = end_of_process(until_eof=options.until_eof)
    announced = asyncio.create_task(_announce(twin, options), name="market ready")
    try:
        async with asyncio.timeout(options.duration):
            await twin.run(stop)
    except TimeoutError:
        pass
    finally:
        announced.cancel()
        await asyncio.wait((announced,))


async def _announce(twin: MarketTwin, options: argparse.Namespace) -> None:
    await twin.connected.wait()
    broker = ":".join(map(str, options.broker))
    ready = {"ready": True, "role": "market", "source": options.source, "broker": broker, "pid": os.getpid()}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


def _settings(options: argparse.Namespace) -> MarketSettings:
    children = dict(options.child)
    if len(children) < len(options.child):
        raise ValueError("--child: a name stands twice")
    return MarketSettings(
        options.source,
        children,
        options.interval,
        options.gate,
        options.epoch,
        options.regulation_up_w,
        options.regulation_down_w,
    )


def _supply(options: argparse.Namespace) -> SupplyCurve:
    if options.supply:
        points = tuple(options.supply)
        if list(points) != sorted(points) or list(points) != sorted(points, key=lambda point: point[1]):
            raise ValueError("--supply: prices and powers must not fall")
        return SupplyCurve(points)
    return constant_price(options.price, options.import_limit_w, options.export_limit_w)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim_devices.market", description="A market above several layers.")
    parser.add_argument("--broker", required=True, type=_host_and_port, metavar="HOST:PORT")
    parser.add_argument("--source", default="dso", type=_name, help="its name in topics")
    parser.add_argument("--child", action="append", required=True, type=_child, metavar="NAME:IMPORT_W:EXPORT_W")
    parser.add_argument("--price", type=_number, default=0.25, help="of the outside, per kWh")
    parser.add_argument("--import-limit-w", type=_positive, default=1e9)
    parser.add_argument("--export-limit-w", type=_positive, default=1e9)
    parser.add_argument(
        "--supply", action="append", type=_supply_point, metavar="PRICE:POWER_W", help="instead of --price"
    )
    parser.add_argument("--interval", type=_positive, default=300.0, metavar="S")
    parser.add_argument("--gate", type=_positive, default=60.0, metavar="S", help="closes this long before an interval")
    parser.add_argument("--regulation-up-w", type=_magnitude, default=0.0)
    parser.add_argument("--regulation-down-w", type=_magnitude, default=0.0)
    parser.add_argument("--signal-s", type=_positive, default=4.0, help="a regulation signal this often")
    parser.add_argument("--epoch", type=int, default=1)
    parser.add_argument("--parent", type=_name, help="the market above")
    parser.add_argument("--layer", type=_name, help="its own name as a layer; default: --source")
    parser.add_argument("--rating-w", type=_positive, default=100_000.0, help="of its interface to the market above")
    parser.add_argument("--duration", type=_positive, metavar="S")
    parser.add_argument("--log", required=True, type=Path, metavar="FILE")
    parser.add_argument("--until-eof", action="store_true", help="stop when stdin ends")
    parser.add_argument("--username")
    parser.add_argument("--password-env", metavar="NAME", help="environment variable that holds the password")
    return parser


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return value


def _magnitude(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a name of a-z, 0-9 and _, a letter first")
    return text


def _child(text: str) -> tuple[str, Interface]:
    name, _, limits = text.partition(":")
    import_w, _, export_w = limits.partition(":")
    return _name(name), Interface(_magnitude(import_w), _magnitude(export_w))


def _supply_point(text: str) -> tuple[float, float]:
    price, _, power_w = text.partition(":")
    return _number(price), _number(power_w)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)

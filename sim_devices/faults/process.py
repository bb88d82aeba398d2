"""The fault proxy's own process: one proxy, its control port, and one line that says where they are."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sim_devices.faults.board import FaultBoard, Placed
from sim_devices.faults.control import FaultControl
from sim_devices.faults.fault import FaultError, Target
from sim_devices.faults.mqtt_speech import MqttUnderstanding
from sim_devices.faults.registry import FAULTS, MODBUS_RTU, MODBUS_RTU_TCP, MODBUS_TCP, MQTT, OPCUA, PARENT
from sim_devices.faults.serial_proxy import SerialFaultProxy
from sim_devices.faults.tcp_proxy import TcpFaultProxy
from sim_devices.until import end_of_process

PROTOCOLS: Final = (MODBUS_TCP, MODBUS_RTU_TCP, MODBUS_RTU, OPCUA, MQTT)
NAME: Final = "device"
"""The one device that it knows of."""


class _Mistake(Exception):  # noqa: N818 - of the user
    """Something that the user can mend."""


async def _run(options: argparse.Namespace) -> None:
    until = end_of_process(until_eof=options.until_eof)
    try:
        proxy = await _proxy(options)
    except (OSError, ValueError) as error:
        raise _Mistake(f"{options.listen} to {options.target}: {_reason(error)}") from error
    try:
        protocols = (MQTT, PARENT) if options.protocol == MQTT else (options.protocol,)
        target = Target(protocols, NAME, understood=proxy.faults.understood)
        board = FaultBoard({NAME: Placed(target, proxy)})
        for fault in options.fault:
            board.set(NAME, fault.pop("fault", None), fault)
        control = FaultControl(board)
        try:
            await control.start(options.control)
        except OSError as error:
            raise _Mistake(f"control port {options.control}: {_reason(error)}") from error
        try:
            _announce({"endpoint": proxy.endpoint, "control": {"host": control.host, "port": control.port}})
            await until.wait()
        finally:
            await control.close()
    except FaultError as error:
        raise _Mistake(str(error)) from error
    finally:
        await proxy.close()


async def _proxy(options: argparse.Namespace) -> TcpFaultProxy | SerialFaultProxy:
    if options.protocol == MODBUS_RTU:
        return SerialFaultProxy(
            options.target, Path(options.listen), baud=options.baud, parity=options.parity, seed=options.seed
        )
    host, port = _host_and_port(options.listen if ":" in options.listen else f"127.0.0.1:{options.listen}")
    understanding = MqttUnderstanding() if options.protocol == MQTT else None
    proxy = TcpFaultProxy(
        _host_and_port(options.target), protocol=options.protocol, seed=options.seed, understanding=understanding
    )
    await proxy.listen(host, port)
    return proxy


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _announce(line: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(line | {"pid": os.getpid()}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise _Mistake("nobody reads where the proxy is: standard output is closed") from None


def _fault(text: str) -> dict[str, Any]:
    try:
        fault = json.loads(text) if text.lstrip().startswith("{") else {"fault": text}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fault's name nor JSON: {error}") from error
    return dict(fault)


def _reason(error: OSError | ValueError) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sim_devices.faults", description=__doc__, epilog=f"faults: {', '.join(FAULTS)}"
    )
    parser.add_argument("--listen", default="0", help="[HOST:]PORT, 0 for a free one; serial: the link to make")
    parser.add_argument("--target", required=True, help="HOST:PORT of the device; serial: its line")
    parser.add_argument("--protocol", choices=PROTOCOLS, default=MODBUS_TCP)
    parser.add_argument("--baud", type=int, help="speed of a real serial line")
    parser.add_argument("--parity", choices=("none", "even", "odd"), default="even")
    parser.add_argument("--control", type=int, default=0, metavar="PORT", help="control port; default a free one")
    parser.add_argument("--fault", type=_fault, action="append", default=[], help="a name, or JSON with its options")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one fault proxy as this process; returns the exit code: 0 ended as told, 2 bad input."""
    options = _options(argv)
    try:
        asyncio.run(_run(options))
    except _Mistake as mistake:
        sys.stderr.write(f"{mistake}\n")
        return 2
    return 0

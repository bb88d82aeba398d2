"""The twins' own process: physics in real time, the servers on top of it, and one line that says where they are."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import uvloop

from config.findings import ConfigError
from config.loading import load_profiles, load_site
from config.site import Site
from config.vocabulary import Clock, DeviceKind
from sim_devices.control_port import ControlPort
from sim_devices.endpoints import Endpoints, Ports, TwinError, twin_kinds
from sim_devices.network_model import NetworkError
from sim_devices.pace import RealTimePace
from sim_devices.physics import SitePhysics
from sim_devices.recording import RecordingError, load_recording
from sim_devices.replay_process import run_replay
from sim_devices.series import SeriesError
from sim_devices.trace import Trace
from sim_devices.until import end_of_process, ended

NICENESS: Final = 5
"""Twins give way to control: on a small machine both share its cores."""


async def run_twins(
    site: Site,
    names: Sequence[str] | None,
    *,
    until: asyncio.Event,
    ports: Ports = "free",
    mqtt: tuple[str, int] | None = None,
    trace: Path | None = None,
    real: Iterable[str] = (),
    started: Callable[[dict[str, Any]], None] = lambda _: None,
    clock: Clock = time.monotonic,
) -> None:
    """Run the twins of the named devices (None: all) until `until` is set.

    `real`: devices whose power is told through the control port. `started` is called once, when everything listens,
    with `{"endpoints": {device: address}, "control": {"host", "port"}, "pid"}`. Raises TwinError for what the user can
    mend.
    """
    kinds = twin_kinds(site, names)
    try:
        physics = SitePhysics(site, kinds, real=real, start_s=clock())
    except (NetworkError, SeriesError) as error:
        raise TwinError(f"simulation: {error}") from error
    async with AsyncExitStack() as stack:
        recorder = _recorder(trace, physics)
        if recorder is not None:
            stack.callback(recorder.close)
        endpoints = await stack.enter_async_context(Endpoints(site, physics, clock, ports=ports, mqtt=mqtt))
        # Starting the servers took time that nobody could see: the simulation begins now.
        physics.now_s = clock()
        pace = RealTimePace(physics, clock, recorder.add if recorder is not None else None)
        control = await stack.enter_async_context(
            ControlPort(physics, clock, lambda: pace.lost_steps, endpoints.counts)
        )
        started(
            {
                "endpoints": endpoints.addresses,
                "control": {"host": control.host, "port": control.port},
                "pid": os.getpid(),
            }
        )
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(pace.run(), name="physics"), *endpoints.run_clients(tasks)]
            await until.wait()
            await ended(*running)
    if recorder is not None and recorder.error is not None:
        raise TwinError(f"trace: {trace}: {recorder.error.strerror}")


def _recorder(path: Path | None, physics: SitePhysics) -> Trace | None:
    try:
        return None if path is None else Trace(path, physics)
    except OSError as error:
        raise TwinError(f"trace: {path}: {error.strerror}") from error


def real_devices(site: Site, site_path: Path, twins: Iterable[str]) -> tuple[str, ...]:
    """The devices that are no twins and add to the power at the bus: all but meters. Raises ConfigError."""
    profiles = load_profiles(site, site_path)
    left_out = frozenset(twins)
    return tuple(
        name
        for name, device in site.devices.items()
        if name not in left_out and profiles[device.profile].kind is not DeviceKind.METER
    )


async def _main(site: Site, options: argparse.Namespace) -> None:
    def print_line(announcement: dict[str, Any]) -> None:
        try:
            if options.announce is not None:
                options.announce.write_text(json.dumps(announcement) + "\n")
        except OSError as error:
            raise TwinError(f"--announce {options.announce}: {error.strerror}") from None
        try:
            sys.stdout.write(json.dumps(announcement) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise TwinError("nobody reads where the twins are: standard output is closed") from None
        # A full collection of the address space and the series would hold the physics for tens of milliseconds.
        gc.collect()
        gc.freeze()

    if options.replay is not None:
        recording = load_recording(options.replay)
        until = end_of_process(until_eof=options.until_eof)
        await run_replay(
            site,
            recording,
            until=until,
            clock=time.monotonic,
            ports=options.ports,
            at_end=options.replay_end,
            started=print_line,
        )
        return
    await run_twins(
        site,
        options.twin,
        until=end_of_process(until_eof=options.until_eof),
        ports=options.ports,
        mqtt=options.mqtt,
        trace=options.trace,
        real=real_devices(site, options.site, options.twin or twin_kinds(site, None)),
        started=print_line,
    )


def _broker(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim_devices.process", description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("--twin", action="append", metavar="NAME", help="only this device (repeatable); default all")
    parser.add_argument("--ports", choices=("declared", "free"), default="free")
    parser.add_argument("--mqtt", type=_broker, metavar="HOST:PORT", help="broker to use instead of the declared ones")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write every physics step to this CSV file")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="serve what `gateway record` has left, without physics"
    )
    parser.add_argument("--replay-end", choices=("hold", "loop"), default="hold", help="what follows its end")
    parser.add_argument("--announce", type=Path, metavar="FILE", help="where everything is, also in this file")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the twins of a site file as this process; returns the exit code: 0 ended as told, 2 bad input."""
    options = _options(argv)
    logging.basicConfig(level=logging.WARNING)
    for name in ("asyncua", "mqtt"):
        # Each client's disconnect is a warning to them, and a port in use a traceback.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    os.nice(NICENESS)
    try:
        site = load_site(options.site)
        uvloop.run(_main(site, options))
    except (ConfigError, RecordingError, TwinError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        if options.announce is not None:
            _take_back(options.announce)
    return 0


def _take_back(announcement: Path) -> None:
    """Remove our announcement, and nobody else's."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        if json.loads(announcement.read_text()).get("pid") == os.getpid():
            announcement.unlink()


if __name__ == "__main__":
    sys.exit(main())

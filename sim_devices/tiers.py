"""The twins of sites that lie above each other: one process, one bus a site, all stepped together.

A site's child is a real device to its physics: what the child's own bus draws at its connection point is summed at the
parent's bus in the same step. Nothing else passes between them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from config.findings import ConfigError
from config.loading import load_site
from config.site import ChildLayer, Site
from config.vocabulary import Clock
from sim_devices.control_port import ControlPort
from sim_devices.endpoints import Endpoints, Ports, TwinError, twin_kinds
from sim_devices.network_model import NetworkError
from sim_devices.pace import RealTimePace
from sim_devices.physics import SitePhysics
from sim_devices.series import SeriesError
from sim_devices.trace import Trace
from sim_devices.until import end_of_process, ended

NICENESS: Final = 5
"""As the twins of one site."""

PHYSICS_FILE: Final = "physics.csv"


class Below(NamedTuple):
    """One child: the site above, what that calls it, and its own site."""

    parent: str
    device: str
    child: str


def order_of_tiers(sites: Mapping[str, Site]) -> tuple[list[str], list[Below]]:
    """The sites from the lowest to the highest, and who is whose child; raises TwinError where that is no tree.

    A child whose site is not among them stays a real device that nobody tells of: its parent's meter turns bad.
    """
    below = [
        Below(name, device, address.layer)
        for name, site in sites.items()
        for device, settings in site.devices.items()
        if isinstance(address := settings.address, ChildLayer) and address.layer in sites
    ]
    named = [each.child for each in below]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise TwinError(f"{', '.join(twice)}: a site lies below one other at most")
    order: list[str] = []
    left = dict.fromkeys(sites)
    while left:
        ready = [name for name in left if all(each.child in order for each in below if each.parent == name)]
        if not ready:
            raise TwinError(f"{', '.join(left)}: each of these sites lies below another of them")
        order += ready
        left = {name: None for name in left if name not in ready}
    return order, below


class TieredPhysics:
    """The physics of several sites as one that steps; all have the same period."""

    def __init__(self, sites: Mapping[str, Site], start_s: float) -> None:
        order, self._below = order_of_tiers(sites)
        periods_ms = {site.simulation.step_ms for site in sites.values()}
        if len(periods_ms) > 1:
            raise TwinError(f"simulation.step_ms: {', '.join(map(str, sorted(periods_ms)))}; sites step together")
        self.sites = {name: _physics(sites[name], start_s) for name in order}
        self.step_s = periods_ms.pop() / 1000.0
        self._now_s = start_s
        self._tell(start_s)

    @property
    def now_s(self) -> float:
        """The clock's time of the last step."""
        return self._now_s

    @now_s.setter
    def now_s(self, now_s: float) -> None:
        self._now_s = now_s
        for physics in self.sites.values():
            physics.now_s = now_s

    def step(self, now_s: float | None = None) -> None:
        """Advance every site by one step, the lowest first, so that a parent sums what its children draw now."""
        self._now_s = self._now_s + self.step_s if now_s is None else now_s
        for name, physics in self.sites.items():
            physics.step(self._now_s)
            self._tell(self._now_s, name)

    def _tell(self, now_s: float, only: str | None = None) -> None:
        for parent, device, child in self._below:
            if only is None or child == only:
                self.sites[parent].set_real_power(device, self.sites[child].net_w, now_s)


def _physics(site: Site, start_s: float) -> SitePhysics:
    children = [name for name, device in site.devices.items() if isinstance(device.address, ChildLayer)]
    try:
        return SitePhysics(site, twin_kinds(site, None), real=children, start_s=start_s)
    except (NetworkError, SeriesError) as error:
        raise TwinError(f"{site.site}: simulation: {error}") from error


async def run_tiers(
    sites: Mapping[str, Site],
    *,
    until: asyncio.Event,
    ports: Ports = "free",
    mqtt: tuple[str, int] | None = None,
    traces: Path | None = None,
    started: Callable[[dict[str, Any]], None] = lambda _: None,
    clock: Clock = time.monotonic,
) -> None:
    """Run all twins of the sites until `until` is set.

    `traces`: where each site's steps are written, as SITE/physics.csv. `started` is called once, when everything
    listens, with `{"sites": {site: {"endpoints": {device: address}, "control": {"host", "port"}}}, "pid"}`. Raises
    TwinError for what the user can mend.
    """
    physics = TieredPhysics(sites, clock())
    async with AsyncExitStack() as stack:
        recorders = (
            [_recorder(traces / name / PHYSICS_FILE, each, stack) for name, each in physics.sites.items()]
            if (traces is not None)
            else []
        )
        served: dict[str, Endpoints] = {}
        for name, each in physics.sites.items():
            endpoints = Endpoints(sites[name], each, clock, ports=ports, mqtt=mqtt)
            served[name] = await stack.enter_async_context(endpoints)
        # Starting the servers took time that nobody could see: the simulation begins now.
        physics.now_s = clock()

        def stepped() -> None:
            for recorder in recorders:
                recorder.add()

        pace = RealTimePace(physics, clock, stepped)
        told = {}
        for name, each in physics.sites.items():
            port = ControlPort(each, clock, lambda: pace.lost_steps, served[name].counts)
            control = await stack.enter_async_context(port)
            addresses = served[name].addresses | _children(sites[name], mqtt)
            told[name] = {"endpoints": addresses, "control": {"host": control.host, "port": control.port}}
        started({"sites": told, "pid": os.getpid()})
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(pace.run(), name="physics")]
            for endpoints in served.values():
                running += endpoints.run_clients(tasks)
            await until.wait()
            await ended(*running)


def _recorder(path: Path, physics: SitePhysics, stack: AsyncExitStack) -> Trace:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recorder = Trace(path, physics)
    except OSError as error:
        raise TwinError(f"trace: {path}: {error.strerror}") from error
    stack.callback(recorder.close)
    return recorder


def _children(site: Site, mqtt: tuple[str, int] | None) -> dict[str, dict[str, Any]]:
    """Where the children are: as the site file says, but for the broker."""
    found = {}
    for name, device in site.devices.items():
        if isinstance(device.address, ChildLayer):
            address = device.address.model_dump(exclude_none=True)
            found[name] = address | ({"host": mqtt[0], "port": mqtt[1]} if mqtt is not None else {})
    return found


def _broker(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim_devices.tiers", description=__doc__)
    parser.add_argument("sites", nargs="+", type=Path, metavar="SITE")
    parser.add_argument("--ports", choices=("declared", "free"), default="free")
    parser.add_argument("--mqtt", type=_broker, metavar="HOST:PORT", help="broker to use instead of the declared ones")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="write every physics step to DIR/SITE/physics.csv")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    return parser.parse_args(argv)


async def _main(options: argparse.Namespace) -> None:
    def print_line(announcement: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(announcement) + "\n")
        sys.stdout.flush()
        # A full collection of the address space and the series would hold the physics for tens of milliseconds.
        gc.collect()
        gc.freeze()

    loaded = [load_site(path) for path in options.sites]
    sites = {site.site: site for site in loaded}
    if len(sites) < len(loaded):
        raise TwinError("two of the sites have the same name")
    until = end_of_process(until_eof=options.until_eof)
    await run_tiers(
        sites, until=until, ports=options.ports, mqtt=options.mqtt, traces=options.traces, started=print_line
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the twins of several sites as this process; returns the exit code: 0 ended as told, 2 bad input."""
    options = _options(argv)
    logging.basicConfig(level=logging.WARNING)
    for name in ("asyncua", "mqtt"):
        # Each client's disconnect is a warning to them, and a port in use a traceback.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    os.nice(NICENESS)
    try:
        uvloop.run(_main(options))
    except (ConfigError, TwinError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

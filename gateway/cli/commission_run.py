"""`gateway commission`: the twins it needs, the steps with their live view, the verdicts, and the lags file."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from config.findings import ConfigError
from config.lags import lags_path, load_lags, save_lags
from config.profile import Profile
from config.site import Address, Site
from config.vocabulary import DeviceKind
from gateway.bench.children import ChildFailedError
from gateway.bench.twins import TwinsProcess
from gateway.cli.commission_tables import StepView, print_reports
from gateway.cli.run import BadRequestError, read_addresses, site_addresses, twin_names
from gateway.cli.sites import BAD_INPUT, FAILED, no_such_device, tell
from gateway.commission.commissioning import Commissioning, CommissionRequest, DeviceReport
from gateway.device_locks import held_devices
from gateway.state_directory import SiteHeldError, default_state_directory, held_state_directory
from gateway.twin_world import TwinWorld

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class CommissionCommand:
    """What the command line asked for."""

    path: Path
    site: Site
    profiles: dict[str, Profile]
    devices: tuple[str, ...]
    twins: tuple[str, ...]
    step_w: float | None
    step_pu: float
    allow_real_writes: bool
    out: Path | None
    addresses: Path | None
    state: Path | None
    as_json: bool
    shipped: bool


class Ended(NamedTuple):
    """What came of the devices, whether all had their turn, and what broke it off if anything did."""

    reports: list[DeviceReport]
    complete: bool
    broken: BaseException | None = None


def run_commission(command: CommissionCommand) -> int:
    """Commission and report; the exit code."""
    try:
        _check_names(command)
        twins = twin_names(command.site, command.twins)
        _check_leave(command, twins)
        given = read_addresses(command.addresses)
        with held_state_directory(command.state or default_state_directory(command.site.site)) as directory:
            ended = asyncio.run(_run(command, twins, given, directory))
    except (BadRequestError, ChildFailedError, SiteHeldError) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        ended = Ended([], complete=False)
    return concluded(command, ended)


def concluded(command: CommissionCommand, ended: Ended) -> int:
    """Store and tell what was measured, also where it was broken off or can't be stored; the exit code."""
    stored, unstored = None, ""
    try:
        stored = _store(command, ended.reports)
    except (BadRequestError, ConfigError) as error:
        unstored = str(error)
    _tell(command, ended, stored)
    if unstored:
        sys.stderr.write(f"{unstored}\n")
    if isinstance(ended.broken, ValueError):
        sys.stderr.write(f"{ended.broken}\n")
    elif ended.broken is not None:
        raise ended.broken
    if unstored or ended.broken is not None:
        return BAD_INPUT
    stepped = [report for report in ended.reports if report.outcome != "skipped"]
    return 0 if ended.complete and stepped and all(report.outcome == "good" for report in stepped) else FAILED


def _check_names(command: CommissionCommand) -> None:
    unknown = sorted(set(command.devices) - set(command.site.devices))
    if unknown:
        raise BadRequestError(no_such_device(command.site, unknown))
    meters = [name for name in command.devices if command.profiles[name].kind is DeviceKind.METER]
    if meters:
        raise BadRequestError(f"{', '.join(meters)}: a meter has nothing to step")
    if command.out is not None and not command.out.parent.is_dir():
        raise BadRequestError(f"--out {command.out}: the folder {command.out.parent} does not exist")


def _check_leave(command: CommissionCommand, twins: frozenset[str]) -> None:
    """Without leave nothing real is stepped; that is said before anything is connected to."""
    allowed = replace(command, allow_real_writes=True)
    steppable = set(_stepped(allowed, twins, {}))
    refused = sorted(steppable - set(_stepped(command, twins, {})))
    if refused and (command.devices or len(refused) == len(steppable)):
        words = f"commission steps {', '.join(refused)}, and no --twin takes their place"
        raise BadRequestError(f"{words}: --allow-real-writes gives leave to write to real devices")
    if not steppable:
        raise BadRequestError("nothing to step: by profile and site file, none of the devices is controlled")


async def _run(command: CommissionCommand, twins: frozenset[str], given: dict[str, Any], directory: Path) -> Ended:
    child = None
    endpoints = given
    if twins and not given:
        tell("starting the twins; this takes some seconds")
        child = await TwinsProcess.start(command.path, sorted(twins), "free", directory)
        endpoints = child.endpoints
    try:
        request = CommissionRequest(
            command.site,
            command.profiles,
            site_addresses(command.site, endpoints.get("endpoints", {})),
            twins,
            command.devices,
            command.step_w,
            command.step_pu,
            command.allow_real_writes,
        )
        control = endpoints.get("control")
        mixed = control is not None and 0 < len(twins) < len(command.site.devices)
        world = TwinWorld(control["host"], control["port"]) if mixed and control is not None else None
        with held_devices(_stepped(command, twins, request.addresses)):
            return await _interruptible(request, world)
    finally:
        if child is not None:
            await child.stop()


def _stepped(command: CommissionCommand, twins: frozenset[str], addresses: Mapping[str, Address]) -> dict[str, Address]:
    """The devices that will be written to, and where they are."""
    return {
        name: addresses.get(name, device.address)
        for name, device in command.site.devices.items()
        if name in (command.devices or command.site.devices)
        and command.profiles[name].control is not None
        and not device.read_only
        and (name in twins or command.allow_real_writes)
    }


async def _interruptible(request: CommissionRequest, world: TwinWorld | None) -> Ended:
    """Ctrl-C, SIGTERM and the loss of the terminal put the device under way at rest; what was measured is reported."""
    with StepView() as view:
        work = Commissioning(
            request, time.monotonic, view.show, _tell_report, None if world is None else world.tell, _tell_start
        )
        tell("reading every device once; batteries and chargers that may be written go to rest")
        stepping = asyncio.create_task(work.run(), name="commissioning")
        telling = None if world is None else asyncio.create_task(world.run(), name="twin world")
        loop = asyncio.get_running_loop()
        for number in _STOPS:
            loop.add_signal_handler(number, stepping.cancel)
        try:
            await asyncio.wait([stepping])
        finally:
            if telling is not None:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
        if stepping.cancelled():
            return Ended(work.reports, complete=False)
        broken = stepping.exception()
        return Ended(work.reports, broken is None, broken)


def _tell_start(device: str) -> None:
    tell(f"{device}: its step begins")


def _tell_report(report: DeviceReport) -> None:
    words = report.reason or "; ".join(report.findings)
    tell(f"{report.device}: {report.outcome}{': ' * bool(words)}{words}")


def _store(command: CommissionCommand, reports: list[DeviceReport]) -> Path | None:
    """Put what was measured into the lags file, beside what it holds of other devices."""
    measured = {report.device: report.lag for report in reports if report.lag is not None}
    if not measured or (command.shipped and command.out is None):
        return None
    path = command.out or lags_path(command.path)
    known = load_lags(path, command.site.site) if path.exists() else {}
    try:
        save_lags(path, command.site.site, {**known, **measured})
    except OSError as error:
        raise BadRequestError(f"{path}: {error.strerror}") from error
    return path


def _tell(command: CommissionCommand, ended: Ended, stored: Path | None) -> None:
    if command.as_json:
        content = {
            "site": command.site.site,
            "complete": ended.complete,
            "reason": "" if ended.broken is None else str(ended.broken),
            "lags_file": None if stored is None else str(stored),
            "devices": [report.as_json() for report in ended.reports],
        }
        sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")
        return
    print_reports(command.site.title or command.site.site, ended.reports)
    if not ended.complete:
        sys.stderr.write("stopped before the end; the device under way was put at rest\n")
    if stored is not None:
        sys.stdout.write(f"stored: {stored}\n")
    elif any(report.lag is not None for report in ended.reports):
        sys.stdout.write("a shipped site has no lags file beside it; --out FILE stores what was measured\n")

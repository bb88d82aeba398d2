"""`gateway run`: the control process, with the twins it was asked for as a child process beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from pydantic import TypeAdapter, ValidationError

from config.explain import in_words
from config.findings import dotted
from config.lags import MeasuredLag
from config.profile import Profile
from config.security_checks import unset_passwords
from config.site import Address, ChildLayer, MqttBroker, Site
from gateway.bench.children import ChildFailedError
from gateway.bench.fault_proxies import FaultProxies
from gateway.bench.twins import TwinsProcess
from gateway.cli.faults_told import expect_broken_connections, tell_faults
from gateway.cli.sites import BAD_INPUT, FAILED, INTERRUPTED, broker_address
from gateway.device_locks import held_devices
from gateway.run_options import RunOptions
from gateway.runtime import Runtime
from gateway.state_directory import SiteHeldError, default_state_directory, held_state_directory

ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line asked for."""

    path: Path
    site: Site
    profiles: dict[str, Profile]
    twins: tuple[str, ...]
    observe: bool
    allow_real_writes: bool
    state: Path | None
    broker: str | None
    trace: bool
    addresses: Path | None
    until_eof: bool
    lags: Mapping[str, MeasuredLag] = field(default_factory=dict)
    record_decisions: Path | None = None
    faults: bool = False


class BadRequestError(Exception):
    """The command line contradicts the site; the text is for the user."""


def run_site(request: RunRequest) -> int:
    """Run until a signal; the exit code."""
    try:
        twins = twin_names(request.site, request.twins)
        broker = broker_address(request.broker)
        overrides = read_addresses(request.addresses)
        _check_passwords(request, {*twins, *overrides.get("endpoints", {})})
        with held_state_directory(request.state or default_state_directory(request.site.site)) as directory:
            return uvloop.run(_run(request, directory, twins, broker, overrides))
    except (BadRequestError, SiteHeldError, ChildFailedError) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        return FAILED


def _check_passwords(request: RunRequest, elsewhere: Collection[str]) -> None:
    """Name every password that is missing, of what is reached where the site file says; one of a parent's refuses."""
    unset = [
        (place, f"{request.path}: {dotted(place)}: the environment variable {variable} is not set")
        for place, variable in unset_passwords(request.site, os.environ)
        if (request.broker is None if place[0] == "parents" else place[1] not in elsewhere)
    ]
    if any(place[0] == "parents" for place, _ in unset):
        raise BadRequestError("\n".join(words for _, words in unset))
    for place, words in unset:
        structlog.get_logger().warning("device without its password", device=place[1], reason=words)


async def _run(
    request: RunRequest, directory: Path, twins: frozenset[str], broker: MqttBroker | None, given: dict[str, Any]
) -> int:
    """Run to the end; the exit code. A bench with faults that was interrupted says what they did."""
    stop, interrupted = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, _interrupt, stop, interrupted)
    if request.until_eof:
        threading.Thread(target=_watch_stdin, args=(loop, stop), name="stdin", daemon=True).start()
    endpoints, child = given, None
    if twins and not given:
        child = await TwinsProcess.start(request.path, sorted(twins), "free", directory, broker=request.broker)
        endpoints = child.endpoints
    spare_broker = child.broker if child is not None else None
    proxies = None
    try:
        if request.faults:
            proxies = await FaultProxies.start(request.path, endpoints, broker or spare_broker, directory)
            endpoints = proxies.endpoints
            broker, spare_broker = (proxies.broker, None) if broker is not None else (None, proxies.broker)
        control = endpoints.get("control")
        options = RunOptions(
            site=request.site,
            profiles=request.profiles,
            directory=directory,
            addresses=site_addresses(request.site, endpoints.get("endpoints", {})),
            twins=twins,
            twin_world=(control["host"], control["port"])
            if control and len(twins) < len(request.site.devices)
            else None,
            broker=broker,
            spare_broker=spare_broker,
            observe=request.observe,
            allow_real_writes=request.allow_real_writes,
            trace=request.trace,
            lags=request.lags,
            record_decisions=request.record_decisions,
        )
        with held_devices(options.written_addresses()):
            _tell_what_is_written(options)
            await Runtime(options).run(stop)
        if proxies is None or not interrupted.is_set():
            return 0
        await tell_faults(proxies.endpoints)
        return INTERRUPTED
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    finally:
        expect_broken_connections(loop)
        for process in (proxies, child):
            if process is not None:
                await process.stop()


def _interrupt(stop: asyncio.Event, interrupted: asyncio.Event) -> None:
    interrupted.set()
    stop.set()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """End with our parent: its death closes our standard input."""
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


def twin_names(site: Site, given: Iterable[str]) -> frozenset[str]:
    """The devices named by --twin, where `all` leaves out the layers below; raises BadRequestError."""
    layers = {name for name, device in site.devices.items() if isinstance(device.address, ChildLayer)}
    names = set(site.devices) - layers if ALL in given else set(given)
    if names & layers:
        one = sorted(names & layers)[0]
        raise BadRequestError(f"--twin {one}: it is a layer below, with twins of its own: `gateway run` its site")
    unknown = sorted(names - set(site.devices))
    if unknown:
        raise BadRequestError(f"--twin {', '.join(unknown)}: no such device; allowed: all, {', '.join(site.devices)}")
    return frozenset(names)


def read_addresses(path: Path | None) -> dict[str, Any]:
    """What `gateway twins` has printed, from a file; empty without one. Raises BadRequestError."""
    if path is None:
        return {}
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise BadRequestError(f"--addresses {path}: {getattr(error, 'strerror', None) or error}") from error
    if not text.strip():
        raise BadRequestError(f"--addresses {path}: is empty; `gateway twins` prints its line when all twins serve")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"--addresses {path}: not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("endpoints"), dict):
        raise BadRequestError(f"--addresses {path}: an object with `endpoints` is asked for")
    return content


def site_addresses(site: Site, endpoints: dict[str, Any]) -> dict[str, Address]:
    """Endpoints as addresses by device; raises BadRequestError."""
    adapter: TypeAdapter[Address] = TypeAdapter(Address)
    addresses: dict[str, Address] = {}
    faults: list[str] = []
    for name in site.devices.keys() & endpoints.keys():
        try:
            addresses[name] = adapter.validate_python(endpoints[name])
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                where = ".".join(str(part) for part in ("endpoints", name, *item["loc"]))
                faults.append(f"{where}: {in_words(item)}")
    if faults:
        raise BadRequestError("\n".join(sorted(faults)))
    return addresses


def _tell_what_is_written(options: RunOptions) -> None:
    log = structlog.get_logger()
    real = sorted(set(options.site.devices) - options.twins)
    if options.observe:
        log.warning("observing: nothing is written")
    elif real and not options.allow_real_writes:
        log.warning("real devices are read only; --allow-real-writes lets them be written", devices=real)

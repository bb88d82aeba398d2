"""The process that serves a recording: servers where a site's Modbus devices are, and the line that says where."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from config.site import ModbusAddress, ModbusRtuAddress, ModbusRtuTcpAddress, ModbusTcpAddress, Site
from config.vocabulary import Clock
from sim_devices.endpoints import LOOPBACK, Ports, TwinError
from sim_devices.line_endpoints import LineEndpoints
from sim_devices.recording import RecordedRead, Recording
from sim_devices.replay import AtEnd, ReplayServer, ReplayUnit


class ReplayEndpoints:
    """Serves the units of a recording; `addresses` is what a gateway is given, `units` what stands behind it.

    Raises TwinError for a recording of another site, and for an address that can't be had.
    """

    def __init__(
        self, site: Site, recording: Recording, clock: Clock, *, ports: Ports = "free", at_end: AtEnd = "hold"
    ) -> None:
        self.addresses: dict[str, dict[str, Any]] = {}
        self.units: dict[tuple[str, int], ReplayUnit] = {}
        self._site = site
        self._recording = recording
        self._clock = clock
        self._ports: Ports = ports
        self._at_end: AtEnd = at_end
        self._stack = AsyncExitStack()
        self._lines = LineEndpoints(self._stack, declared=ports == "declared", new_server=ReplayServer)

    async def __aenter__(self) -> ReplayEndpoints:
        try:
            for (place, unit_id), reads in self._by_place().items():
                unit = ReplayUnit(reads, self._recording.length_s, self._clock, self._at_end)
                self.units[place, unit_id] = unit
            for place in dict.fromkeys(place for place, _ in self.units):
                await self._serve(place)
        except BaseException:
            await self._stack.aclose()
            raise
        self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def begin(self) -> None:
        """The recording begins now, on every unit."""
        for unit in self.units.values():
            unit.begin()

    def _by_place(self) -> dict[tuple[str, int], list[RecordedRead]]:
        """Reads by endpoint and unit: several devices may share either."""
        places = {name: _place(self._modbus(name)) for name in self._recording.devices}
        found: dict[tuple[str, int], list[RecordedRead]] = {}
        for read in self._recording.reads:
            found.setdefault((places[read.device], read.unit), []).append(read)
        return found

    def _modbus(self, name: str) -> ModbusAddress:
        device = self._site.devices.get(name)
        if device is None or not isinstance(device.address, ModbusAddress):
            there = ", ".join(name for name, at in self._site.devices.items() if isinstance(at.address, ModbusAddress))
            raise TwinError(f"{name}: recorded at {self._recording.site}; the Modbus devices of this site are {there}")
        return device.address

    async def _serve(self, place: str) -> None:
        devices = {
            name: device.address
            for name, device in self._site.devices.items()
            if isinstance(device.address, ModbusAddress) and _place(device.address) == place
        }
        units = {unit_id: unit for (at, unit_id), unit in self.units.items() if at == place}
        first = next(iter(devices))
        try:
            told = await self._listen(devices[first], units)
        except ValueError as error:
            raise TwinError(f"{first}: {error}") from error
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise TwinError(f"{first}: {place}: {why}") from error
        for name, address in devices.items():
            if address.unit in units:
                self.addresses[name] = {**told, "unit": address.unit}

    async def _listen(self, address: ModbusAddress, units: dict[int, ReplayUnit]) -> dict[str, Any]:
        if isinstance(address, ModbusRtuAddress | ModbusRtuTcpAddress):
            told: dict[str, Any] = {}
            for unit_id, unit in units.items():
                told = await self._lines.serve(unit, address.model_copy(update={"unit": unit_id}))
            return told
        assert isinstance(address, ModbusTcpAddress)
        server = ReplayServer()
        for unit_id, unit in units.items():
            server.add_unit(unit_id, unit)
        host, port = (address.host, address.port) if self._ports == "declared" else (LOOPBACK, 0)
        port = await server.listen(host, port)
        self._stack.push_async_callback(server.close)
        return {"driver": address.driver, "host": host, "port": port}


async def run_replay(
    site: Site,
    recording: Recording,
    *,
    until: asyncio.Event,
    clock: Clock,
    ports: Ports = "free",
    at_end: AtEnd = "hold",
    started: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Serve a recording until `until` is set; raises TwinError.

    `started` is called once, when everything listens, with `{"endpoints", "pid"}`.
    """
    async with ReplayEndpoints(site, recording, clock, ports=ports, at_end=at_end) as endpoints:
        started({"endpoints": endpoints.addresses, "pid": os.getpid()})
        endpoints.begin()
        await until.wait()


def _place(address: ModbusAddress) -> str:
    if isinstance(address, ModbusRtuAddress):
        return os.path.normpath(address.device)
    return f"{address.host}:{address.port}"

"""The Modbus driver: one link and the devices on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from config.site import ModbusTcpAddress
from config.vocabulary import Clock, FieldSink, Setpoint, WriteResult, WriteStatus
from drivers.binding import DeviceBinding
from drivers.driver import LinkStats
from drivers.modbus.connection import Connection
from drivers.modbus.device import ModbusDevice
from drivers.modbus.link import Connector, Link, tcp_connector


class ModbusDriver:
    """Implements `drivers.driver.Driver` for the units behind one Modbus TCP connection.

    `connect` replaces the TCP connection by any other transport; `rng` draws pauses and phases. Raises `PlanError`, a
    `ValueError`, for a profile whose points can't be read or written as it says.
    """

    def __init__(
        self,
        name: str,
        bindings: Sequence[DeviceBinding],
        sink: FieldSink,
        clock: Clock,
        *,
        connect: Connector | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not bindings:
            raise ValueError(f"link {name} has no device")
        rng = rng or random.Random()
        self.name = name
        self.devices = tuple(binding.name for binding in bindings)
        self.stats = LinkStats()
        self._sink = sink
        self._clock = clock
        self._devices = {binding.name: ModbusDevice(binding, sink, self.stats, clock, rng) for binding in bindings}
        paces = [binding.profile.pace for binding in bindings]
        self._link = Link(
            name,
            connect or tcp_connector(*_endpoint(bindings)),
            self._serve,
            sink,
            self.stats,
            rng,
            connect_pause_s=max(pace.connect_pause_s for pace in paces),
            request_gap_s=max(pace.request_gap_s for pace in paces),
        )

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled; a protocol error never leaves this function."""
        await self._link.run()

    def poll(self) -> tuple[str, ...]:
        """Start this cycle's fast polls; the devices whose answer is to be waited for."""
        return tuple([name for name, device in self._devices.items() if device.poll()])

    def write(self, setpoint: Setpoint) -> None:
        """Queue a setpoint ahead of every poll; a device that is not on this link refuses it."""
        device = self._devices.get(setpoint.device)
        if device is None:
            detail = f"not on link {self.name}"
            self._sink.write_result(
                WriteResult(setpoint.device, setpoint.sequence, WriteStatus.REFUSED, self._clock(), detail)
            )
        else:
            device.writer.put(setpoint)

    async def rest(self, timeout_s: float) -> None:
        """Write each device's rest state, as far as its link is up; setpoints are refused from then on."""
        asked = [device.writer.rest() for device in self._devices.values()]
        waited = [done for done in asked if done is not None]
        if waited:
            await asyncio.wait(waited, timeout=timeout_s)

    async def _serve(self, connection: Connection) -> None:
        """Set the devices up, each in a task of its own, and tell them when the connection ends."""
        try:
            async with asyncio.TaskGroup() as group:
                for name, device in self._devices.items():
                    group.create_task(device.set_up(connection), name=f"{self.name} set-up of {name}")
            await connection.wait_closed()
        finally:
            for device in self._devices.values():
                device.link_lost()


def _endpoint(bindings: Sequence[DeviceBinding]) -> tuple[str, int]:
    """The one host and port that all devices of a link share."""
    endpoints = {
        (binding.address.host, binding.address.port)
        for binding in bindings
        if isinstance(binding.address, ModbusTcpAddress)
    }
    if len(endpoints) != 1:
        raise ValueError("the devices of one link have one host and one port")
    return endpoints.pop()

"""The Modbus driver: one link and the devices on it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from typing import Final

from config.vocabulary import Clock, FieldSink, Setpoint, WriteResult, WriteStatus
from drivers.binding import DeviceBinding
from drivers.driver import LinkStats
from drivers.modbus.bus import BusConnection
from drivers.modbus.connection import Connection
from drivers.modbus.device import ModbusDevice
from drivers.modbus.endpoint import connector_of, one_endpoint, timing_of
from drivers.modbus.framing import TcpFraming
from drivers.modbus.link import Connector, Link
from drivers.modbus.overdue import Overdue
from drivers.modbus.rtu import RtuConnection
from drivers.modbus.unit import Unit

# While nobody answers there is nobody whom the next attempt could cost anything.
_PAUSE_OF_NOBODY_S: Final = 0.5


class ModbusDriver:
    """Implements `drivers.driver.Driver` for the units behind one Modbus TCP connection or on one serial line.

    A single unit behind TCP is the connection: when it falls silent, a new one is made. Several units, and those of a
    line, come and go by themselves. `connect` replaces the connection or port by any other transport; `rng` draws
    pauses and phases; a device whose answer usually takes longer than `patience_s` is polled, and never waited for.
    Raises `PlanError`, a `ValueError`, for a profile whose points can't be read or written as it says.
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
        patience_s: float = math.inf,
    ) -> None:
        if not bindings:
            raise ValueError(f"link {name} has no device")
        rng = rng or random.Random()
        self.name = name
        self.devices = tuple(binding.name for binding in bindings)
        self.stats = LinkStats()
        self._sink = sink
        self._clock = clock
        self._devices = {
            binding.name: ModbusDevice(binding, sink, self.stats, clock, rng, patience_s) for binding in bindings
        }
        self._only = next(iter(self._devices.values())) if len(self._devices) == 1 else None
        paces = [binding.profile.pace for binding in bindings]
        address = one_endpoint(binding.address for binding in bindings)
        self._timing = timing_of(address)
        self._overdue = Overdue(clock)
        self._units = self._shared_units(rng)
        self._request_gap_s = max(pace.request_gap_s for pace in paces)
        self._link = Link(
            name,
            connect or connector_of(address),
            self._serve,
            sink,
            self.stats,
            rng,
            self._new_connection,
            connect_pause_s=max(pace.connect_pause_s for pace in paces),
        )

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled; a protocol error never leaves this function."""
        await self._link.run()

    def poll(self) -> tuple[str, ...]:
        """Start this cycle's fast polls; the devices whose answer is to be waited for."""
        if self._only is not None:
            return self.devices if self._only.poll() else ()
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

    def forget(self, device: str) -> None:
        """Write the device's next setpoint whole, whatever it acknowledged before."""
        if (known := self._devices.get(device)) is not None:
            known.writer.forget()

    async def rest(self, timeout_s: float) -> None:
        """Write each device's rest state, as far as its link is up; setpoints are refused from then on."""
        asked = [device.writer.rest() for device in self._devices.values()]
        waited = [done for done in asked if done is not None]
        if waited:
            await asyncio.wait(waited, timeout=timeout_s)

    def _shared_units(self, rng: random.Random) -> dict[int, Unit]:
        """The units that come and go by themselves; none where the only one is the connection."""
        devices: dict[int, list[ModbusDevice]] = {}
        for device in self._devices.values():
            devices.setdefault(device.unit, []).append(device)
        if self._timing is None and len(devices) == 1:
            return {}
        return {number: Unit(number, [device.pace for device in on], rng) for number, on in devices.items()}

    def _new_connection(self, on_first_reply: Callable[[], None]) -> Connection:
        if self._timing is not None:
            return RtuConnection(self._timing, self._overdue, self.stats, on_first_reply, self._units)
        if self._units:
            return BusConnection(TcpFraming(), self.stats, on_first_reply, self._units)
        return Connection(TcpFraming(), self.stats, self._request_gap_s, on_first_reply)

    async def _serve(self, connection: Connection) -> None:
        """Set the devices up, each in a task of its own, and tell them when the connection ends."""
        try:
            async with asyncio.TaskGroup() as group:
                for unit in self._units.values():
                    group.create_task(self._serve_unit(connection, unit), name=f"{self.name} unit {unit.number}")
                for name, device in self._devices.items():
                    if not self._units:
                        group.create_task(device.set_up(connection), name=f"{self.name} set-up of {name}")
            await connection.wait_closed()
        finally:
            for device in self._devices.values():
                device.link_lost()

    async def _serve_unit(self, connection: Connection, unit: Unit) -> None:
        """One session after another, with the pauses of the unit's breaker between them."""
        devices = [device for device in self._devices.values() if device.unit == unit.number]
        while not connection.closed:
            lost = unit.begin()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_set_up(device, connection, unit), name=f"{self.name} set-up of {device.name}")
                    for device in devices
                ]
                await asyncio.wait((lost,))
                for task in tasks:
                    task.cancel()
            if connection.closed:
                return
            for device in devices:
                device.unit_lost(unit.reason)
            await asyncio.sleep(unit.breaker.pause_s() if connection.was_answered else _PAUSE_OF_NOBODY_S)


async def _set_up(device: ModbusDevice, connection: Connection, unit: Unit) -> None:
    reason = await device.set_up(connection)
    if reason:
        unit.end(reason)

"""Everything of a lockstep run that an action may put its hand on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from config.site import ModbusAddress, Site
from config.vocabulary import Clock
from drivers.cancellation import ended
from gateway.bench.lockstep.network import VirtualNetwork
from gateway.bench.lockstep.transport import Address
from gateway.runtime import Runtime
from sim_devices.control_port import ControlPort
from sim_devices.dso.twin import DsoTwin
from sim_devices.endpoints import Endpoints
from sim_devices.faults.control import answer
from sim_devices.faults.world import FaultWorld
from sim_devices.modbus.server import ModbusServer
from sim_devices.mqtt_in_process import InProcessBroker
from sim_devices.opcua_in_process import InProcessOpcUa
from sim_devices.physics import SitePhysics


class LockstepWorld:
    """The parts of one run. Made by the run; `tasks` is where whatever is spawned lives."""

    def __init__(
        self,
        site: Site,
        physics: SitePhysics,
        network: VirtualNetwork,
        broker: InProcessBroker,
        new_runtime: Callable[[], Runtime],
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.site = site
        self.physics = physics
        self.network = network
        self.broker = broker
        self.clock = clock
        self.dso: DsoTwin | None = None
        self.endpoints: Endpoints | None = None
        self.faults: FaultWorld | None = None
        self.opcua: Mapping[str, InProcessOpcUa] = {}
        self.gateway: Runtime | None = None
        self._new_runtime = new_runtime
        self._tasks = tasks
        self.began_s = clock()
        self._control = ControlPort(physics, clock)
        self._spawned: dict[asyncio.Task[None], None] = {}
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def now_s(self) -> float:
        """Virtual seconds since the script began, or the run where there is none."""
        return self.clock() - self.began_s

    @property
    def modbus(self) -> Mapping[str, ModbusServer]:
        """The servers of the Modbus TCP twins by device; devices behind one address share one."""
        assert self.endpoints is not None  # before the first action
        return self.endpoints.servers

    def address(self, device: str) -> Address:
        """Where a twin behind a Modbus server was told to the gateway. Raises KeyError for others."""
        assert self.endpoints is not None  # before the first action
        told = self.endpoints.addresses[device]
        return (told["host"], told["port"])

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that lives as long as the run; its error ends the run."""
        task = self._tasks.create_task(coroutine, name=name)
        self._spawned[task] = None
        task.add_done_callback(self._forget)
        return task

    def tell_twins(self, line: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the twins' control port would answer to this line (`sim_devices.control_port`)."""
        return self._control.answer(json.dumps(line).encode())

    def tell_faults(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """What the faults' control port would answer to this line (`sim_devices.faults.control`).

        Faults of what crosses no wire in lockstep are refused: OPC UA, MQTT, the parents and their broker.
        """
        if self.faults is None:
            return {"error": "this run has no fault proxies; it was not asked for any"}
        named = line.get("device")
        if named is not None and not self._has_wire(named):
            return {"error": f"{named}: in lockstep faults at the wire are for Modbus devices"}
        return answer(self.faults.board, json.dumps(line).encode())

    def _has_wire(self, name: str) -> bool:
        device = self.site.devices.get(name)
        return device is not None and isinstance(device.address, ModbusAddress)

    async def end(self) -> None:
        """The run is over: what was spawned ends."""
        for task in tuple(self._spawned):
            await ended((task,))

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._spawned.pop(task, None)

    def start_gateway(self) -> None:
        """Start the gateway, with what an earlier one has left in the run directory. Raises RuntimeError for two."""
        if self.gateway is not None:
            raise RuntimeError("a gateway is running already")
        self._stop = asyncio.Event()
        self.gateway = self._new_runtime()
        self._running = self._tasks.create_task(self.gateway.run(self._stop), name="gateway")

    async def stop_gateway(self) -> None:
        """End it orderly, as SIGTERM does: rest states are written. Nothing happens if none runs."""
        running, self.gateway = self._running, None
        if running is not None:
            self._stop.set()
            await asyncio.wait((running,))
            self._running = None

    async def kill_gateway(self) -> None:
        """End it as kill -9 does: nothing is written to any device, and its connections close."""
        running, self.gateway = self._running, None
        if running is not None:
            await ended((running,))
            self._running = None

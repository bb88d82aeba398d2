"""The way into a running twins process: JSON lines over loopback TCP. Load convention; times in seconds.

A line is one object with any of these keys; what can't be used is answered by a line with `error`, and changes nothing.

- `{"real_power_w": {"name": w}}`: the measured power of real devices, each control cycle
- `{"load_step_w": w}`: added to the uncontrolled load; `[w, w, w]`: to that of phases 1, 2, 3
- `{"irradiance_pu": share}`: leaves that share to all PV
- `{"grid": {"voltage_v", "frequency_hz", "ramp_s"}}`: changes the source, of all phases or `[v, v, v]` of each, at
  once or linearly within `ramp_s`
- `{"breaker": "open"}`, `{"breaker": "closed"}`: at the connection point; open: no twin has a grid
- `{"heat_pump": "blocked"}`, `"normal"`, `"raised"`: what its owner's contacts say to the load's heat pump
- `{"plug_in": {"device", ...}}`: a car comes to a charger, with what the site file may say of one; `{"unplug": "name"}`
  takes it away
- `{"state": true}`: answered by one line with the state of every model, and with what each twin was asked for beyond
  what it has (`counts`): Modbus exceptions, requests to absent units, refused and cut commands
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from config.twin import EvTwin
from config.vocabulary import Clock
from sim_devices.heat_pump import HeatPumpModel, HeatPumpOrder
from sim_devices.models import BatteryModel, ByPhase, ChargerModel, GridFollowingModel, InverterModel
from sim_devices.network_model import NetworkModel
from sim_devices.physics import PowerDevice, SitePhysics

MAX_LINE: Final = 65_536
MOST_W: Final = 1e9
HOST: Final = "127.0.0.1"
KNOWN: Final = frozenset(
    {"real_power_w", "load_step_w", "irradiance_pu", "grid", "breaker", "heat_pump", "plug_in", "unplug", "state"}
)
GRID: Final = frozenset({"voltage_v", "frequency_hz", "ramp_s"})
GRID_EXPECTED: Final = "grid: expected an object of frequency_hz, voltage_v above 0"
BREAKER: Final = ("open", "closed")
PHASES: Final = 3


class ControlPort:
    """Serves the control port of one physics, on a free port of loopback; `port` says which after `start`."""

    def __init__(
        self,
        physics: SitePhysics,
        clock: Clock,
        lost_steps: Callable[[], int] = lambda: 0,
        counts: Callable[[], Mapping[str, Mapping[str, int]]] = dict,
    ) -> None:
        self.host = HOST
        self.port = 0
        self._physics = physics
        self._clock = clock
        self._lost_steps = lost_steps
        self._counts = counts
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ControlPort:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=MAX_LINE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            # The task ends here either way: the stream's own callback reports a cancelled handler as an error.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                writer.write(json.dumps({"error": f"a line is longer than {MAX_LINE} bytes"}).encode() + b"\n")
                await writer.drain()
                return
            if not line:
                return
            answer = self.answer(line)
            if answer is not None:
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()

    def answer(self, line: bytes) -> dict[str, Any] | None:
        """Do what one line says; the answer, or None where none is due."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "not JSON"}
        if not isinstance(request, dict) or not request.keys() <= KNOWN or not request:
            return {"error": f"expected an object with {', '.join(sorted(KNOWN))}"}
        fault = self._fault(request)
        if fault:
            return {"error": fault}
        now_s = self._clock()
        for name, power_w in request.get("real_power_w", {}).items():
            self._physics.set_real_power(name, float(power_w), now_s)
        self._happen(request)
        return self.state() if request.get("state") else None

    def _happen(self, request: dict[str, Any]) -> None:
        physics = self._physics
        if "load_step_w" in request:
            physics.inject_load_step(request["load_step_w"])
        if "irradiance_pu" in request:
            physics.set_irradiance(request["irradiance_pu"])
        if "grid" in request:
            physics.set_grid(**request["grid"])
        if "breaker" in request:
            physics.set_breaker(request["breaker"])
        if "heat_pump" in request and physics.heat_pump is not None:
            physics.heat_pump.set_order(HeatPumpOrder(request["heat_pump"]))
        if "unplug" in request:
            self._charger(request["unplug"]).unplug()
        if "plug_in" in request:
            car = dict(request["plug_in"])
            self._charger(car.pop("device")).plug_in(EvTwin.model_validate(car))

    def _charger(self, name: Any) -> ChargerModel:
        """Raises KeyError where no charger has that name."""
        model = self._physics.devices[name]
        if not isinstance(model, ChargerModel):
            raise KeyError(name)
        return model

    def _fault(self, request: dict[str, Any]) -> str:
        powers = request.get("real_power_w", {})
        if not isinstance(powers, dict):
            return "real_power_w: expected an object of names and watts"
        for name, power_w in powers.items():
            if name not in self._physics.real:
                return f"real_power_w: {name} is not a real device here"
            if not _is_power(power_w):
                return f"real_power_w: {name}: not a number of watts"
        if "load_step_w" in request and not _each(_is_power, request["load_step_w"]):
            return "load_step_w: not a number of watts, or three"
        share = request.get("irradiance_pu", 1.0)
        if not _is_power(share) or not 0.0 <= share <= 1.0:
            return "irradiance_pu: not a share"
        return self._grid_fault(request) or self._car_fault(request)

    def _grid_fault(self, request: dict[str, Any]) -> str:
        grid = request.get("grid", {})
        if not isinstance(grid, dict) or not grid.keys() <= GRID:
            return GRID_EXPECTED
        if not _each(_is_above_zero, grid.get("voltage_v", 1.0)) or not _is_above_zero(grid.get("frequency_hz", 1.0)):
            return GRID_EXPECTED
        ramp_s = grid.get("ramp_s", 0.0)
        if not _is_power(ramp_s) or ramp_s < 0:
            return "grid: ramp_s: not a time"
        if request.get("breaker", "closed") not in BREAKER:
            return f"breaker: expected {' or '.join(BREAKER)}"
        if "heat_pump" in request:
            if self._physics.heat_pump is None:
                return "heat_pump: the site's load has none"
            if request["heat_pump"] not in list(HeatPumpOrder):
                return f"heat_pump: expected {', '.join(HeatPumpOrder)}"
        return ""

    def _car_fault(self, request: dict[str, Any]) -> str:
        car = request.get("plug_in")
        named = [request[key] for key in ("unplug",) if key in request]
        if "plug_in" in request:
            if not isinstance(car, dict):
                return "plug_in: expected an object with `device`"
            named.append(car.get("device"))
            try:
                EvTwin.model_validate({key: value for key, value in car.items() if key != "device"})
            except ValidationError as error:
                return f"plug_in: {error.errors()[0]['msg']}"
        for name in named:
            if not isinstance(name, str) or not isinstance(self._physics.devices.get(name), ChargerModel):
                return f"{name} is not a charger here"
        return ""

    def state(self) -> dict[str, Any]:
        """Every model's state, for people and tests."""
        physics = self._physics
        return {
            "now_s": physics.now_s,
            "elapsed_s": physics.elapsed_s,
            "lost_steps": self._lost_steps(),
            "net_w": physics.net_w,
            "load_w": physics.load_w,
            "voltage_v": list(physics.voltage_v_by_phase),
            "grid": {
                "breaker": physics.grid.breaker,
                "frequency_hz": physics.grid.frequency_hz,
                "nominal_v": physics.nominal_voltage_v,
                "source_v": list(physics.grid.source_v_by_phase),
            },
            "network": None if physics.network is None else _network_state(physics.network, physics.voltage_v_by_phase),
            "heat_pump": None if physics.heat_pump is None else _heat_pump_state(physics.heat_pump),
            "meters": {name: {"power_w": m.power_w, "valid": m.valid} for name, m in physics.meters.items()},
            "counts": self._counts_by_device(),
            "devices": {name: _device_state(model) for name, model in physics.devices.items()},
            "real": {name: {"power_w": device.power_w} for name, device in physics.real.items()},
        }

    def _counts_by_device(self) -> dict[str, dict[str, int]]:
        """What a twin was asked for beyond what it has, and did: what its server has seen, then what it made of it."""
        physics, served = self._physics, self._counts()
        told = {name: dict(served.get(name, {})) for name in (*physics.meters, *physics.devices)}
        for name, model in physics.devices.items():
            told[name] |= {"refused": model.refused, "clipped": model.clipped, "reversions": model.reversions}
        return told


def _each(is_good: Callable[[Any], bool], value: Any) -> bool:
    """Of one value, or of a list of three, one for each phase."""
    if isinstance(value, list):
        return len(value) == PHASES and all(map(is_good, value))
    return is_good(value)


def _is_above_zero(value: Any) -> bool:
    return _is_power(value) and value > 0


def _is_power(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST_W <= value <= MOST_W


def _network_state(network: NetworkModel, connection_v: ByPhase) -> dict[str, Any]:
    return {
        "losses_w": sum(network.losses_w_by_phase),
        "voltage_v": {node: list(volts) for node, volts in network.voltages_by_node(connection_v).items()},
        "unsolved": network.unsolved,
    }


def _heat_pump_state(model: HeatPumpModel) -> dict[str, Any]:
    return {
        "power_w": model.power_w,
        "running": model.running,
        "order": model.order.value,
        "store_c": model.store_c,
        "starts": model.starts,
    }


def _device_state(model: PowerDevice) -> dict[str, Any]:
    state: dict[str, Any] = {
        "power_w": model.power_w,
        "connected": model.connected,
        "reversions": model.reversions,
        "clipped": model.clipped,
    }
    if isinstance(model, GridFollowingModel):
        state |= {"service": model.service.value, "reactive_var": model.reactive_var}
    match model:
        case InverterModel():
            state |= {"ceiling_pu": model.ceiling_pu, "available_w": model.available_w}
        case BatteryModel():
            state |= {"soc": model.soc, "setpoint_w": model.setpoint_w, "temperature_c": model.temperature_c}
        case ChargerModel():
            state |= {
                "state": model.state.value,
                "offered_current_a": model.offered_current_a,
                "session_energy_wh": model.session_energy_wh,
                "complete": model.complete,
                "asleep": model.asleep,
            }
    return state

"""The battery container's OPC UA server, written from docs/opcua_battery.md, version 1."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import Server, ua

from config.vocabulary import Clock
from sim_devices.models import BatteryModel
from sim_devices.opcua_security import TwinSecurity

NAMESPACE: Final = "urn:lamina:battery-container:v1"
ROOT: Final = "BatteryContainer"
PUSH_INTERVAL_S: Final = 0.1
DEFAULT_TIMEOUT_S: Final = 10.0
TIMEOUT_RANGE_S: Final = (1.0, 3600.0)
POWER_STEP_KW: Final = 0.001
SOC_STEP_PERCENT: Final = 0.01

OFF, STANDBY, RUNNING = 0, 1, 2

SETPOINT, ENABLE, TIMEOUT = "ActivePowerSetpoint", "RemoteEnable", "SetpointTimeout"


@dataclass(slots=True)
class Container:
    """The container's controller: setpoint, enable and watchdog over the battery's model, in the page's own units."""

    model: BatteryModel
    clock: Clock
    setpoint_kw: float = 0.0
    enabled: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S
    written_s: float | None = None

    def watch(self) -> None:
        """Let the watchdog act when its time has come: disabled, 0 kW, and the setpoint no longer counts."""
        now_s = self.clock()
        if self.written_s is not None and now_s - self.written_s >= self.timeout_s:
            self.written_s = None
            self.enabled = False
            if self.model.reversion_remaining_s(now_s) is not None:
                # The model's own timer would have run out with its next step, and counted.
                self.model.reversions += 1
            self.model.set_power(None, None, now_s)

    def refusal(self, name: str, value: Any) -> int | None:
        """The status code that a write of `value` gets, or None when it is taken; the model counts those refused."""
        code = self._refusal(name, value)
        self.model.refused += code is not None
        return code

    def _refusal(self, name: str, value: Any) -> int | None:
        if name == ENABLE:
            return None if isinstance(value, bool) else int(ua.StatusCodes.BadTypeMismatch)
        if not isinstance(value, float):
            return int(ua.StatusCodes.BadTypeMismatch)
        least, most = TIMEOUT_RANGE_S
        if name == SETPOINT:
            most = self.model.rating_w / 1000.0
            least = -most
        # Not a number is in no range.
        return None if least <= value <= most else int(ua.StatusCodes.BadOutOfRange)

    def take(self, name: str, value: Any) -> None:
        """Take a write that has not been refused."""
        self.watch()
        if name == SETPOINT:
            self.setpoint_kw, self.written_s = value, self.clock()
        elif name == ENABLE:
            self.enabled = value
        else:
            self.timeout_s = value
            self.watch()
        self._command()

    def _command(self) -> None:
        if self.written_s is None or not self.enabled:
            self.model.set_power(None, None, self.clock())
            return
        left_s = self.written_s + self.timeout_s - self.clock()
        # The model's own timer acts between two calls of `watch`.
        self.model.set_power(-self.setpoint_kw * 1000.0, max(left_s, 1e-3), self.clock())

    def values(self, heartbeat: int) -> dict[str, tuple[Any, str]]:
        """What the read-only variables show now, with their types."""
        model = self.model
        state = OFF if not model.connected else RUNNING if self.enabled and self.written_s is not None else STANDBY
        return {
            "ActivePower": (_rounded(-model.power_w / 1000.0, POWER_STEP_KW), "Double"),
            "StateOfCharge": (_rounded(model.soc * 100.0, SOC_STEP_PERCENT), "Double"),
            "MaxChargePower": (_rounded(model.max_charge_w / 1000.0, POWER_STEP_KW), "Double"),
            "MaxDischargePower": (_rounded(model.max_discharge_w / 1000.0, POWER_STEP_KW), "Double"),
            "State": (state, "Int32"),
            "Heartbeat": (heartbeat % 2**32, "UInt32"),
            SETPOINT: (self.setpoint_kw, "Double"),
            ENABLE: (self.enabled, "Boolean"),
            TIMEOUT: (self.timeout_s, "Double"),
        }


def _rounded(value: float, step: float) -> float:
    # Adding 0.0 turns -0.0 into 0.0, which would otherwise count as a change.
    return round(round(value / step) * step, 6) + 0.0


class _CheckedWrites:
    """Stands before the server's attribute service: a client's write is judged by the container before it is stored.

    The library stores whatever has the right variant type, and knows no ranges.
    """

    def __init__(
        self, service: Any, names: dict[Any, str], container: Container, taken: Callable[[str, Any], None]
    ) -> None:
        self._service = service
        self._names = names
        self._container = container
        self._taken = taken

    def read(self, params: Any) -> Any:
        return self._service.read(params)

    async def write(self, params: Any, user: Any) -> list[Any]:
        results: list[Any] = []
        for item in params.NodesToWrite:
            name = self._names.get(item.NodeId) if item.AttributeId == ua.AttributeIds.Value else None
            refusal = self._refusal(name, item) if name is not None else None
            if refusal is not None:
                results.append(ua.StatusCode(refusal))
                continue
            (result,) = await self._service.write(ua.WriteParameters(NodesToWrite=[item]), user)
            results.append(result)
            if name is not None and result.is_good():
                self._taken(name, item.Value.Value.Value)
        return results

    def _refusal(self, name: str, item: Any) -> int | None:
        data = item.Value
        if item.IndexRange:
            return int(ua.StatusCodes.BadIndexRangeInvalid)
        if data is None or data.Value is None or (data.StatusCode is not None and not data.StatusCode.is_good()):
            return int(ua.StatusCodes.BadWriteNotSupported)
        return self._container.refusal(name, data.Value.Value)


class OpcUaBattery:
    """An OPC UA server over a battery model, for one process to own; open to everybody without `security`.

    `async with OpcUaBattery(model, clock, host=..., port=...)` serves until left; port 0 takes a free one, and `url`
    says which. Raises OSError when the port is taken.
    """

    def __init__(
        self,
        model: BatteryModel,
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        security: TwinSecurity | None = None,
    ) -> None:
        self._security = security
        self._container = Container(model, clock)
        self._clock = clock
        self._host = host
        self._port = port
        self._server: Any = None
        self._nodes: dict[str, Any] = {}
        self._shown: dict[str, Any] = {}
        self._pusher: asyncio.Task[None] | None = None
        self._started_s = 0.0

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"opc.tcp://{self._host}:{self._port}/"

    async def __aenter__(self) -> OpcUaBattery:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Build the address space and listen."""
        self._server = server = Server()
        # Its clock node, written each second, is of no use to anybody here.
        server.iserver.disabled_clock = True
        await server.init()
        server.set_server_name(ROOT)
        server.set_endpoint(self.url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        if self._security is not None:
            await self._security.apply(server)
        server.socket_address = (self._host, self._port)
        await self._build()
        await server.start()
        self._port = server.bserver.port
        self._started_s = self._clock()
        self._pusher = asyncio.create_task(self._push_forever(), name=f"push {self._container.model.name}")

    async def close(self) -> None:
        """Stop listening and drop every client."""
        if self._pusher is not None:
            self._pusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pusher
            self._pusher = None
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def _build(self) -> None:
        server = self._server
        index = await server.register_namespace(NAMESPACE)
        root = await server.nodes.objects.add_object(ua.NodeId(ROOT, index), ua.QualifiedName(ROOT, index))
        writable: dict[Any, str] = {}
        for name, (value, kind) in self._container.values(0).items():
            node_id = ua.NodeId(f"{ROOT}.{name}", index)
            variant = ua.Variant(value, ua.VariantType[kind])
            node = await root.add_variable(node_id, ua.QualifiedName(name, index), variant)
            if name in (SETPOINT, ENABLE, TIMEOUT):
                await node.set_writable()
                writable[node_id] = name
            self._nodes[name] = node_id
            self._shown[name] = value
        inner = server.iserver.attribute_service
        server.iserver.attribute_service = _CheckedWrites(inner, writable, self._container, self._taken)

    def _taken(self, name: str, value: Any) -> None:
        # The node holds the client's value already; what the watchdog makes of it shows as a change from that.
        self._shown[name] = value
        self._container.take(name, value)

    async def _push_forever(self) -> None:
        while True:
            await asyncio.sleep(PUSH_INTERVAL_S)
            self._container.watch()
            await self._push(self._container.values(math.floor(self._clock() - self._started_s)))

    async def _push(self, values: dict[str, tuple[Any, str]]) -> None:
        now = datetime.now(UTC)
        for name, (value, kind) in values.items():
            if value == self._shown[name]:
                continue
            self._shown[name] = value
            data = ua.DataValue(ua.Variant(value, ua.VariantType[kind]), SourceTimestamp=now, ServerTimestamp=now)
            await self._server.write_attribute_value(self._nodes[name], data)

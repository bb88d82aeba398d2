"""The OCPP 1.6J driver: one listening port and the chargers that call at it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from config.site import OcppConnector
from config.vocabulary import LinkState, WriteResult, WriteStatus
from drivers.backoff import Backoff
from drivers.cancellation import heeded
from drivers.driver import LinkStats
from drivers.ocpp.charge_point import ChargePoint
from drivers.ocpp.connector import Connector
from drivers.ocpp.listener import Listener
from drivers.ocpp.messages import load_schemas
from drivers.ocpp.session import Session
from drivers.pushed import watch_silence
from drivers.writer import ConnectionBroken, Encoded, Outcome

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from config.vocabulary import Clock, FieldSink, Setpoint, UtcClock
    from drivers.binding import DeviceBinding
    from drivers.commands import Command

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.75


class OcppDriver:
    """The central system of the chargers that call at one port. The link is up while we listen; each charger's own
    connection shows in whether its devices are present.

    A setpoint is a charging profile that ends by itself after the reversion time, on which the charger goes on with the
    fallback that was installed after its boot: that is what it does on our silence. It is acknowledged when the charger
    says Accepted. Without an answer in time the connection is reset, and the write indeterminate.

    A charger is alive while it says something that makes sense, whatever it is: its heartbeat comes at the latest after
    half of `silence_s`. WebSocket pings find a connection that is cut off.

    `utc` is for what is told to chargers and for the age of what they say; nothing here waits by it.
    """

    def __init__(
        self,
        name: str,
        bindings: Sequence[DeviceBinding],
        sink: FieldSink,
        clock: Clock,
        rng: random.Random | None = None,
        utc: UtcClock = time.time,
    ) -> None:
        self.name = name
        self.devices = tuple(binding.name for binding in bindings)
        self.stats = LinkStats()
        self._sink = sink
        self._clock = clock
        self._log = structlog.get_logger("drivers.ocpp").bind(link=name)
        self._address = _one_listener(name, bindings)
        self._by_name: dict[str, Connector] = {}
        by_identity: dict[str, list[Connector]] = {}
        for binding in bindings:
            if isinstance(binding.address, OcppConnector):
                connector = Connector(binding, binding.address, sink, self.stats, clock)
                self._by_name[binding.name] = connector
                by_identity.setdefault(binding.address.charge_point, []).append(connector)
        self.charge_points = {
            identity: ChargePoint(identity, connectors, self.stats, utc, self._log)
            for identity, connectors in by_identity.items()
        }
        self._passwords = {identity: each[0].address.password_env for identity, each in by_identity.items()}
        self._timeout_s = max(binding.profile.pace.timeout_s for binding in bindings)
        self._listener: Listener | None = None
        self._served: set[str] = set()
        self._backoff = Backoff(rng or random.Random(), _FIRST_PAUSE_S, _LONGEST_PAUSE_S)

    @property
    def port(self) -> int:
        """Where chargers call; once the link is up, the port that was free where the site file says 0."""
        return self._listener.port if self._listener is not None else self._address.listen_port

    async def run(self) -> None:
        """Listen and serve every charger until cancelled; a protocol error never leaves this function."""
        self._sink.link_state(self.name, LinkState.CONNECTING, "")
        pushed = [connector.pushed for connector in self._by_name.values()]
        try:
            await heeded(asyncio.to_thread(load_schemas))
            async with asyncio.TaskGroup() as group:
                watch = watch_silence(pushed, self._clock, lambda: self.stats.state is LinkState.UP)
                group.create_task(watch, name=f"{self.name} silence")
                while True:
                    self._lost(await self._listen(group))
                    await asyncio.sleep(self._backoff.pause_s())
        finally:
            for connector in self._by_name.values():
                connector.writer.stop()

    def poll(self) -> tuple[str, ...]:
        """Nothing is polled: the chargers call."""
        return ()

    def write(self, setpoint: Setpoint) -> None:
        """Take a setpoint; it goes out in this turn of the loop if its charger is there and not just being asked."""
        connector = self._by_name.get(setpoint.device)
        if connector is not None:
            connector.writer.put(setpoint)
            return
        words = f"{setpoint.device} is not on link {self.name}"
        result = WriteResult(setpoint.device, setpoint.sequence, WriteStatus.REFUSED, self._clock(), words)
        self._sink.write_result(result)

    def forget(self, device: str) -> None:
        """Write the device's next setpoint whole, whatever it acknowledged before."""
        if (known := self._by_name.get(device)) is not None:
            known.writer.forget()

    async def rest(self, timeout_s: float) -> None:
        """Clear each setpoint in the chargers that are there; return when all are answered or after `timeout_s`."""
        there = [c for c in self._by_name.values() if self.charge_points[c.address.charge_point].session is not None]
        requests = [connector.writer.request_rest() for connector in there]
        waiting = [request for request in requests if request is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)

    def encoded(self, device: str, command: Command) -> Encoded:
        """What a write by hand would send; raises EncodeError."""
        return self._by_name[device].encoded(command)

    async def command(self, device: str, point: str, value: float) -> Outcome:
        """One write by hand, of any point with a command; raises EncodeError before anything is sent."""
        connector = self._by_name[device]
        return await self.charge_points[connector.address.charge_point].command(connector, point, value)

    async def _listen(self, group: asyncio.TaskGroup) -> ConnectionBroken:
        """Listen until cancelled; why that can't be."""

        async def accepted(identity: str, connection: ServerConnection) -> None:
            serving = group.create_task(self._serve(identity, connection), name=f"{self.name} {identity}")
            await asyncio.wait([serving])

        address, ping_s = self._address, min(point.heartbeat_s for point in self.charge_points.values())
        listener = Listener(
            address.listen_host,
            address.listen_port,
            address.tls,
            self._passwords,
            ping_s,
            accepted,
            self.stats,
            self._log,
        )
        try:
            await listener.open()
            self._we_hang_up(False)
            self._listener = listener
            self._up()
            await asyncio.get_running_loop().create_future()
        except ConnectionBroken as broken:
            return broken
        finally:
            self._listener = None
            self._we_hang_up(True)
            await listener.close()
        raise AssertionError("a port is listened at until somebody ends it")

    def _we_hang_up(self, ending: bool) -> None:
        for charge_point in self.charge_points.values():
            charge_point.we_hang_up = ending

    async def _serve(self, identity: str, connection: ServerConnection) -> None:
        charge_point = self.charge_points[identity]
        while (previous := charge_point.session) is not None:
            previous.abort("another connection of the same charger has taken its place")
            await previous.ended.wait()
        if identity in self._served:
            self.stats.reconnects += 1
        self._served.add(identity)
        session = Session(connection, self._timeout_s, self.stats)
        try:
            broken = await charge_point.serve(session)
            self.stats.lost += 1
            self.stats.timeouts += broken.timed_out
            session.abort(broken.reason)
        finally:
            session.ended.set()

    def _up(self) -> None:
        self.stats.state = LinkState.UP
        self.stats.reason = ""
        self._backoff.reset()
        for connector in self._by_name.values():
            connector.pushed.link_up()
        self._sink.link_state(self.name, LinkState.UP, "")
        self._log.info("link up", port=self.port)

    def _lost(self, broken: ConnectionBroken) -> None:
        self.stats.reason = broken.reason
        state, self.stats.state = self.stats.state, LinkState.LOST
        if state is LinkState.LOST:
            return
        for connector in self._by_name.values():
            connector.pushed.link_lost(broken.reason)
        self._sink.link_state(self.name, LinkState.LOST, broken.reason)
        self._log.warning("link lost", reason=broken.reason)


def _one_listener(name: str, bindings: Sequence[DeviceBinding]) -> OcppConnector:
    addresses = [binding.address for binding in bindings if isinstance(binding.address, OcppConnector)]
    listeners = {(each.listen_host, each.listen_port, each.tls) for each in addresses}
    if len(listeners) != 1 or len(addresses) != len(bindings):
        raise ValueError(f"{name}: an OCPP link is for chargers that call at one port, with one TLS")
    return addresses[0]

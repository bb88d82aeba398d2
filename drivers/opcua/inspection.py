"""Looking at one device behind an OPC UA server by hand: every node once, and one named write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from config.profile import Access
from config.vocabulary import Quality, WriteStatus
from drivers.encoding import EncodeError
from drivers.inspection import InspectionFailed, Inspector, PointReading, bad, wanted_points
from drivers.opcua.connection import OpcUaConnection
from drivers.opcua.security import refusal
from drivers.opcua.values import NodeCodec, is_node, write_outcome
from drivers.writer import ConnectionBroken, Outcome

if TYPE_CHECKING:
    from config.profile import Profile
    from config.site import OpcUaServer
    from config.vocabulary import Clock
    from drivers.certificates import Certificate


class OpcUaInspector:
    """Implements `drivers.inspection.Inspector` over one session."""

    def __init__(self, profile: Profile, connection: OpcUaConnection, clock: Clock) -> None:
        self.identity = ("", "", "")
        self.missing: tuple[str, ...] = ()
        self._profile = profile
        self._connection = connection
        self._clock = clock
        self._addresses = {name: p.opcua for name, p in profile.points.items() if p.opcua is not None}
        self._codecs = {name: NodeCodec(profile.points[name], address) for name, address in self._addresses.items()}

    async def read(self, points: Collection[str] | None = None) -> dict[str, PointReading]:
        """Read the nodes of the points named (None: all that can be read); raises InspectionFailed."""
        names = wanted_points(self._profile, points)
        try:
            found = dict(zip(names, await self._connection.resolve([self._addresses[n] for n in names]), strict=True))
            there = [name for name, node in found.items() if is_node(node)]
            values = dict(zip(there, await self._connection.read([found[n] for n in there]), strict=True))
        except ConnectionBroken as broken:
            raise InspectionFailed(broken.reason) from None
        self.missing = tuple(name for name in names if name not in values)
        now_s = self._clock()
        readings = {}
        for name in names:
            if name not in values:
                readings[name] = bad(now_s, str(found[name]), self._where(name))
                continue
            data = values[name]
            sample = self._codecs[name].sample(data, now_s)
            raw = "" if data.Value is None else str(data.Value.Value)
            reason = "" if sample.quality is not Quality.BAD else _reason(data)
            readings[name] = PointReading(sample, self._where(name), raw, reason)
        return readings

    def encoded(self, point: str, value: float) -> str:
        """What a write would send; raises EncodeError."""
        raw = self._encode(point, value)
        return f"{self._addresses[point].type} {raw} to {self._where(point)}"

    async def write(self, point: str, value: float) -> Outcome:
        """Write one node and wait for its status."""
        raw = self._encode(point, value)
        try:
            node = (await self._connection.resolve([self._addresses[point]]))[0]
            if not is_node(node):
                return Outcome(WriteStatus.REFUSED, str(node))
            return write_outcome([point], await self._connection.write([node], [self._codecs[point].variant(raw)]))
        except ConnectionBroken as broken:
            return Outcome(WriteStatus.INDETERMINATE, broken.reason)

    def _encode(self, point: str, value: float) -> bool | int | float:
        if self._profile.points[point].access is Access.R:
            raise EncodeError(f"{point} is read-only in profile {self._profile.profile}")
        return self._codecs[point].encode(value)

    def _where(self, name: str) -> str:
        address = self._addresses[name]
        return address.identifier or "/".join(address.path or ())


@asynccontextmanager
async def opcua_inspector(profile: Profile, address: OpcUaServer, clock: Clock) -> AsyncIterator[Inspector]:
    """One session while the context lasts; raises InspectionFailed where there is none to be had."""
    connection = OpcUaConnection(address, profile.pace.timeout_s)
    orderly = False
    try:
        try:
            await connection.open()
        except ConnectionBroken as broken:
            raise InspectionFailed(f"{address.url}: {broken.reason}") from None
        yield OpcUaInspector(profile, connection, clock)
        orderly = True
    finally:
        await connection.close(orderly=orderly)


async def server_identity(address: OpcUaServer, timeout_s: float) -> tuple[str, Certificate, str | None]:
    """What a server says it is: application URI, certificate, and why that can't be used even if it were trusted.

    Raises InspectionFailed where it doesn't say so.
    """
    assert address.security is not None
    connection = OpcUaConnection(address, timeout_s)
    try:
        server = await connection.identity()
    except ConnectionBroken as broken:
        raise InspectionFailed(f"{address.url}: {broken.reason}") from None
    finally:
        await connection.close(orderly=False)
    return server.application_uri, server.certificate, refusal(server, address.security)


def _reason(data: object) -> str:
    status = getattr(data, "StatusCode", None)
    if status is not None and status.is_bad():
        return str(status.name)
    return "no value of this point"

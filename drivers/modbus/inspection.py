"""Looking at one Modbus device by hand: every point once, with the registers it came in, and one named write."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from config.profile import Access, PollGroup
from config.vocabulary import Quality, Sample, WritePriority, WriteStatus
from drivers.encoding import EncodeError, RegisterCodec
from drivers.inspection import InspectionFailed, PointReading, bad, hexadecimal, wanted_points
from drivers.modbus.block import Block, PlacedPoint, ScaleFactor
from drivers.modbus.endpoint import connector_of, endpoint_name, timing_of
from drivers.modbus.framing import Framing, TcpFraming
from drivers.modbus.line import Line
from drivers.modbus.overdue import Overdue
from drivers.modbus.plan import Places, plan_blocks, register_places
from drivers.modbus.request import AwaitedRequest, Failure, Pdu, RequestFailed, write_pdu
from drivers.modbus.rtu_framing import RtuFraming
from drivers.modbus.sums import Sums
from drivers.modbus.sunspec import NotSunSpec, definitions_of, discover, identity, resolve
from drivers.writer import Outcome

if TYPE_CHECKING:
    from config.profile import Profile
    from config.site import ModbusAddress
    from config.vocabulary import Clock
    from drivers.modbus.sunspec import Model

_SILENT_READS: Final = 2
"""So many reads without an answer, and none answered before: the device isn't there."""


class _AwaitedWrite(AwaitedRequest):
    """A write whose answer is awaited."""

    __slots__ = ()

    def __init__(self, name: str, unit: int, timeout_s: float, pdu: Pdu) -> None:
        super().__init__(name, unit, timeout_s, pdu)
        self.priority = WritePriority.SETPOINT


class ModbusInspector:
    """Implements `drivers.inspection.Inspector` for one unit on a line.

    A block that the device refuses is read again point by point, so that one missing register hides no other.
    """

    def __init__(
        self,
        profile: Profile,
        unit: int,
        line: Line,
        clock: Clock,
        *,
        chain: Sequence[Model] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.identity = ("", "", "")
        self.missing: tuple[str, ...] = ()
        self._profile = profile
        self._unit = unit
        self._line = line
        self._clock = clock
        self._timeout_s = profile.pace.timeout_s if timeout_s is None else timeout_s
        self._sums = Sums(profile)
        self._definitions = definitions_of(profile)
        self._is_sunspec = any(point.sunspec is not None for point in profile.points.values())
        self._chain = chain
        self._places: Places | None = None
        self._silent = 0
        self._answered = False

    async def read(self, points: Collection[str] | None = None) -> dict[str, PointReading]:
        """Read the points named (None: all that can be read); raises InspectionFailed if the device doesn't answer."""
        names = wanted_points(self._profile, points)
        places = await self._find()
        parts = {part for name in names for part in self._sums.needs(name)} | set(names)
        readings: dict[str, PointReading] = {}
        replies: list[tuple[Block, bytes, float]] = []
        for block in self._blocks(places, parts):
            await self._read_block(block, places, replies, readings)
        for block, reply, _ in replies:
            block.take_factors(reply)
        for block, reply, at_s in replies:
            for name, sample in block.decode(reply, at_s).items():
                readings[name] = self._reading(places.points[name], block, reply, sample)
        self._add_sums(readings)
        now_s = self._clock()
        for name in names:
            if name not in readings:
                reason = "the device does not offer it" if name in places.missing else "not read"
                readings[name] = bad(now_s, reason, self._where(name, None))
        return {name: readings[name] for name in names}

    def encoded(self, point: str, value: float) -> str:
        """What a write would send; raises EncodeError."""
        place, data = self._encode(point, value)
        function = "function 6" if self._single(data) else "function 16"
        return f"{function}, holding {place.address}: {hexadecimal(data)}"

    async def write(self, point: str, value: float) -> Outcome:
        """Write one point and wait for the answer; raises EncodeError before anything is sent."""
        place, data = self._encode(point, value)
        pdu = write_pdu(place.address, data, self._single(data))
        request = _AwaitedWrite(f"the write of {point}", self._unit, self._timeout_s, pdu)
        try:
            await self._line.exchange(request)
        except RequestFailed as failed:
            refused = failed.failure in (Failure.EXCEPTION, Failure.BUSY)
            return Outcome(WriteStatus.REFUSED if refused else WriteStatus.INDETERMINATE, failed.detail)
        return Outcome(WriteStatus.ACKNOWLEDGED)

    async def _find(self) -> Places:
        """Where the points are; once."""
        if self._places is not None:
            return self._places
        registers = register_places(self._profile)
        if not self._is_sunspec:
            self._places = Places(registers)
            return self._places
        try:
            if self._chain is None:
                _, self._chain = await discover(self._holding)
            self.identity = await identity(self._holding, self._chain)
        except RequestFailed as failed:
            raise InspectionFailed(f"{self._line.name}, unit {self._unit}: {failed.detail}") from None
        except NotSunSpec as unusable:
            raise InspectionFailed(f"{self._line.name}, unit {self._unit}: {unusable}") from None
        found = resolve(self._profile, self._chain, self._definitions)
        self.missing = tuple(found.missing)
        self._places = Places({**registers, **found.points}, found.factors, found.missing)
        return self._places

    async def _holding(self, first: int, count: int) -> bytes:
        return (await self._line.read(self._unit, self._timeout_s, "holding", first, count))[2:]

    def _blocks(self, places: Places, wanted: Collection[str]) -> list[Block]:
        """The reads for the points wanted; those of a SunSpec device stay whole, for the scale factors in them."""
        blocks = plan_blocks(self._profile, places)
        every = [block for group in (PollGroup.ONCE, PollGroup.SLOW, PollGroup.FAST) for block in blocks[group]]
        if places.factors and wanted:
            return every
        return [block for block in every if not set(wanted).isdisjoint(block.names)]

    async def _read_block(
        self,
        block: Block,
        places: Places,
        replies: list[tuple[Block, bytes, float]],
        readings: dict[str, PointReading],
    ) -> None:
        try:
            reply = await self._line.read(self._unit, self._timeout_s, block.table, block.first, block.count)
        except RequestFailed as failed:
            self._judge(failed)
            factors = [f for f in places.factors if block.first <= f.address < block.first + block.count]
            if failed.failure is Failure.EXCEPTION and len(block.names) + len(factors) > 1:
                for part in _parts(block, places.points, factors):
                    await self._read_block(part, places, replies, readings)
                return
            for name in block.names:
                readings[name] = bad(self._clock(), failed.detail, self._where(name, places.points[name]))
            return
        self._answered, self._silent = True, 0
        replies.append((block, reply, self._clock()))

    def _judge(self, failed: RequestFailed) -> None:
        """Count what tells a device that isn't there from one that refuses or misses a single read."""
        if failed.failure in (Failure.EXCEPTION, Failure.BUSY, Failure.UNDER_WAY):
            self._answered, self._silent = True, 0
            return
        self._silent += 1
        if not self._answered and self._silent >= _SILENT_READS:
            raise InspectionFailed(f"{self._line.name}, unit {self._unit}: {failed.detail}") from None

    def _reading(self, place: PlacedPoint, block: Block, reply: bytes, sample: Sample) -> PointReading:
        at = 2 + 2 * (place.address - block.first)
        registers = reply[at : at + 2 * place.codec.registers]
        reason = ""
        if sample.quality is Quality.BAD:
            reason = place.codec.refusal(struct.unpack(f">{place.codec.format}", registers)[0])
        return PointReading(sample, self._where(place.name, place), hexadecimal(registers), reason)

    def _where(self, name: str, place: PlacedPoint | None) -> str:
        point = self._profile.points[name]
        if point.sum is not None:
            return f"sum of {', '.join(point.sum)}"
        model = ""
        if point.sunspec is not None:
            models = self._models_at(place) or point.sunspec.models
            model = f"{point.sunspec.point} of model {' or '.join(map(str, models))}"
        registers = "" if place is None else f"{place.table} {place.address}"
        return f"{registers} ({model})" if registers and model else registers or model

    def _models_at(self, place: PlacedPoint | None) -> list[int]:
        """The model in which a place is."""
        if place is None:
            return []
        return [m.id for m in self._chain or () if m.address <= place.address < m.address + m.length + 2]

    def _add_sums(self, readings: dict[str, PointReading]) -> None:
        samples = {name: reading.sample for name, reading in readings.items()}
        self._sums.add(samples)
        for name, sample in samples.items():
            if name not in readings:
                reason = "" if sample.quality is not Quality.BAD else "a part of it is bad, or it is out of its range"
                readings[name] = PointReading(sample, self._where(name, None), "", reason)

    def _encode(self, point: str, value: float) -> tuple[PlacedPoint, bytes]:
        if self._profile.points[point].access is Access.R:
            raise EncodeError(f"{point} is read-only in profile {self._profile.profile}")
        place = None if self._places is None else self._places.points.get(point)
        if place is None or not isinstance(place.codec, RegisterCodec):
            raise EncodeError(f"{point}: the device does not offer it, or it is no number")
        return place, place.codec.encode(value)

    def _single(self, data: bytes) -> bool:
        return len(data) == 2 and self._profile.pace.write_function != "multiple"


def _parts(block: Block, points: Mapping[str, PlacedPoint], factors: Sequence[ScaleFactor]) -> list[Block]:
    single = [Block(block.table, factor.address, 1, (), (factor,)) for factor in factors]
    for name in block.names:
        place = points[name]
        single.append(Block(block.table, place.address, place.codec.registers, (place,)))
    return single


@asynccontextmanager
async def modbus_line(
    address: ModbusAddress, connect_pause_s: float = 0.0, request_gap_s: float = 0.0
) -> AsyncIterator[Line]:
    """A line to the address while the context lasts; it connects with the first request."""
    timing = timing_of(address)
    overdue = None if timing is None else Overdue(asyncio.get_running_loop().time)

    def framing() -> Framing:
        return TcpFraming() if overdue is None else RtuFraming(overdue)

    line = Line(
        endpoint_name(address).partition("://")[2],
        connector_of(address),
        connect_pause_s=connect_pause_s,
        request_gap_s=max(request_gap_s, 0.0 if timing is None else timing.silence_s),
        framing=framing,
        overdue=overdue,
    )
    try:
        yield line
    finally:
        await line.close()

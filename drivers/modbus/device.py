"""One device on a link: found, read in groups, written, and told apart from the link that it hangs on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from config.profile import Access, PollGroup
from config.site import ModbusAddress, ModbusTcpAddress
from config.vocabulary import POWER_W, Clock, FieldSink, Quality, Sample, WritePriority
from drivers.backoff import Backoff
from drivers.binding import DeviceBinding
from drivers.driver import LinkStats
from drivers.modbus.answer_time import AnswerTime
from drivers.modbus.block import Block, ReplySamples
from drivers.modbus.connection import Connection
from drivers.modbus.plan import Places, plan_blocks, register_places, register_plan
from drivers.modbus.read_plan import PlanError
from drivers.modbus.request import Failure, Request, RequestFailed, read_pdu
from drivers.modbus.setpoint_writer import SetpointWriter
from drivers.modbus.sums import Sums
from drivers.modbus.sunspec import BASES, NotSunSpec, definitions_of, discover, identify, resolve

# A device that answers and cannot be used yet (it boots, or its map is not there) is asked again after such a pause.
_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 5.0
_LONGEST_BUSY_S: Final = 1.0
_SILENT: Final = (Failure.LOST, Failure.TIMEOUT, Failure.UNANSWERED)


class _Part(NamedTuple):
    """What became of one block: its reply, or None and why."""

    block: Block
    reply: bytes | None
    at_s: float
    detail: str = ""


class _Group:
    """The blocks of one poll group; its samples are delivered together, when the last block has answered.

    `left`: how many have not.
    """

    __slots__ = ("_alone", "_deliver", "_deliver_later", "_parts", "_requests", "answered", "left")

    def __init__(
        self, deliver: Callable[[dict[str, Sample], str], None], later: Callable[[ReplySamples], None] | None
    ) -> None:
        """`later`: takes samples that are decoded when they are asked for; None where they must not be."""
        self._deliver = deliver
        self._deliver_later = later
        self._alone = False
        self._requests: tuple[_BlockRead, ...] = ()
        self.left = 0
        self._parts: list[_Part] = []
        self.answered = False

    def plan(self, requests: Sequence[_BlockRead]) -> None:
        """Take the requests for this connection; nothing is under way any more."""
        self._requests = tuple(requests)
        self.left = 0
        self._alone = len(self._requests) == 1 and self._requests[0].block.steady

    @property
    def empty(self) -> bool:
        return not self._requests

    def start(self, connection: Connection) -> None:
        self._parts = []
        self.left = len(self._requests)
        for request in self._requests:
            connection.submit(request)

    def take_reply(self, block: Block, reply: bytes, at_s: float) -> None:
        """One block is answered."""
        if self._alone and self._deliver_later is not None:
            # The way of nearly every reply, so it is kept short from here to the image.
            self.left = 0
            self.answered = True
            self._deliver_later(ReplySamples(block, reply, at_s))
        else:
            self.take(_Part(block, reply, at_s))

    def take(self, part: _Part | None) -> None:
        """One block is done with; None: it was dropped, and nothing is known of it."""
        self.left -= 1
        if part is not None:
            self._parts.append(part)
            self.answered = self.answered or part.reply is not None
        if self.left == 0:
            self._deliver(*_samples(self._parts))


def _samples(parts: Sequence[_Part]) -> tuple[dict[str, Sample], str]:
    """The samples of blocks read together, and why some are bad; every scale factor counts before any value."""
    if len(parts) > 1:
        for part in parts:
            if part.reply is not None:
                part.block.take_factors(part.reply)
    samples: dict[str, Sample] = {}
    detail = ""
    for block, reply, at_s, why in parts:
        samples.update(block.decode(reply, at_s) if reply is not None else block.bad(at_s))
        detail = detail or why
    return samples, detail


class _BlockRead(Request):
    """The read of one block, sent again with each poll."""

    __slots__ = ("_clock", "_group", "_stats", "block")

    def __init__(
        self, name: str, unit: int, priority: WritePriority, timeout_s: float, block: Block, group: _Group,
        stats: LinkStats, clock: Clock,
    ) -> None:  # fmt: skip
        super().__init__(name, unit, priority, timeout_s, read_pdu(block.table, block.first, block.count))
        self.block = block
        self._group = group
        self._stats = stats
        self._clock = clock

    def succeeded(self, reply: bytes) -> None:
        self._stats.good += 1
        self._group.take_reply(self.block, reply, self._clock())

    def failed(self, failure: Failure, detail: str) -> None:
        if failure in (Failure.DROPPED, Failure.BUSY, Failure.UNDER_WAY):
            self._group.take(None)
        elif failure not in (Failure.LOST, Failure.TIMEOUT):
            self._group.take(_Part(self.block, None, self._clock(), detail))


class ModbusDevice:
    """Samples are measured when their reply arrives; the device is present while its power is good.

    `patience_s`: a device whose fast poll usually takes longer is not worth waiting for.

    Set-up, once a connection: find the SunSpec models where the profile names any, read everything once, and only then
    let setpoints through. A profile of plain registers whose device has been read before is written first of all.
    """

    def __init__(
        self,
        binding: DeviceBinding,
        sink: FieldSink,
        stats: LinkStats,
        clock: Clock,
        rng: random.Random,
        patience_s: float,
    ) -> None:
        if not isinstance(binding.address, ModbusAddress):
            raise TypeError(f"{binding.name}: not a Modbus address")
        self.name = binding.name
        self.writer = SetpointWriter(binding, binding.address.unit, sink, stats, clock)
        self._profile = binding.profile
        self.unit = binding.address.unit
        self._on_a_line = not isinstance(binding.address, ModbusTcpAddress)
        self.pace = binding.profile.pace
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._rng = rng
        self._log = structlog.get_logger("drivers.modbus").bind(device=binding.name)
        self._sums = Sums(binding.profile)
        self._definitions = definitions_of(binding.profile)
        self._is_sunspec = any(point.sunspec is not None for point in binding.profile.points.values())
        self._plan = None if self._is_sunspec else register_plan(binding.profile)
        self._registers = register_places(binding.profile) if self._plan is None else self._plan.places.points
        self._bases: tuple[int, ...] = BASES
        self._watched = _watched_point(binding)
        self._answers = AnswerTime(clock, patience_s)
        summed = bool(self._sums)
        self._groups = {
            PollGroup.FAST: _Group(self._deliver_fast, None if summed else self._deliver_fast_later),
            PollGroup.SLOW: _Group(self._deliver, None if summed else self._deliver_later),
            PollGroup.ONCE: _Group(self._deliver, None if summed else self._deliver_later),
        }
        self._fast = self._groups[PollGroup.FAST]
        self._places = Places(self._registers)
        self._connection: Connection | None = None
        self._slow_timer: asyncio.TimerHandle | None = None
        self._present: bool | None = None
        stats.devices[binding.name] = False

    async def set_up(self, connection: Connection) -> str:
        """Make the device ready on a connection; one that can't be used yet is asked again and again. Returns when it
        is ready, or else the reason for which it fell silent.
        """
        retry = Backoff(self._rng, _FIRST_RETRY_S, _LONGEST_RETRY_S)
        if self._fast.answered and not self._is_sunspec:
            self.writer.begin(connection, self._registers)
        while True:
            try:
                await self._prepare(connection)
            except RequestFailed as failed:
                if failed.failure in _SILENT:
                    return failed.detail
                self._set_present(False, failed.detail)
                pause_s = min(retry.pause_s(), _LONGEST_BUSY_S)
            except (NotSunSpec, PlanError) as unusable:
                self._set_present(False, str(unusable))
                pause_s = retry.pause_s()
            else:
                return ""
            await asyncio.sleep(pause_s)

    def unit_lost(self, reason: str) -> None:
        """The device fell silent on a link that goes on."""
        self._set_present(False, reason)
        self.link_lost()
        self._present = False

    def link_lost(self) -> None:
        """Nothing is under way any more, and nothing is known of the device."""
        self._connection = None
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None
        for group in self._groups.values():
            group.plan(())
        self._present = None
        self._stats.devices[self.name] = False
        self.writer.end()

    def poll(self) -> bool:
        """Start the fast poll unless one is under way; whether its answer is worth waiting for."""
        connection = self._connection
        fast = self._fast
        if connection is None or fast.left:
            return False
        self._answers.asked()
        fast.start(connection)
        return self._present is True and fast.left > 0 and self._answers.come_soon

    async def _prepare(self, connection: Connection) -> None:
        """Find the points, read what is slow (scale factors are), and start the first fast poll."""
        places = await self._find(connection) if self._plan is None else self._plan.places
        if not self._sums.needs(self._watched).isdisjoint(places.missing):
            raise NotSunSpec(f"the device has no model that gives {self._watched}")
        blocks = (
            plan_blocks(self._profile, places, on_a_line=self._on_a_line) if self._plan is None else self._plan.blocks
        )
        self._places = places
        parts = [
            await self._read_now(connection, block) for block in (*blocks[PollGroup.ONCE], *blocks[PollGroup.SLOW])
        ]
        self._deliver(*_samples(parts))
        self._deliver(dict.fromkeys(places.missing, Sample(None, Quality.BAD, self._clock())), "")
        for group, planned in blocks.items():
            self._groups[group].plan([self._request(group, block) for block in planned])
        self._connection = connection
        self._answers.asked()
        self._fast.start(connection)
        if self._fast.empty:
            self.writer.begin(connection, places.points)
        period_s = self.pace.slow_poll_s
        self._slow_timer = asyncio.get_running_loop().call_later(period_s * self._rng.random(), self._poll_slowly)

    async def _find(self, connection: Connection) -> Places:
        """Walk the SunSpec chain and resolve the profile's points in it."""

        async def read(first: int, count: int) -> bytes:
            return (await self._read(connection, "holding", first, count))[2:]

        try:
            base, chain = await discover(read, self._bases)
        except RequestFailed:
            # A device that is silent where it has no registers must not be asked there first for ever.
            self._bases = (*self._bases[1:], self._bases[0])
            raise
        self._bases = (base, *(other for other in BASES if other != base))
        identity = await identify(read, chain)
        places = resolve(self._profile, chain, self._definitions)
        if self._stats.identities.get(self.name) != identity:
            self._stats.identities[self.name] = identity
            self._log.info("device identified", identity=identity, models=[model.id for model in chain])
            if places.missing:
                self._log.info("points not offered", points=list(places.missing))
        return Places({**self._registers, **places.points}, places.factors, places.missing)

    async def _read(self, connection: Connection, table: str, first: int, count: int) -> bytes:
        name = f"the read of {count} at {first} of {self.name}"
        return await connection.read(name, self.unit, self.pace.timeout_s, table, first, count)

    async def _read_now(self, connection: Connection, block: Block) -> _Part:
        """Read a block during set-up; one that the device refuses is bad and stops nothing."""
        try:
            reply = await self._read(connection, block.table, block.first, block.count)
        except RequestFailed as failed:
            if failed.failure not in (Failure.EXCEPTION, Failure.REJECTED):
                raise
            return _Part(block, None, self._clock(), failed.detail)
        self._stats.good += 1
        return _Part(block, reply, self._clock())

    def _request(self, group: PollGroup, block: Block) -> _BlockRead:
        priority = WritePriority.FAST_POLL if group is PollGroup.FAST else WritePriority.SLOW_POLL
        name = f"the {group.value} poll of {self.name} at {block.first}"
        timeout_s = self.pace.timeout_s
        return _BlockRead(name, self.unit, priority, timeout_s, block, self._groups[group], self._stats, self._clock)

    def _poll_slowly(self) -> None:
        connection = self._connection
        if connection is None:
            return
        period_s = self.pace.slow_poll_s
        self._slow_timer = asyncio.get_running_loop().call_later(period_s, self._poll_slowly)
        if self._fast.empty:
            self.writer.begin(connection, self._places.points)
        group = self._groups[PollGroup.SLOW]
        if not group.left:
            group.start(connection)

    def _deliver(self, samples: dict[str, Sample], detail: str) -> None:
        self._sums.add(samples)
        if samples:
            self._sink.samples(self.name, samples)
        if self._watched in samples:
            self._judge(samples[self._watched], detail)

    def _deliver_later(self, samples: ReplySamples) -> None:
        """Of a group that is one reply, whose samples are decoded when they are asked for."""
        self._sink.samples(self.name, samples)
        if self._watched in samples.names:
            self._judge(samples[self._watched], "")

    def _deliver_fast(self, samples: dict[str, Sample], detail: str) -> None:
        self._answers.answered()
        self._deliver(samples, detail)
        self._begin_writes()

    def _deliver_fast_later(self, samples: ReplySamples) -> None:
        self._answers.answered()
        self._deliver_later(samples)
        if self.writer.connection is not self._connection:
            self._begin_writes()

    def _begin_writes(self) -> None:
        """What has been read may be written."""
        connection = self._connection
        if connection is not None and self.writer.connection is not connection and self._fast.answered:
            self.writer.begin(connection, self._places.points)

    def _judge(self, sample: Sample, detail: str) -> None:
        if sample.quality is Quality.BAD:
            self._set_present(False, detail or f"{self._watched} is not a value")
        elif self._present is not True:
            self._set_present(True, "answers")

    def _set_present(self, present: bool, reason: str) -> None:
        if self._present is present:
            return
        self._present = present
        self._stats.devices[self.name] = present
        self._sink.device_state(self.name, present, reason)
        if present:
            self._log.info("device present")
        else:
            self._log.warning("device absent", reason=reason)


def _watched_point(binding: DeviceBinding) -> str:
    """The point by which a device counts as present: its power, or else the first that is read most often."""
    points = binding.profile.points
    if POWER_W in points:
        return POWER_W
    readable = [name for name, point in points.items() if point.access is not Access.W]
    fast = [name for name in readable if points[name].poll is PollGroup.FAST]
    return next(iter(fast or readable), "")

"""Serves a recording as twins: the same units, whose registers change when they did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from config.vocabulary import Clock
from sim_devices.modbus import ExceptionCode, ModbusServer, Table
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE, refusal
from sim_devices.recording import RecordedRead

AtEnd: TypeAlias = Literal["hold", "loop"]
FUNCTIONS: Final = frozenset({READ_HOLDING, READ_INPUT, WRITE_SINGLE, WRITE_MULTIPLE})


class ReplayUnit:
    """One unit of a recording, at the time that its clock says.

    Before a register was first read it holds what was first read of it. A write is acknowledged, counted in `writes`,
    and holds until the recording brings another value than it had. Reads that were refused are refused again, with the
    same exception, and while reads had no answer the unit has none: `silent`. A read over a gap between registers that
    were recorded gets zeros there, counted in `filled`: another version of a reader joins its reads in another way.
    """

    functions = FUNCTIONS

    def __init__(self, reads: Iterable[RecordedRead], length_s: float, clock: Clock, at_end: AtEnd = "hold") -> None:
        self.writes = 0
        self.filled = 0
        self.silent = False
        self._reads = tuple(reads)
        self._length_s = length_s
        self._clock = clock
        self._began_s = clock()
        self._at_end = at_end
        self._rounds = 0
        self._next = 0
        self._recorded: dict[Table, dict[int, int]] = {table: {} for table in Table}
        self._served: dict[Table, dict[int, int]] = {table: {} for table in Table}
        self._refused: dict[tuple[Table, int, int], int] = {}
        for read in reversed(self._reads):
            self._take(read)
        self.silent = False

    def begin(self) -> None:
        """The recording begins now."""
        self._began_s = self._clock()

    def advance(self) -> None:
        """Come to the present instant of the recording."""
        at_s = self._clock() - self._began_s
        if self._at_end == "loop" and self._length_s > 0:
            rounds, at_s = divmod(at_s, self._length_s)
            if rounds > self._rounds:
                self._play(self._length_s)
                self._rounds, self._next = int(rounds), 0
        self._play(at_s)

    def _play(self, until_s: float) -> None:
        while self._next < len(self._reads) and self._reads[self._next].at_s <= until_s:
            self._take(self._reads[self._next])
            self._next += 1

    def _take(self, read: RecordedRead) -> None:
        table, asked = Table(read.table), (Table(read.table), read.first, read.count)
        self.silent = not read.is_answered
        if read.exception is not None:
            self._refused[asked] = read.exception
        if read.words is None:
            return
        self._refused.pop(asked, None)
        recorded, served = self._recorded[table], self._served[table]
        for address, word in enumerate(read.words, start=read.first):
            if recorded.get(address) != word:
                recorded[address] = served[address] = word

    def refusal(self, table: Table, address: int, count: int) -> int | None:
        """The exception with which exactly this read was refused, if it was."""
        return self._refused.get((table, address, count))

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """What the registers held; a read that begins or ends where nothing was recorded is refused."""
        self.advance()
        served = self._served[table]
        if address not in served or address + count - 1 not in served:
            return ExceptionCode.ILLEGAL_ADDRESS
        words = [served.get(at) for at in range(address, address + count)]
        self.filled += words.count(None)
        return b"".join((word or 0).to_bytes(2, "big") for word in words)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Taken, whatever it is: the recording doesn't say what the device would have refused."""
        self.advance()
        self.writes += 1
        served = self._served[Table.HOLDING]
        for at in range(0, len(data), 2):
            served[address + at // 2] = int.from_bytes(data[at : at + 2], "big")
        return None


class ReplayServer(ModbusServer):
    """A server whose units are silent and refuse as they did when they were recorded."""

    def reply(self, unit_id: int, request: bytes) -> bytes | None:
        """The response to one request, without framing; None where there was none."""
        unit = self.units.get(unit_id)
        if isinstance(unit, ReplayUnit):
            unit.advance()
            if unit.silent:
                self.counts.requests += 1
                self.counts.absent += 1
                return None
            if len(request) == 5 and request[0] in (READ_HOLDING, READ_INPUT):
                table = Table.HOLDING if request[0] == READ_HOLDING else Table.INPUT
                code = unit.refusal(table, int.from_bytes(request[1:3], "big"), int.from_bytes(request[3:5], "big"))
                if code is not None:
                    self.counts.requests += 1
                    self.counts.exceptions += 1
                    return bytes((refusal(request[0], ExceptionCode.DEVICE_FAILURE)[0], code))
        return super().reply(unit_id, request)

"""What the units of a line may still answer to requests that were given up.

A serial reply names no request: the late answer to a read of address 0 is a right answer to the read of as many
registers at 100. So a unit that owes an answer is not asked anything that this answer would fit. It is asked for
something else first, in whose reply a late answer can't hide; a unit works in sequence, and once it has answered that,
what it owed is void.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from config.vocabulary import Clock
from drivers.modbus.request import READ_HOLDING, READ_INPUT, Pdu, read_pdu

# Far beyond any device's answer and any radio's or server's store.
_LIFE_S: Final = 30.0
_READS: Final = (READ_HOLDING, READ_INPUT)


class _Owed(NamedTuple):
    pdu: Pdu
    since_s: float
    until_s: float


class Overdue:
    """Owed answers by unit, in the order in which they were asked for; kept over the link's connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._owed: dict[int, list[_Owed]] = {}
        self._readable: dict[int, Pdu] = {}

    def add(self, unit: int, pdu: Pdu) -> None:
        """A request was given up; its answer may still come."""
        now_s = self._clock()
        owed = [each for each in self._owed.get(unit, ()) if each.until_s > now_s]
        self._owed[unit] = [*owed, _Owed(pdu, now_s, now_s + _LIFE_S)]

    def of(self, unit: int) -> Iterator[Pdu]:
        """The requests that a unit has not answered, oldest first."""
        owed = self._owed.get(unit)
        if owed:
            now_s = self._clock()
            yield from [each.pdu for each in owed if each.until_s > now_s]

    def fits(self, unit: int, pdu: Pdu) -> bool:
        """Whether something that the unit owes could be taken for the answer to this request."""
        return any(late.reply_prefix == pdu.reply_prefix for late in self.of(unit))

    def came(self, unit: int, pdu: Pdu) -> None:
        """A late answer came: what was asked before it is void, what was asked after it is still owed."""
        owed = self._owed.get(unit, [])
        at = next((at for at, each in enumerate(owed) if each.pdu is pdu), -1)
        del owed[: at + 1]

    def answered(self, unit: int, pdu: Pdu, is_exception: bool) -> None:
        """The request in flight was answered. An exception may be the answer to any; then this one is owed, too."""
        if not is_exception:
            self._owed.pop(unit, None)
            known = self._readable.get(unit)
            if pdu.data[0] in _READS and (known is None or _count(pdu) >= _count(known)):
                self._readable[unit] = pdu
        elif any(True for _ in self.of(unit)):
            self.add(unit, pdu)

    def probe(self, unit: int, pdu: Pdu) -> Pdu | None:
        """A read that the unit can answer, fewer registers of a known one, and that nothing owed fits, nor `pdu`'s
        answer; None if there is none.
        """
        taken = {late.reply_prefix for late in self.of(unit)} | {pdu.reply_prefix}
        for base in (pdu if pdu.data[0] in _READS else None, self._readable.get(unit)):
            if base is None:
                continue
            function, first, count = struct.unpack(">BHH", base.data)
            for fewer in range(1, min(count, len(taken) + 2)):
                probe = read_pdu("input" if function == READ_INPUT else "holding", first, fewer)
                if probe.reply_prefix not in taken:
                    return probe
        return None

    def void_in_s(self, unit: int, alone_s: float) -> float:
        """How long until what the unit owes is void because it was left alone for `alone_s` since it was last asked."""
        owed = self._owed.get(unit)
        if not owed:
            return 0.0
        now_s = self._clock()
        void_s = owed[-1].since_s + alone_s
        owed[:] = [each._replace(until_s=min(each.until_s, void_s)) for each in owed]
        return max(0.0, void_s - now_s)


def _count(pdu: Pdu) -> int:
    return int.from_bytes(pdu.data[3:5])

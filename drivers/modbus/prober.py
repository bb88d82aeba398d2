"""Looking for units on a line: who answers, and what SunSpec models it has. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from drivers.inspection import FoundUnit, InspectionFailed, Inspector
from drivers.modbus.inspection import ModbusInspector
from drivers.modbus.line import Line
from drivers.modbus.request import Failure, RequestFailed
from drivers.modbus.sunspec import Model, NotSunSpec, discover, identity

if TYPE_CHECKING:
    from config.profile import Profile
    from config.vocabulary import Clock

_SILENT: Final = (Failure.TIMEOUT, Failure.UNANSWERED, Failure.LOST, Failure.DROPPED)
_TABLES: Final = ("holding", "input")


class ModbusProber:
    """Implements `drivers.inspection.Prober`: functions 3 and 4 at register 0, then the SunSpec chain.

    Any answer means that a unit is there, an exception too, but for a gateway's own that it doesn't reach the unit.
    Each silent read costs `timeout_s`.
    """

    def __init__(self, line: Line, clock: Clock, timeout_s: float) -> None:
        self._line = line
        self._clock = clock
        self._timeout_s = timeout_s
        self._chains: dict[int, list[Model]] = {}

    async def probe(self, unit: int) -> FoundUnit | None:
        """Whether a unit is there, and what it says of itself; raises InspectionFailed without a connection."""
        answered = ""
        for table in _TABLES:
            try:
                await self._line.read(unit, self._timeout_s, table, 0, 1)
                answered = f"a register ({table} 0)"
            except RequestFailed as failed:
                if failed.failure is Failure.UNREACHED:
                    return None
                if failed.failure not in _SILENT:
                    answered = failed.detail
            if answered:
                return await self._sunspec(FoundUnit(unit, answered))
        return None

    def inspector(self, profile: Profile, found: FoundUnit) -> Inspector:
        """Look at a unit that was found as at a device of this kind."""
        chain = self._chains.get(found.unit, [])
        return ModbusInspector(profile, found.unit, self._line, self._clock, chain=chain, timeout_s=self._timeout_s)

    async def _sunspec(self, found: FoundUnit) -> FoundUnit:
        async def read(first: int, count: int) -> bytes:
            return (await self._line.read(found.unit, self._timeout_s, "holding", first, count))[2:]

        try:
            base, chain = await discover(read)
            said = await identity(read, chain)
        except (NotSunSpec, RequestFailed, InspectionFailed):
            return found
        self._chains[found.unit] = chain
        return found._replace(base=base, models=tuple(model.id for model in chain), identity=said)

"""Looking at one charger by hand: it has to call, is asked for what it measures, and takes one named write."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from config.profile import Access
from config.vocabulary import LinkState, Quality, Sample, WriteResult
from drivers.binding import DeviceBinding
from drivers.commands import Command
from drivers.encoding import EncodeError
from drivers.inspection import InspectionFailed, Inspector, PointReading, bad, wanted_points
from drivers.ocpp.driver import OcppDriver

if TYPE_CHECKING:
    from config.profile import OcppAddress, Profile
    from config.site import OcppConnector
    from config.vocabulary import Clock
    from drivers.writer import Outcome

_DEVICE: Final = "charger"
# Chargers call again after pauses that grow to about this.
_CALL_S: Final = 60.0


class _Heard:
    """The sink of the driver: the newest samples, and whether the charger is there."""

    def __init__(self) -> None:
        self.samples_by_name: dict[str, Sample] = {}
        self.present = False
        self.lost = ""
        self._told = asyncio.Event()

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        self.samples_by_name.update(samples)
        self._told.set()

    def write_result(self, result: WriteResult) -> None:
        pass

    def link_state(self, link: str, state: LinkState, reason: str) -> None:
        self.lost = reason if state is LinkState.LOST else ""
        self._told.set()

    def device_state(self, device: str, present: bool, reason: str) -> None:
        self.present = present
        self._told.set()

    async def until_there(self) -> None:
        while not self.present and not self.lost:
            await self._next()

    async def until_heard(self, points: Collection[str]) -> None:
        while not self.samples_by_name.keys() >= set(points):
            await self._next()

    async def _next(self) -> None:
        self._told.clear()
        await self._told.wait()


class OcppInspector:
    """Implements `drivers.inspection.Inspector`: listens where the site file says, until the charger calls."""

    def __init__(
        self, profile: Profile, address: OcppConnector, clock: Clock, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.identity = ("", "", "")
        self.missing: tuple[str, ...] = ()
        self.heard = _Heard()
        binding = DeviceBinding(_DEVICE, profile, address, rating_w=1.0, writable=False)
        self.driver = OcppDriver("inspection", [binding], self.heard, clock)
        self._profile = profile
        self._charger = self.driver.charge_points[address.charge_point]
        self._clock = clock
        self._tell = tell
        self._addresses = {name: p.ocpp for name, p in profile.points.items() if p.ocpp is not None}

    async def read(self, points: Collection[str] | None = None) -> dict[str, PointReading]:
        """Ask for status and meter values, and give what came; raises InspectionFailed if the charger is gone."""
        names = wanted_points(self._profile, points)
        if not names:
            return {}
        self._tell(f"asking the charger for its status and meter values, up to {self._profile.pace.silence_s:g} s")
        self.heard.samples_by_name.clear()
        self._charger.ask_again()
        try:
            async with asyncio.timeout(self._profile.pace.silence_s):
                await self.heard.until_heard(names)
        except TimeoutError:
            if not self.heard.present:
                raise InspectionFailed("the charger is gone") from None
        self.identity = (self.driver.stats.identities.get(_DEVICE, ""), "", "")
        return {name: self._reading(name) for name in names}

    def encoded(self, point: str, value: float) -> str:
        """What a write would send; raises EncodeError."""
        return f"{self.driver.encoded(_DEVICE, Command(point, value)).raw:g} by {self._where(point)}"

    async def write(self, point: str, value: float) -> Outcome:
        """Send one command and wait for the answer; raises EncodeError before."""
        if self._profile.points[point].access is Access.R:
            raise EncodeError(f"{point} is read-only in profile {self._profile.profile}")
        try:
            async with asyncio.timeout(self._profile.pace.silence_s):
                await self._charger.was_asked.wait()
        except TimeoutError:
            raise InspectionFailed("the charger is gone") from None
        return await self.driver.command(_DEVICE, point, value)

    def _reading(self, name: str) -> PointReading:
        sample = self.heard.samples_by_name.get(name)
        if sample is None:
            return bad(self._clock(), "the charger did not send it", self._where(name))
        reason = "" if sample.quality is not Quality.BAD else "no value of this point"
        return PointReading(sample, self._where(name), "", reason)

    def _where(self, name: str) -> str:
        return _words(self._addresses[name])


@asynccontextmanager
async def ocpp_inspector(
    profile: Profile, address: OcppConnector, clock: Clock, tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Inspector]:
    """Listen while the context lasts; raises InspectionFailed where the charger doesn't call.

    `tell` hears what is waited for, since that takes up to a minute.
    """
    if address.password_env is not None and address.password_env not in os.environ:
        words = f"the environment variable {address.password_env}, which holds the charger's password, is not set"
        raise InspectionFailed(words)
    inspector = OcppInspector(profile, address, clock, tell)
    name, host, port = address.charge_point, address.listen_host, address.listen_port
    running = asyncio.create_task(inspector.driver.run(), name="inspection of a charger")
    try:
        tell(f"waiting for the charger {name} to connect on port {port}, up to {_CALL_S:g} s")
        try:
            async with asyncio.timeout(_CALL_S):
                await inspector.heard.until_there()
        except TimeoutError:
            raise InspectionFailed(_not_called(inspector, name, f"{host}:{port}")) from None
        if inspector.heard.lost:
            raise InspectionFailed(f"{inspector.heard.lost}; is the gateway running?")
        yield inspector
    finally:
        running.cancel()
        await asyncio.wait([running])


def _not_called(inspector: OcppInspector, name: str, where: str) -> str:
    refused = inspector.driver.stats.refused
    words = f"{name} did not call at {where} within {_CALL_S:g} s"
    if refused:
        return f"{words}, and {refused} call{'s were' if refused > 1 else ' was'} refused: the name or the password"
    return f"{words}: look at the address of its central system, which ends with /{name}"


def _words(address: OcppAddress) -> str:
    if address.command is not None:
        return address.command
    if address.measurand is None:
        return "status" if address.status else "transaction energy"
    return " ".join(part for part in (address.measurand, address.phase) if part is not None)

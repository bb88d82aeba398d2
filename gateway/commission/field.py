"""The site's drivers at work for commissioning: everything is read, and only what is named is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from config.profile import Profile
from config.site import Address, Site
from config.vocabulary import Clock, LinkState, Quality, Sample, Setpoint, WritePriority, WriteResult, WriteStatus
from drivers.driver import Driver
from gateway.composition import build_drivers

REST_TIMEOUT_S: Final = 2.0
SETPOINT_LIFE_S: Final = 2.0
_ANSWER_SLACK_S: Final = 3.0

Listener = Callable[[str, Mapping[str, Sample]], None]


@dataclass(slots=True)
class FieldView:
    """The `FieldSink` of commissioning: the latest samples, who is there, and what became of each write."""

    latest: dict[str, dict[str, Sample]] = field(default_factory=dict)
    present: dict[str, bool] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    listener: Listener | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _results: dict[int, WriteResult] = field(default_factory=dict)

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        self.latest.setdefault(device, {}).update(samples)
        if self.listener is not None:
            self.listener(device, samples)
        self.changed.set()

    def write_result(self, result: WriteResult) -> None:
        self._results[result.sequence] = result
        self.changed.set()

    def link_state(self, link: str, state: LinkState, reason: str) -> None:
        if state is LinkState.LOST:
            self.reasons[link] = reason
        self.changed.set()

    def device_state(self, device: str, present: bool, reason: str) -> None:
        self.present[device] = present
        self.reasons[device] = "" if present else reason
        self.changed.set()

    def number(self, device: str, point: str, now_s: float, oldest_s: float) -> float | None:
        """A point's value if it is a good number not older than `oldest_s`."""
        sample = self.latest.get(device, {}).get(point)
        if sample is None or sample.quality is Quality.BAD or now_s - sample.measured_s > oldest_s:
            return None
        return float(sample.value) if isinstance(sample.value, float | int) else None

    def text(self, device: str, point: str) -> str | None:
        """A point's text, if it is good."""
        sample = self.latest.get(device, {}).get(point)
        return sample.value if sample is not None and isinstance(sample.value, str) else None

    def take_result(self, sequence: int) -> WriteResult | None:
        """The result of a write, once."""
        return self._results.pop(sequence, None)

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait for a state of the field; whether it came."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True


class Field:
    """Reads every device at the period it was made with, and writes those that may be written."""

    def __init__(self, drivers: list[Driver], view: FieldView, clock: Clock) -> None:
        self.view = view
        self.clock = clock
        self.drivers = drivers
        self._by_device = {device: driver for driver in drivers for device in driver.devices}
        self._sequence = 0

    async def write(self, device: str, power_w: float, cause: str) -> WriteResult:
        """Give a setpoint, load convention, and wait for its fate."""
        self._sequence += 1
        sequence, now_s = self._sequence, self.clock()
        expires_s = now_s + SETPOINT_LIFE_S
        self._by_device[device].write(Setpoint(device, power_w, cause, expires_s, sequence, WritePriority.SETPOINT))
        result: list[WriteResult] = []

        def told() -> bool:
            taken = self.view.take_result(sequence)
            if taken is not None:
                result.append(taken)
            return taken is not None

        if await self.view.until(told, SETPOINT_LIFE_S + _ANSWER_SLACK_S):
            return result[0]
        return WriteResult(device, sequence, WriteStatus.INDETERMINATE, self.clock(), "no answer")

    def link_reason(self, device: str) -> str:
        """Why a device does not answer, as far as its link says."""
        driver = self._by_device[device]
        return self.view.reasons.get(device) or driver.stats.reason or "no answer"


@asynccontextmanager
async def field_of(
    site: Site,
    profiles: Mapping[str, Profile],
    addresses: Mapping[str, Address],
    written: frozenset[str],
    period_s: float,
    clock: Clock,
) -> AsyncIterator[Field]:
    """The field while the context lasts; at its end, whatever ended it, the rest state of every device in `written`."""
    view = FieldView()
    writable = {name: name in written for name in site.devices}
    drivers = build_drivers(site, profiles, view, clock, addresses, writable)
    tasks = [asyncio.create_task(driver.run(), name=f"link {driver.name}") for driver in drivers]
    tasks.append(asyncio.create_task(_poll(drivers, period_s), name="polls"))
    try:
        yield Field(drivers, view, clock)
    finally:
        try:
            resting = [driver for driver in drivers if not written.isdisjoint(driver.devices)]
            await asyncio.gather(*(driver.rest(REST_TIMEOUT_S) for driver in resting))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _poll(drivers: list[Driver], period_s: float) -> None:
    while True:
        for driver in drivers:
            driver.poll()
        await asyncio.sleep(period_s)

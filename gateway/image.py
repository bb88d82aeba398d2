"""The process image: drivers fill it at any time, the cycle switches it once and reads only the frozen copy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from config.vocabulary import POWER_W, LinkState, Quality, Sample, WriteResult

_NO_SAMPLE: Final = Sample(None, Quality.BAD, 0.0)


@dataclass(frozen=True, slots=True)
class DeviceImage:
    """What is known of one device at the switch; `present` is the driver's word that it answers."""

    samples: Mapping[str, Sample]
    present: bool

    def sample(self, point: str) -> Sample:
        """The point's sample; a bad one where it never had any."""
        return self.samples.get(point, _NO_SAMPLE)

    def number(self, point: str, now_s: float, stale_after_s: float) -> float | None:
        """The point's value if it is a number, not bad, and not older than `stale_after_s`; else None."""
        value, quality, measured_s = self.samples.get(point, _NO_SAMPLE)
        if quality is Quality.BAD or not isinstance(value, float) or now_s - measured_s > stale_after_s:
            return None
        return value


@dataclass(frozen=True, slots=True)
class Image:
    """All devices' latest samples at one instant (monotonic seconds)."""

    now_s: float
    devices: Mapping[str, DeviceImage]


_ABSENT: Final = DeviceImage(MappingProxyType({}), present=False)


@dataclass(slots=True)
class ImageInbox:
    """The `FieldSink` of all drivers. Device entries are replaced, never changed, so that an image stays frozen."""

    on_write_result: Callable[[WriteResult], None]
    on_transition: Callable[[str, str, str, str], None]
    _devices: dict[str, DeviceImage] = field(default_factory=dict)
    _awaited: set[str] = field(default_factory=set)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        known = self._devices.get(device, _ABSENT)
        self._devices[device] = DeviceImage({**known.samples, **samples}, present=True)
        if device in self._awaited and POWER_W in samples:
            self._awaited.discard(device)
            if not self._awaited:
                self.arrived.set()

    def write_result(self, result: WriteResult) -> None:
        self.on_write_result(result)

    def link_state(self, link: str, state: LinkState, reason: str) -> None:
        self.on_transition("link", link, state.value, reason)

    def device_state(self, device: str, present: bool, reason: str) -> None:
        known = self._devices.get(device, _ABSENT)
        self._devices[device] = DeviceImage(known.samples, present=present)
        if not present and device in self._awaited:
            self._awaited.discard(device)
            if not self._awaited:
                self.arrived.set()
        self.on_transition("device", device, "present" if present else "lost", reason)

    def await_samples(self, devices: Iterable[str]) -> bool:
        """Clear `arrived` until each of `devices` has delivered its power or is lost; False if there is none."""
        self._awaited = set(devices)
        self.arrived.clear()
        if not self._awaited:
            self.arrived.set()
        return bool(self._awaited)

    def switch(self, now_s: float) -> Image:
        """The image of this cycle."""
        return Image(now_s, MappingProxyType(dict(self._devices)))

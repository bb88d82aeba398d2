"""The process image: drivers fill it at any time, the cycle switches it once and reads only the frozen copy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from config.vocabulary import POWER_W, LinkState, Quality, Sample, SampleLayer, WriteResult, WriteStatus

_NO_SAMPLE: Final = Sample(None, Quality.BAD, 0.0)
_BAD: Final = Quality.BAD
_NOBODY: Final[Mapping[str, float]] = MappingProxyType({})

MOST_LAYERS: Final = 4
"""One for each poll group; more are left over from earlier connections, and are merged."""


def number_in(sample: Sample, now_s: float, stale_after_s: float) -> float | None:
    """The sample's value if it is a number, not bad, and not older than `stale_after_s`; else None."""
    value, quality, measured_s = sample
    if quality is _BAD or not isinstance(value, float) or now_s - measured_s > stale_after_s:
        return None
    return value


class DeviceImage:
    """What is known of one device at the switch; `present` is the driver's word that it answers. Never changed.

    Samples lie in layers, the newest first, which decode a point when it is asked for, above those that came one by
    one.
    """

    __slots__ = ("_single", "layers", "present")

    def __init__(self, samples: Mapping[str, Sample], present: bool, layers: tuple[SampleLayer, ...] = ()) -> None:
        self._single = samples
        self.layers = layers
        self.present = present

    @property
    def samples(self) -> Mapping[str, Sample]:
        """Every point's newest sample."""
        if not self.layers:
            return self._single
        merged = dict(self._single)
        for layer in reversed(self.layers):
            merged.update(layer)
        return merged

    def updated(self, samples: Mapping[str, Sample]) -> DeviceImage:
        """With newer samples of a device that answers."""
        newest: Any = samples
        layers = self.layers
        # Nearly always a poll group's next reply; the look at what it is costs more than all the rest.
        if layers and layers[0].names is getattr(newest, "names", None):
            return DeviceImage(self._single, True, (newest, *layers[1:]))
        if not isinstance(samples, SampleLayer):
            return DeviceImage({**self.samples, **samples}, True)
        names = samples.names
        layers = (samples, *[layer for layer in layers if layer.names is not names])
        if len(layers) > MOST_LAYERS:
            return DeviceImage({**self.samples, **samples}, True)
        return DeviceImage(self._single, True, layers)

    def marked(self, present: bool) -> DeviceImage:
        """With another word of the driver's."""
        return DeviceImage(self._single, present, self.layers)

    def sample(self, point: str) -> Sample:
        """The point's sample; a bad one where it never had any."""
        for layer in self.layers:
            if point in layer.names:
                return layer[point]
        return self._single.get(point, _NO_SAMPLE)

    def number(self, point: str, now_s: float, stale_after_s: float) -> float | None:
        """The point's value if it is a number, not bad, and not older than `stale_after_s`; else None."""
        return number_in(self.sample(point), now_s, stale_after_s)


@dataclass(frozen=True, slots=True)
class Image:
    """All devices' latest samples at one instant (monotonic seconds).

    `unanswered`: since when a device's newest write has had no answer, so that it may hold the old or the new value.
    """

    now_s: float
    devices: Mapping[str, DeviceImage]
    unanswered: Mapping[str, float] = field(default_factory=lambda: _NOBODY)


_ABSENT: Final = DeviceImage(MappingProxyType({}), present=False)


@dataclass(slots=True)
class ImageInbox:
    """The `FieldSink` of all drivers. Device entries are replaced, never changed, so that an image stays frozen."""

    on_write_result: Callable[[WriteResult], None]
    on_transition: Callable[[str, str, str, str], None]
    _devices: dict[str, DeviceImage] = field(default_factory=dict)
    _awaited: set[str] = field(default_factory=set)
    _unanswered: dict[str, float] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        devices, awaited = self._devices, self._awaited
        devices[device] = devices.get(device, _ABSENT).updated(samples)
        if device in awaited and POWER_W in samples:
            awaited.discard(device)
            if not awaited:
                self.arrived.set()

    def write_result(self, result: WriteResult) -> None:
        if result.status is WriteStatus.INDETERMINATE:
            self._unanswered[result.device] = result.at_s
        elif self._unanswered and result.status is WriteStatus.ACKNOWLEDGED:
            self._unanswered.pop(result.device, None)
        self.on_write_result(result)

    def link_state(self, link: str, state: LinkState, reason: str) -> None:
        self.on_transition("link", link, state.value, reason)

    def device_state(self, device: str, present: bool, reason: str) -> None:
        self._devices[device] = self._devices.get(device, _ABSENT).marked(present)
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
        unanswered = MappingProxyType(dict(self._unanswered)) if self._unanswered else _NOBODY
        return Image(now_s, MappingProxyType(dict(self._devices)), unanswered)

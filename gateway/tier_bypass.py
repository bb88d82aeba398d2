"""Tier bypass: signs that somebody commands a device or a layer below behind this layer's back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from config.vocabulary import BYPASS, COMPLIANCE, DeviceKind, Quality
from gateway.control.decision import Decision
from gateway.control.resources import DOES_NOT_FOLLOW, Resource
from gateway.image import Image
from gateway.readback import Difference

ARRIVED_PU: Final = 0.05
LEFT_PU: Final = 0.15
"""Of the rating: within the first of its setpoint a resource has arrived, beyond the second it has left it."""

STANDS_PU: Final = 0.02
"""Setpoints that differ by no more are the same one."""

LOOK_S: Final = 0.5

LASTS_S: Final = 2.0
"""How long it must be away: a load inside a layer may step, and its own control needs a while."""

_OWN_EXCUSE: Final = ("unmet", "fallback")


@dataclass(slots=True)
class _Watched:
    """One resource: the setpoint that stands, since when, whether it has been there, and since when it is away."""

    asked_w: float
    since_s: float
    arrived: bool = False
    away_since_s: float | None = None


@dataclass(slots=True)
class BypassWatch:
    """Looks for resources that move against their setpoints, and collects what drivers have noticed.

    A resource that reached its setpoint, and then left it while that stood, moves against it; one that never came there
    does not follow, which is another matter. Devices whose setpoint is a ceiling move below it as they like. A layer
    that says itself that it can't keep what it was told is excused.
    """

    _watched: dict[str, _Watched] = field(default_factory=dict)
    _found: dict[str, str] = field(default_factory=dict)
    _due_s: float = 0.0

    @property
    def found(self) -> Mapping[str, str]:
        """What is noticed now, by device."""
        return self._found

    def look(self, image: Image, decision: Decision, differences: Iterable[Difference]) -> list[tuple[str, str]]:
        """The signs that are there for the first time: device and text; looks every `LOOK_S`."""
        if image.now_s < self._due_s:
            return []
        self._due_s = image.now_s + LOOK_S
        asked = {each.device: each.power_w for each in decision.setpoints}
        found: dict[str, str] = {each.device: each.text() for each in differences if each.was_written}
        for resource in decision.resources:
            name = resource.model.name
            sign = _told(image, name) or self._against(resource, asked.get(name), image)
            if sign:
                found[name] = sign
        new = [(name, text) for name, text in found.items() if name not in self._found]
        self._found = found
        return new

    def _against(self, resource: Resource, asked_w: float | None, image: Image) -> str:
        model, power_w, now_s = resource.model, resource.power_w, image.now_s
        steady = asked_w is not None and power_w is not None and resource.usable and not model.ceiling
        if not steady or asked_w is None or power_w is None:
            self._watched.pop(model.name, None)
            return ""
        if resource.lower.source == DOES_NOT_FOLLOW and model.name in self._found:
            # It is asked for what it does, for as long as others take its share.
            return self._found[model.name]
        known = self._watched.get(model.name)
        if known is None or abs(asked_w - known.asked_w) > STANDS_PU * model.rating_w:
            self._watched[model.name] = _Watched(asked_w, now_s)
            return ""
        distance_w = abs(power_w - asked_w)
        known.arrived = known.arrived or distance_w <= ARRIVED_PU * model.rating_w
        settled = resource.measured_s - known.since_s > 2.0 * model.response_s
        if not (known.arrived and settled and distance_w > LEFT_PU * model.rating_w) or _excused(image, resource):
            known.away_since_s = None
            return ""
        if known.away_since_s is None:
            known.away_since_s = now_s
        if now_s - known.away_since_s < LASTS_S:
            return ""
        return f"{model.name} moves against its setpoint: {power_w:.0f} W, {asked_w:.0f} W was asked for"


def _told(image: Image, name: str) -> str:
    """What the driver of a layer below has noticed."""
    device = image.devices.get(name)
    sample = None if device is None else device.sample(BYPASS)
    if sample is None or sample.quality is Quality.BAD or not isinstance(sample.value, str) or not sample.value:
        return ""
    return f"{name}: {sample.value}"


def _excused(image: Image, resource: Resource) -> bool:
    if resource.model.kind is not DeviceKind.LAYER:
        return False
    device = image.devices.get(resource.model.name)
    return device is not None and device.sample(COMPLIANCE).value in _OWN_EXCUSE

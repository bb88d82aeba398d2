"""Takes one function out of control, so that a scenario proves that it would notice.

Control itself knows nothing of it: the decision of each cycle is given other inputs, or its output is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import gateway.cycle
from config.scenario import Function
from config.vocabulary import POWER_W, Quality, Sample
from gateway.control.decision import ControlState, Decision
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import OrdersInForce
from gateway.image import DeviceImage, Image


@contextmanager
def sabotaged(function: Function | None) -> Iterator[None]:
    """Control in this process is without the function, until the end of the block; None: nothing is taken out."""
    if function is None:
        yield
        return
    # The name that the cycle calls, which is not part of what its module offers.
    names = vars(gateway.cycle)
    whole: Any = names["decide"]
    lasting = _Lasting()

    def decide(model: SiteModel, image: Image, orders: OrdersInForce, state: ControlState, *more: Any) -> Decision:
        changed = _inputs(function, model, image, lasting)
        decision: Decision = whole(model, changed, _orders(function, orders), state, *more)
        return replace(decision, setpoints=()) if function is Function.CONTROL else decision

    names["decide"] = decide
    try:
        yield
    finally:
        names["decide"] = whole


def _orders(function: Function, orders: OrdersInForce) -> OrdersInForce:
    match function:
        case Function.LIMITS:
            return replace(orders, limits=())
        case Function.DISPATCH:
            return replace(orders, dispatch=None, regulation=None)
        case Function.REGULATION:
            return replace(orders, regulation=None)
        case Function.FALLBACK:
            return replace(orders, fallback_reason="")
    return orders


def _inputs(function: Function, model: SiteModel, image: Image, lasting: _Lasting) -> Image:
    match function:
        case Function.FEEDBACK:
            return _paired_wrongly(model.meter, image)
        case Function.STALENESS:
            return lasting.image(image)
        case Function.METER:
            return lasting.without_meter(model.meter, image)
    return image


def _paired_wrongly(meter: str, image: Image) -> Image:
    """The meter's reading is taken for one of this moment, and every look at it for a new one."""
    seen = image.devices.get(meter)
    if seen is None:
        return image
    sample = seen.sample(POWER_W)
    now = seen.updated({POWER_W: sample._replace(measured_s=image.now_s)})
    return replace(image, devices={**image.devices, meter: now})


def _watts(sample: Sample) -> float:
    return sample.value if isinstance(sample.value, int | float) else 0.0


@dataclass(slots=True)
class _Lasting:
    """Every good value for ever, and the load that the meter and the devices showed at first."""

    good: dict[str, dict[str, Sample]] = field(default_factory=dict)
    load_w: float | None = None

    def without_meter(self, meter: str, image: Image) -> Image:
        """The image with a meter that reads what the devices say, and the first load."""
        seen = image.devices.get(meter)
        if seen is None:
            return image
        sample = seen.sample(POWER_W)
        said = [device.sample(POWER_W) for name, device in image.devices.items() if name != meter]
        if sample.quality is not Quality.GOOD or any(each.quality is not Quality.GOOD for each in said):
            return image
        devices_w = sum(_watts(each) for each in said)
        if self.load_w is None:
            self.load_w = _watts(sample) - devices_w
        made_up = seen.updated({POWER_W: sample._replace(value=self.load_w + devices_w)})
        return replace(image, devices={**image.devices, meter: made_up})

    def image(self, image: Image) -> Image:
        """The image with the last good value of each point, as if it had been measured now."""
        devices = {name: self._device(name, device, image.now_s) for name, device in image.devices.items()}
        return replace(image, devices=devices)

    def _device(self, name: str, device: DeviceImage, now_s: float) -> DeviceImage:
        kept = self.good.setdefault(name, {})
        samples: Mapping[str, Sample] = device.samples
        kept.update({point: sample for point, sample in samples.items() if sample.quality is not Quality.BAD})
        fresh = {point: sample._replace(measured_s=now_s) for point, sample in {**samples, **kept}.items()}
        return DeviceImage(fresh, present=device.present or bool(kept))

"""Single readings of the meter that are far off move nothing; a load that is really there is answered at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType

from config.vocabulary import POWER_W, DeviceKind, Quantity, Sample
from gateway.control.orders_in_force import LimitInForce, OrdersInForce
from gateway.image import DeviceImage, Image
from tests.control.plant import Plant, device, site

BATTERY = device("battery", DeviceKind.BATTERY, 60e3)
EXPORT_20 = OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_EXPORT_W, 20e3),))


@dataclass
class Spiked(Plant):
    """A plant whose meter shows single samples 60 kW beside the truth."""

    chance: float = 0.0
    dice: Random = field(default_factory=lambda: Random(3))
    was_wrong: bool = False

    def image(self) -> Image:
        image = Plant.image(self)
        self.was_wrong = not self.was_wrong and self.dice.random() < self.chance
        if not self.was_wrong:
            return image
        meter = image.devices["meter"].sample(POWER_W)
        assert isinstance(meter.value, float)
        wrong = Sample(meter.value + self.dice.choice((-60e3, 60e3)), meter.quality, meter.measured_s)
        devices = {**image.devices, "meter": DeviceImage({POWER_W: wrong}, True)}
        return Image(image.now_s, MappingProxyType(devices))


def test_a_wrong_sample_moves_nothing() -> None:
    plant = Spiked(site(BATTERY, price_per_kwh=0.6), rest_w=10e3)
    plant.run(3, EXPORT_20)
    plant.chance = 0.2
    trace = plant.run(30, EXPORT_20)
    assert min(trace) >= -21.5e3
    assert max(trace) <= -18e3


def test_a_large_load_is_answered_with_the_second_sample() -> None:
    plant = Plant(site(BATTERY), rest_w=10e3)
    orders = OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_IMPORT_W, 20e3),))
    plant.run(3, orders)
    plant.rest_w = 60e3
    plant.run(0.6, orders)
    assert plant.net_w <= 21e3


def test_a_slow_meter_is_believed_at_once() -> None:
    plant = Plant(site(BATTERY, stale_after_s=5.0), rest_w=10e3, period_s=1.0)
    orders = OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_IMPORT_W, 20e3),))
    plant.run(4, orders)
    plant.rest_w = 60e3
    plant.run(2, orders)
    assert plant.net_w <= 21e3

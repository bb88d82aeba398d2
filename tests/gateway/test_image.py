"""The process image: the newest sample of each point, whether it came alone or in a layer that decodes when asked."""

from __future__ import annotations

from collections.abc import Mapping

from config.vocabulary import POWER_W, SOC, Quality, Sample, SampleLayer
from gateway.image import MOST_LAYERS, ImageInbox


class Layer(SampleLayer):
    """Counts what is decoded."""

    def __init__(self, names: frozenset[str], value: float, measured_s: float) -> None:
        super().__init__(names)
        self.sample = Sample(value, Quality.GOOD, measured_s)
        self.decoded: list[str] = []

    def __getitem__(self, name: str) -> Sample:
        if name not in self.names:
            raise KeyError(name)
        self.decoded.append(name)
        return self.sample


FAST, SLOW = frozenset((POWER_W, "other")), frozenset((SOC,))


def inbox() -> ImageInbox:
    return ImageInbox(lambda _: None, lambda *_: None)


def value(inbox: ImageInbox, point: str) -> object:
    return inbox.switch(0.0).devices["store"].sample(point).value


def good(values: Mapping[str, float]) -> dict[str, Sample]:
    return {name: Sample(number, Quality.GOOD, 1.0) for name, number in values.items()}


def test_only_what_is_asked_for_is_decoded() -> None:
    image, layer = inbox(), Layer(FAST, 5.0, 1.0)
    image.samples("store", layer)
    device = image.switch(1.0).devices["store"]
    assert layer.decoded == []
    assert device.number(POWER_W, 1.5, 1.0) == 5.0
    assert device.number(POWER_W, 2.5, 1.0) is None, "stale"
    assert device.sample("never heard of") == Sample(None, Quality.BAD, 0.0)
    assert set(layer.decoded) == {POWER_W}


def test_a_newer_layer_replaces_the_older_and_leaves_the_others() -> None:
    image = inbox()
    image.samples("store", Layer(SLOW, 0.5, 1.0))
    for number in range(3):
        image.samples("store", Layer(FAST, float(number), 2.0 + number))
    assert value(image, POWER_W) == 2.0
    assert value(image, SOC) == 0.5
    assert {name: sample.value for name, sample in image.switch(0.0).devices["store"].samples.items()} == {
        POWER_W: 2.0,
        "other": 2.0,
        SOC: 0.5,
    }


def test_single_samples_and_layers_replace_each_other_by_time_of_arrival() -> None:
    image = inbox()
    image.samples("store", Layer(FAST, 1.0, 1.0))
    image.samples("store", {POWER_W: Sample(None, Quality.BAD, 2.0)})
    assert value(image, POWER_W) is None, "a device that fell silent is bad, whatever it said before"
    assert value(image, "other") == 1.0
    image.samples("store", Layer(FAST, 3.0, 3.0))
    assert value(image, POWER_W) == 3.0


def test_an_image_stays_as_it_was_switched() -> None:
    image = inbox()
    image.samples("store", Layer(FAST, 1.0, 1.0))
    before = image.switch(1.0)
    image.samples("store", Layer(FAST, 2.0, 2.0))
    image.samples("store", good({SOC: 0.9}))
    image.device_state("store", False, "gone")
    assert before.devices["store"].sample(POWER_W).value == 1.0
    assert before.devices["store"].sample(SOC).quality is Quality.BAD
    assert before.devices["store"].present
    after = image.switch(2.0).devices["store"]
    assert not after.present
    assert (after.sample(POWER_W).value, after.sample(SOC).value) == (2.0, 0.9)


def test_layers_of_earlier_connections_do_not_pile_up() -> None:
    image = inbox()
    for number in range(10 * MOST_LAYERS):
        image.samples("store", Layer(frozenset((POWER_W, f"point_{number % 3}")), float(number), float(number)))
    device = image.switch(0.0).devices["store"]
    assert device.sample(POWER_W).value == 10.0 * MOST_LAYERS - 1.0
    assert len(device.layers) <= MOST_LAYERS


def test_the_cycle_waits_for_power_in_a_layer() -> None:
    image = inbox()
    assert image.await_samples(["store"])
    image.samples("store", Layer(SLOW, 0.5, 1.0))
    assert not image.arrived.is_set()
    image.samples("store", Layer(FAST, 1.0, 1.0))
    assert image.arrived.is_set()

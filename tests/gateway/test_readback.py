"""What a device reads back, held against what it acknowledged: a table of moments."""

from __future__ import annotations

from types import MappingProxyType

from config.loading import load_profile
from config.site import ModbusTcpAddress
from config.vocabulary import Quality, Sample
from drivers.binding import DeviceBinding
from gateway.image import DeviceImage, Image
from gateway.readback import ReadBackWatch

POINT = "setpoint_readback_w"
ADDRESS = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1", unit=1)


def watch(profile: str = "sunspec_battery", *, writable: bool = True) -> ReadBackWatch:
    binding = DeviceBinding("b", load_profile(profile), ADDRESS, 50_000.0, reversion_s=30.0, writable=writable)
    return ReadBackWatch([binding])


def image(now_s: float, read: float | None, measured_s: float | None = None, *, present: bool = True) -> Image:
    quality = Quality.BAD if read is None else Quality.GOOD
    sample = Sample(read, quality, now_s if measured_s is None else measured_s)
    return Image(now_s, MappingProxyType({"b": DeviceImage({POINT: sample}, present)}))


def test_the_same_value_and_a_rounded_one_are_no_difference() -> None:
    watched = watch()
    watched.acknowledged("b", -20_000.0, 0.0)
    assert watched.look(image(5.0, -20_000.0)) == []
    assert watched.look(image(6.1, -20_500.0)) == [], "whole percent of 50 kW"


def test_another_value_is_told_once_and_shown_until_it_agrees() -> None:
    watched = watch()
    watched.acknowledged("b", -20_000.0, 0.0)
    (found,) = watched.look(image(5.0, 3_000.0))
    assert (found.device, found.point, found.asked, found.read) == ("b", POINT, -20_000.0, 3_000.0)
    assert "reads 3000, -20000 was written" in found.text()
    assert watched.look(image(6.1, 3_000.0)) == []
    assert watched.differences == (found,)
    assert watched.look(image(7.2, -20_000.0)) == []
    assert watched.differences == ()


def test_a_device_may_show_a_setpoint_later_than_it_acknowledges_it() -> None:
    watched = watch()
    watched.acknowledged("b", -20_000.0, 0.0)
    assert watched.look(image(1.5, 0.0)) == [], "too new to tell"
    watched.acknowledged("b", 10_000.0, 5.0)
    assert watched.look(image(6.0, -20_000.0)) == [], "the one before"
    assert watched.look(image(7.1, 10_000.0)) == []
    assert [found.asked for found in watched.look(image(8.2, -20_000.0))] == [10_000.0], "long replaced"


def test_setpoints_that_move_all_the_time_hide_nothing() -> None:
    watched = watch()
    for step in range(60):
        watched.acknowledged("b", 100.0 * step, 0.1 * step)
    assert len(watched.look(image(6.0, 40_000.0))) == 1
    assert watched.look(image(7.0, 5_900.0)) == []


def test_what_is_bad_old_absent_or_never_written_says_nothing() -> None:
    watched = watch()
    assert watched.look(image(1.0, 7.0)) == [], "nothing was written"
    watched.acknowledged("b", -20_000.0, 2.0)
    assert watched.look(image(9.0, None)) == []
    assert watched.look(image(10.1, 9_000.0, measured_s=1.0)) == [], "measured before it was written"
    assert watched.look(image(11.2, 9_000.0, present=False)) == []
    watched.forget("b")
    assert watched.look(image(12.3, 9_000.0)) == [], "it was away, and has been told nothing since"


def test_a_device_that_is_only_read_is_not_watched() -> None:
    watched = watch(writable=False)
    watched.acknowledged("b", -20_000.0, 0.0)
    assert watched.look(image(5.0, 3_000.0)) == []


def test_a_per_unit_setpoint_of_another_rating_is_told() -> None:
    binding = DeviceBinding("b", load_profile("sunspec_inverter"), ADDRESS, 10_000.0)
    watched = ReadBackWatch([binding])

    def reads(now_s: float, max_power_w: float) -> Image:
        sample = Sample(max_power_w, Quality.GOOD, now_s)
        return Image(now_s, MappingProxyType({"b": DeviceImage({"max_power_w": sample}, present=True)}))

    (found,) = watched.look(reads(1.0, 8_000.0))
    assert found.text() == "b: max_power_w reads 8000, the site file's rating_w is 10000"
    assert watched.look(reads(2.1, 10_000.0)) == []
    assert watched.differences == ()

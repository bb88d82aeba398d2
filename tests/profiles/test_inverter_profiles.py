"""The shipped profiles of inverters and storages, on registers worked out by hand from the vendors' documents."""

from collections.abc import AsyncIterator

import pytest

from config.loading import check_profile, load_profile, shipped_profiles
from config.profile import Access, Profile
from config.vocabulary import WriteStatus
from drivers.binding import DeviceBinding
from drivers.modbus.driver import ModbusDriver
from tests.drivers.modbus_server import Bench, bench
from tests.profiles import inverter_vectors as vectors
from tests.profiles.inverter_vectors import Golden, Registers, Writes

CONTROLLED = [golden for golden in vectors.ALL if golden.charge]


@pytest.fixture
async def on() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


def by_profile(golden: Golden) -> str:
    return golden.profile


def prompt(profile: Profile) -> Profile:
    """The profile as it is but for its pauses, which are the real device's."""
    return profile.model_copy(
        update={"pace": profile.pace.model_copy(update={"connect_pause_s": 0.0, "request_gap_s": 0.0})}
    )


def bound(on: Bench, golden: Golden, name: str = "unit") -> DeviceBinding:
    profile = prompt(load_profile(golden.profile))
    timer_s = profile.control.reversion_s if profile.control else None
    return on.bind(profile, name, rating_w=golden.rating_w, reversion_s=timer_s)


def fill(on: Bench, golden: Golden, *changes: Registers) -> None:
    """Registers that nothing is said of hold 0, as far as the profile says that they can be read along."""
    profile = load_profile(golden.profile)
    for point in profile.points.values():
        if point.modbus is not None:
            for at in range(point.modbus.registers + profile.pace.max_gap_registers):
                on.server.registers.setdefault(point.modbus.address + at, 0)
    for registers in (golden.registers, *changes):
        for address, words in registers.items():
            on.server.put(address, bytes.fromhex(words))


async def sent(on: Bench, driver: ModbusDriver, power_w: float) -> Writes:
    """What a setpoint comes to on the wire."""
    before = len(on.server.written())
    setpoint = on.setpoint(power_w)
    driver.write(setpoint)
    result = await on.answered(setpoint)
    assert result.status is WriteStatus.ACKNOWLEDGED, result
    return [(address, data.hex(" ", 2).upper()) for address, data in on.server.written()[before:]]


@pytest.mark.parametrize("golden", vectors.ALL, ids=by_profile)
def test_a_profile_has_no_finding(golden: Golden) -> None:
    assert [str(finding) for finding in check_profile(shipped_profiles()[golden.profile])] == []
    assert load_profile(golden.profile).status == "from_document"


@pytest.mark.parametrize("golden", vectors.ALL, ids=by_profile)
async def test_registers_become_values(on: Bench, golden: Golden) -> None:
    fill(on, golden)
    async with on.running(bound(on, golden)) as driver:
        await on.present()
        await on.polled(driver)
        read = {point: on.sink.value("unit", point) for point in golden.values}
    assert {point for point in golden.values if not on.sink.is_good("unit", point)} == set()
    for point, value in golden.values.items():
        assert read[point] == (value if isinstance(value, str) else pytest.approx(value)), point


@pytest.mark.parametrize("golden", [golden for golden in vectors.ALL if golden.bad], ids=by_profile)
async def test_no_value_is_a_bad_power_and_the_device_is_absent(on: Bench, golden: Golden) -> None:
    fill(on, golden, golden.bad)
    async with on.running(bound(on, golden)):
        await on.until(lambda: bool(on.sink.devices))
        assert on.sink.devices[0][1] is False
        assert on.sink.value("unit", "power_w") is None


@pytest.mark.parametrize("golden", CONTROLLED, ids=by_profile)
async def test_setpoints_are_the_documents_registers_in_order(on: Bench, golden: Golden) -> None:
    fill(on, golden)
    async with on.running(bound(on, golden)) as driver:
        await on.present()
        assert await sent(on, driver, 5_000.0) == golden.charge
        assert await sent(on, driver, 0.0) == golden.idle
        assert await sent(on, driver, -5_000.0) == golden.discharge
        before = len(on.server.written())
        await driver.rest(2.0)
        rest = [(address, data.hex(" ", 2).upper()) for address, data in on.server.written()[before:]]
    assert rest == golden.rest


@pytest.mark.parametrize("golden", CONTROLLED, ids=by_profile)
async def test_what_is_set_once_is_set_again_after_a_reconnect(on: Bench, golden: Golden) -> None:
    fill(on, golden)
    async with on.running(bound(on, golden)) as driver:
        await on.present()
        assert await sent(on, driver, 5_000.0) == golden.charge
        on.server.reset()
        await on.present(2)
        await on.until(lambda: len(on.server.written()) >= 2 * len(golden.charge))
    again = [(asked.address, asked.data.hex(" ", 2).upper()) for asked in on.server.asked if asked.data]
    assert again == golden.charge * 2


@pytest.mark.parametrize("golden", CONTROLLED, ids=by_profile)
async def test_more_than_the_rating_is_the_rating(on: Bench, golden: Golden) -> None:
    fill(on, golden)
    async with on.running(bound(on, golden)) as driver:
        await on.present()
        await sent(on, driver, -golden.rating_w)
        at_rating = dict(on.server.registers)
        await sent(on, driver, -golden.rating_w * 3)
    assert on.server.registers == at_rating


@pytest.mark.parametrize("golden", CONTROLLED, ids=by_profile)
def test_what_happens_on_silence_is_stated(golden: Golden) -> None:
    profile = load_profile(golden.profile)
    control = profile.control
    assert control is not None
    if profile.on_silence.behaviour != "hold":
        assert profile.on_silence.after_s is not None
        assert control.refresh_s <= profile.on_silence.after_s / 2
    if profile.on_silence.settable:
        assert control.reversion_s == profile.on_silence.after_s
    if not control.volatile:
        assert control.deadband_w >= 100
        assert control.min_write_interval_s >= 2


async def test_the_technical_notes_own_example_discharges_1500_w_for_15_minutes(on: Bench) -> None:
    golden = vectors.STOREDGE
    fill(on, golden)
    binding = on.bind(load_profile(golden.profile), rating_w=golden.rating_w, reversion_s=900.0)
    async with on.running(binding) as driver:
        await on.present()
        assert await sent(on, driver, -1_500.0) == [
            (0xE004, "0004"),
            (0xE00A, "0000 0384 0000"),
            (0xE00E, "0000 0000 8000 44BB"),
            (0xE00D, "0004"),
        ]


async def test_a_battery_that_discharges_is_its_other_module(on: Bench) -> None:
    golden = vectors.GEN24
    fill(on, golden, vectors.gen24_registers("0000", "0190"))
    async with on.running(bound(on, golden)):
        await on.present()
        assert on.sink.value("unit", "power_w") == -4_000.0
        assert on.sink.value("unit", "discharge_power_w") == 4_000.0


@pytest.mark.parametrize(
    ("battery", "photovoltaics"),
    [(vectors.LUNA, vectors.HYBRID_PV), (vectors.SUNGROW, vectors.SUNGROW_PV)],
    ids=["huawei", "sungrow"],
)
async def test_the_parts_of_a_hybrid_share_its_unit(on: Bench, battery: Golden, photovoltaics: Golden) -> None:
    fill(on, photovoltaics)
    fill(on, battery)
    async with on.running(bound(on, battery, "battery"), bound(on, photovoltaics, "pv")):
        await on.present(2)
        assert on.sink.value("battery", "power_w") == battery.values["power_w"]
        assert on.sink.value("pv", "power_w") == photovoltaics.values["power_w"]
    assert on.server.connections == 1


def test_write_only_points_are_not_read() -> None:
    written = {
        (golden.profile, name)
        for golden in vectors.ALL
        for name, point in load_profile(golden.profile).points.items()
        if point.access is Access.W
    }
    assert {("sma_storage", "setpoint_w"), ("victron_gx", "setpoint_l1_w")} <= written

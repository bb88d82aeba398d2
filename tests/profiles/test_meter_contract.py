"""The shipped profiles of meters against twins whose register tables come from the vendors' documents.

Each with the real driver, over a socket, a pseudo-terminal or a broker: what is read is what the physics says, import
positive.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping

import pytest

from config.loading import load_profile
from config.site import ModbusRtuAddress, MqttDevice
from config.vocabulary import LinkState, Quality, Sample
from drivers.binding import DeviceBinding
from drivers.mqtt.driver import MqttDriver
from sim_devices.broker import EmbeddedBroker
from sim_devices.modbus import make_unit
from sim_devices.modbus.rtu_line import start_rtu_line
from sim_devices.models import MeterModel
from sim_devices.shelly_meter import ShellyMeter
from sim_devices.until import ended
from tests.drivers.modbus_server import RecordingSink, Watch
from tests.profiles.meter_charger_contract import FREQUENCY_HZ, VOLTAGES_V, Contract, Value, check, metered, over_tcp
from tests.profiles.meter_charger_contract import readable as readable_points

REGISTER_METERS = ["eastron_sdm630", "carlo_gavazzi_em340", "janitza_umg604"]
POWERS_W = [(5_200.3, 1_800.1, 900.4), (-12_340.5, -4_000.2, -7_100.9), (3_000.0, -4_500.6, 0.0)]


def sum_va(model: MeterModel) -> float:
    return sum(map(abs, model.power_w_by_phase))


def neutral_a(model: MeterModel) -> float:
    """Three phasors, each in phase or in opposition to its voltage."""
    angles = (0.0, -2.0 * math.pi / 3.0, 2.0 * math.pi / 3.0)
    each = zip(model.current_a_by_phase, angles, strict=True)
    x, y = 0.0, 0.0
    for current_a, angle in each:
        x, y = x + current_a * math.cos(angle), y + current_a * math.sin(angle)
    return math.hypot(x, y)


def each_phase(name: str, values: tuple[float, ...], within: float) -> dict[str, Value]:
    return {name.format(phase): Value(value, within) for phase, value in enumerate(values, start=1)}


def sdm630(model: MeterModel) -> dict[str, Value]:
    """Floats; currents are magnitudes, energies are kWh."""
    return {
        "power_w": Value(model.power_w, 1e-3),
        **each_phase("power_l{}_w", model.power_w_by_phase, 1e-3),
        **each_phase("current_l{}_a", tuple(map(abs, model.current_a_by_phase)), 1e-5),
        "voltage_v": Value(sum(VOLTAGES_V) / 3, 1e-4),
        **each_phase("voltage_l{}_v", VOLTAGES_V, 1e-4),
        "apparent_power_va": Value(sum_va(model), 1e-3),
        "reactive_power_var": Value(0.0),
        "power_factor": Value(math.copysign(1.0, model.power_w)),
        "frequency_hz": Value(FREQUENCY_HZ, 1e-5),
        "energy_import_wh": Value(model.energy_import_wh, 0.5),
        "energy_export_wh": Value(model.energy_export_wh, 0.5),
    }


def em340(model: MeterModel) -> dict[str, Value]:
    """Tenths of a watt and a volt, mA with a sign, tenths of a kWh."""
    third_wh = model.energy_import_wh / 3
    return {
        "power_w": Value(model.power_w, 0.0501),
        **each_phase("power_l{}_w", model.power_w_by_phase, 0.0501),
        **each_phase("current_l{}_a", model.current_a_by_phase, 0.000501),
        "voltage_v": Value(sum(VOLTAGES_V) / 3, 0.0501),
        **each_phase("voltage_l{}_v", VOLTAGES_V, 0.0501),
        "apparent_power_va": Value(sum_va(model), 0.0501),
        "reactive_power_var": Value(0.0),
        "power_factor": Value(math.copysign(1.0, model.power_w)),
        "frequency_hz": Value(FREQUENCY_HZ, 0.0501),
        "energy_import_wh": Value(model.energy_import_wh, 50.1),
        **each_phase("energy_import_l{}_wh", (third_wh,) * 3, 50.1),
        "energy_export_wh": Value(model.energy_export_wh, 50.1),
    }


def umg604(model: MeterModel) -> dict[str, Value]:
    """Floats; currents are magnitudes, energies are Wh; the voltage is that of L1."""
    one, two, three = VOLTAGES_V
    return {
        "power_w": Value(model.power_w, 1e-3),
        **each_phase("power_l{}_w", model.power_w_by_phase, 1e-3),
        **each_phase("current_l{}_a", tuple(map(abs, model.current_a_by_phase)), 1e-5),
        "current_n_a": Value(neutral_a(model), 1e-4),
        "voltage_v": Value(one, 1e-4),
        "voltage_l2_v": Value(two, 1e-4),
        "voltage_l3_v": Value(three, 1e-4),
        "apparent_power_va": Value(sum_va(model), 1e-3),
        "reactive_power_var": Value(0.0),
        "frequency_hz": Value(FREQUENCY_HZ, 1e-5),
        "energy_import_wh": Value(model.energy_import_wh, 0.5),
        "energy_export_wh": Value(model.energy_export_wh, 0.5),
    }


def pro_3em(model: MeterModel) -> dict[str, Value]:
    """JSON of so many decimals; currents are magnitudes, and nobody measures the neutral."""
    one, two, three = VOLTAGES_V
    return {
        "power_w": Value(model.power_w, 0.000501),
        **each_phase("power_l{}_w", model.power_w_by_phase, 0.0501),
        **each_phase("current_l{}_a", tuple(map(abs, model.current_a_by_phase)), 0.000501),
        "voltage_v": Value(one, 0.0501),
        "voltage_l2_v": Value(two, 0.0501),
        "voltage_l3_v": Value(three, 0.0501),
        "apparent_power_va": Value(sum_va(model), 0.000501),
        "frequency_hz": Value(FREQUENCY_HZ, 0.0501),
        "energy_import_wh": Value(model.energy_import_wh, 0.00501),
        "energy_export_wh": Value(model.energy_export_wh, 0.00501),
    }


EXPECTED = {
    "eastron_sdm630": sdm630,
    "carlo_gavazzi_em340": em340,
    "janitza_umg604": umg604,
    "shelly_pro_3em": pro_3em,
}


@pytest.mark.parametrize("powers_w", POWERS_W)
@pytest.mark.parametrize("profile", REGISTER_METERS)
async def test_a_meter_shows_what_the_physics_knows(profile: str, powers_w: tuple[float, float, float]) -> None:
    model = metered(powers_w)
    async with over_tcp(profile, model) as made:
        assert made.profiles["device"].points.keys() == EXPECTED[profile](model).keys()
        check(await made.samples(), EXPECTED[profile](model))


@pytest.mark.parametrize("profile", REGISTER_METERS)
async def test_a_meter_that_knows_to_be_wrong_has_no_values(profile: str) -> None:
    model = metered(POWERS_W[0])
    async with over_tcp(profile, model) as made:
        assert not bad(await made.samples())
        model.measure(POWERS_W[0], VOLTAGES_V, FREQUENCY_HZ, False, 0.0, 4.0)
        made.driver.poll()
        await made.watch.until(lambda: made.sink.devices[-1][1] is False)
        assert "power_w" in bad(made.sink.latest["device"])


def bad(samples: Mapping[str, Sample]) -> set[str]:
    return {name for name, sample in samples.items() if sample.quality is Quality.BAD}


@contextlib.asynccontextmanager
async def on_one_line(models: Mapping[str, MeterModel]) -> AsyncIterator[Contract]:
    """Several meters on a pseudo-terminal, and one driver for all of them."""
    made = Contract(next(iter(models.values())))
    units = {
        unit: make_unit(profile, model, clock=made.clock) for unit, (profile, model) in enumerate(models.items(), 1)
    }
    line = start_rtu_line(units, baud=38_400)
    try:
        addresses = {
            profile: (
                profile,
                ModbusRtuAddress(driver="modbus_rtu", device=line.path, baud=38_400, parity="none", unit=unit),
            )
            for unit, profile in enumerate(models, 1)
        }
        async with made.driven(addresses):
            yield made
    finally:
        line.close()


async def test_two_makes_of_meters_share_a_serial_line() -> None:
    models = {"eastron_sdm630": metered(POWERS_W[0]), "carlo_gavazzi_em340": metered(POWERS_W[1])}
    async with on_one_line(models) as made:
        for profile, model in models.items():
            check(await made.samples(profile), EXPECTED[profile](model))
        assert made.driver.stats.rejected == 0
        assert made.driver.stats.exceptions == 0


# Over a broker


class Broadcast:
    """A Shelly on a broker, and the driver's samples."""

    def __init__(self, model: MeterModel, broker: EmbeddedBroker) -> None:
        self.model = model
        self.watch = Watch()
        self.sink = RecordingSink(self.watch)
        self.now_s = 0.0
        prefix = "shellypro3em-0123456789ab"
        self.twin = ShellyMeter(model, self.clock, topic_prefix=prefix, host=broker.host, port=broker.port, look_s=0.02)
        address = MqttDevice(driver="mqtt", host=broker.host, port=broker.port, parameters={"topic_prefix": prefix})
        binding = DeviceBinding("device", load_profile("shelly_pro_3em"), address, 100_000.0)
        self.driver = MqttDriver("link", [binding], self.sink, time.monotonic)

    def clock(self) -> float:
        return time.monotonic() + self.now_s

    async def until_all(self, quality: Quality, *names: str) -> dict[str, Sample]:
        def are() -> bool:
            latest = self.sink.latest.get("device", {})
            return all(name in latest and latest[name].quality is quality for name in names)

        await self.watch.until(are)
        return dict(self.sink.latest["device"])


@contextlib.asynccontextmanager
async def broadcast(model: MeterModel) -> AsyncIterator[Broadcast]:
    async with EmbeddedBroker() as broker:
        made = Broadcast(model, broker)
        tasks = [asyncio.create_task(made.driver.run(), name="link")]
        try:
            # Nothing that a Shelly has published is kept for who comes later, and it tells its energy once a minute.
            await made.watch.until(lambda: any(state is LinkState.UP for state, _ in made.sink.links))
            tasks.append(asyncio.create_task(made.twin.run(), name="twin"))
            yield made
        finally:
            await ended(*tasks)


@pytest.mark.parametrize("powers_w", POWERS_W)
async def test_a_shelly_shows_what_the_physics_knows(powers_w: tuple[float, float, float]) -> None:
    model = metered(powers_w)
    expected = pro_3em(model)
    async with broadcast(model) as made:
        samples = await made.until_all(Quality.GOOD, *expected)
        assert samples.pop("current_n_a").quality is Quality.BAD
        check(samples, expected)
        assert readable_points(load_profile("shelly_pro_3em")) == expected.keys() | {"current_n_a"}


async def test_a_shelly_reports_a_step_and_a_failure_before_its_time() -> None:
    model = metered((1_000.0, 1_000.0, 1_000.0))
    async with broadcast(model) as made:
        await made.until_all(Quality.GOOD, "power_w", "energy_import_wh")
        model.measure((9_000.0, 1_000.0, 1_000.0), VOLTAGES_V, FREQUENCY_HZ, True, 0.0, 4.0)
        await made.watch.until(lambda: made.sink.value("device", "power_w") == 11_000.0)
        model.measure((9_000.0, 1_000.0, 1_000.0), VOLTAGES_V, FREQUENCY_HZ, False, 0.0, 5.0)
        samples = await made.until_all(Quality.BAD, "power_w")
        assert bad(samples) == {name for name in samples if not name.startswith("energy_")}

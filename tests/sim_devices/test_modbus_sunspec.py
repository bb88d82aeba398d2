"""The SunSpec twins, seen by an independent client: the reference implementation that reads the published models."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from sunspec2.modbus.modbus import ModbusClientException

from config.twin import DeviceTwin
from sim_devices.modbus import ModbusModel, ModbusTwin, start_modbus_twin
from sim_devices.modbus import sunspec_der_models as der
from sim_devices.modbus import sunspec_models as ic
from sim_devices.modbus.registers import TYPES
from sim_devices.models import BatteryModel, InverterModel, MeterModel

STEP_S = 0.1


class Time:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def run(self, model: InverterModel | BatteryModel, duration_s: float) -> None:
        """Let the model live for a while."""
        for _ in range(round(duration_s / STEP_S)):
            self.now_s += STEP_S
            model.step(STEP_S, self.now_s)


class Client:
    """The blocking reference client, in a thread."""

    def __init__(self, port: int) -> None:
        self.device = SunSpecModbusClientDeviceTCP(slave_id=3, ipaddr="127.0.0.1", ipport=port, timeout=2)

    async def scan(self) -> list[int]:
        """The models found, in order."""
        await asyncio.to_thread(self.device.scan)
        return [model.model_id for model in self.device.model_list]

    async def read(self, number: int) -> dict[str, Any]:
        """A model's scaled values by point, those of groups as `group.point`; None where not implemented."""
        model = self.device.models[number][0]
        await asyncio.to_thread(model.read)
        values = {name: point.cvalue for name, point in model.points.items()}
        for group in model.groups.values():
            values |= {f"{group.gname}.{name}": point.cvalue for name, point in group.points.items()}
        return values

    async def write(self, number: int, **values: float) -> None:
        """Write these points of a model, neighbours in one request."""
        model = self.device.models[number][0]
        for name, value in values.items():
            model.points[name].cvalue = value
        await asyncio.to_thread(model.write)

    async def close(self) -> None:
        await asyncio.to_thread(self.device.close)


@asynccontextmanager
async def client_of(profile: str, model: ModbusModel, time: Time) -> AsyncIterator[tuple[Client, ModbusTwin]]:
    twin = await start_modbus_twin(profile, model, unit=3, clock=time, site="bench")
    client = Client(twin.port)
    try:
        await client.scan()
        yield client, twin
    finally:
        await client.close()
        await twin.close()


def a_meter() -> MeterModel:
    meter = MeterModel("grid", 100_000.0, DeviceTwin())
    meter.measure((20_000.0, -35_000.0, 4_000.0), (231.4, 229.9, 230.2), 49.98, True, 0.1, 1000.0)
    return meter


def an_inverter() -> InverterModel:
    inverter = InverterModel("roof", 60_000.0, DeviceTwin(tr90_s=0.1))
    inverter.available_pu = 0.75
    inverter.voltage_v_by_phase = (231.4, 229.9, 230.2)
    return inverter


def a_battery(**settings: Any) -> BatteryModel:
    return BatteryModel("cells", 50_000.0, DeviceTwin(tr90_s=0.1, soc=0.4, **settings), capacity_wh=100_000.0)


TWINS: list[tuple[str, Callable[[], ModbusModel], list[int]]] = [
    ("sunspec_meter", a_meter, [1, 203]),
    ("sunspec_inverter", an_inverter, [1, 103, 120, 121, 122, 123]),
    ("sunspec_battery", a_battery, [1, 701, 702, 704, 713, 715]),
]
LAYOUTS = {
    model.number: model
    for model in (
        ic.COMMON,
        ic.INVERTER_THREE_PHASE,
        ic.NAMEPLATE,
        ic.BASIC_SETTINGS,
        ic.MEASUREMENTS_STATUS,
        ic.IMMEDIATE_CONTROLS,
        ic.METER_WYE_THREE_PHASE,
        der.DER_AC_MEASUREMENT,
        der.DER_CAPACITY,
        der.DER_AC_CONTROLS,
        der.DER_STORAGE_CAPACITY,
        der.DER_CONTROL,
    )
}


@pytest.mark.parametrize(("profile", "make", "models"), TWINS)
async def test_a_scan_finds_exactly_the_models_and_every_point_where_our_table_has_it(
    profile: str, make: Callable[[], ModbusModel], models: list[int]
) -> None:
    async with client_of(profile, make(), Time()) as (client, _):
        assert [model.model_id for model in client.device.model_list] == models
        for model in client.device.model_list:
            ours = LAYOUTS[model.model_id]
            assert model.model_len == ours.length
            published = [(p.offset, n, p.pdef["type"], p.len, p.pdef.get("sf")) for n, p in model.points.items()]
            for group in model.groups.values():
                published += [
                    (p.offset, f"{group.gname}.{n}", p.pdef["type"], p.len, p.pdef.get("sf"))
                    for n, p in group.points.items()
                ]
            assert [tuple(point) for point in ours.points] == published[2:]


@pytest.mark.parametrize(("profile", "make", "models"), TWINS)
async def test_the_common_model_says_who_it_is(
    profile: str, make: Callable[[], ModbusModel], models: list[int]
) -> None:
    model = make()
    async with client_of(profile, model, Time()) as (client, _):
        common = await client.read(1)
        assert common["Mn"] == "Lamina"
        assert common["Md"].startswith("Twin ")
        assert common["SN"] == f"bench/{model.name}"


@pytest.mark.parametrize(("profile", "make", "models"), TWINS)
async def test_every_mandatory_point_has_a_value_and_every_value_its_scale_factor(
    profile: str, make: Callable[[], ModbusModel], models: list[int]
) -> None:
    async with client_of(profile, make(), Time()) as (client, _):
        for model in client.device.model_list:
            for name, point in model.points.items():
                # An accumulator at 0 and one that isn't there look the same.
                if point.pdef.get("mandatory") == "M" and not point.pdef["type"].startswith("acc"):
                    assert point.value is not None, f"{model.model_id}.{name}"
                if point.value is not None and "sf" in point.pdef:
                    assert model.points[point.pdef["sf"]].value is not None, f"{model.model_id}.{name}"


async def test_the_meter_shows_import_as_positive_watts() -> None:
    meter = a_meter()
    async with client_of("sunspec_meter", meter, Time()) as (client, _):
        values = await client.read(203)
        assert values["W"] == pytest.approx(-11_000.0)
        assert [values["WphA"], values["WphB"], values["WphC"]] == pytest.approx([20_000.0, -35_000.0, 4_000.0])
        assert [values["AphA"], values["AphB"], values["AphC"]] == pytest.approx(meter.current_a_by_phase, abs=0.06)
        assert values["A"] == pytest.approx(sum(meter.current_a_by_phase), abs=0.06)
        assert [values["PhVphA"], values["PhVphB"], values["PhVphC"]] == pytest.approx([231.4, 229.9, 230.2])
        assert values["PhV"] == pytest.approx(230.5)
        assert values["PhVphAB"] == pytest.approx(399.5, abs=0.1)
        assert values["Hz"] == pytest.approx(49.98)
        assert values["VA"] is None
        assert values["Evt"] == 0
        meter.measure((90_000.0,) * 3, (230.0,) * 3, 50.0, True, 3600.0, 4600.0)
        assert (await client.read(203))["TotWhImp"] == 270_000


async def test_a_meter_that_knows_its_values_to_be_wrong_answers_not_implemented() -> None:
    meter = a_meter()
    async with client_of("sunspec_meter", meter, Time()) as (client, twin):
        meter.measure((0.0,) * 3, (230.0,) * 3, 50.0, False, 0.1, 1000.1)
        values = await client.read(203)
        for name in ("W", "WphA", "A", "AphB", "PhV", "PhVphC", "PhVphAB", "Hz"):
            assert values[name] is None, name
        assert values["Evt"] == 1 << 7
        raw = AsyncModbusTcpClient("127.0.0.1", port=twin.port)
        await raw.connect()
        # W is the 17th register after ID and L of the model, which follows "SunS" and the common model.
        assert (await raw.read_holding_registers(40_000 + 2 + 68 + 18, device_id=3)).registers == [0x8000]
        raw.close()
        meter.measure((1_000.0,) * 3, (230.0,) * 3, 50.0, True, 0.1, 1000.2)
        assert (await client.read(203))["W"] == 3_000


async def test_the_inverter_shows_generation_as_positive_watts() -> None:
    time, inverter = Time(), an_inverter()
    async with client_of("sunspec_inverter", inverter, time) as (client, _):
        time.run(inverter, 5)
        values = await client.read(103)
        assert inverter.power_w == pytest.approx(-45_000.0)
        assert values["W"] == pytest.approx(45_000.0, abs=5)
        assert values["AphA"] == pytest.approx(15_000 / 231.4, abs=0.006)
        assert values["PhVphB"] == pytest.approx(229.9)
        assert values["Hz"] == pytest.approx(50.0)
        assert values["WH"] == round(inverter.energy_wh)
        assert values["St"] == 4
        assert (await client.read(120))["WRtg"] == 60_000
        assert (await client.read(121))["WMax"] == 60_000
        assert (await client.read(122))["PVConn"] == 0b111


async def test_a_limit_acts_while_it_is_enabled_and_moves_in_hundredths_of_a_percent() -> None:
    time, inverter = Time(), an_inverter()
    async with client_of("sunspec_inverter", inverter, time) as (client, _):
        await client.write(123, WMaxLimPct=33.33)
        assert inverter.ceiling_pu is None
        await client.write(123, WMaxLim_Ena=1)
        assert inverter.ceiling_pu == pytest.approx(0.3333)
        time.run(inverter, 5)
        assert (await client.read(103))["W"] == pytest.approx(20_000, abs=5)
        assert (await client.read(103))["St"] == 5
        assert (await client.read(122))["StActCtl"] == 1
        await client.write(123, WMaxLim_Ena=0)
        assert inverter.ceiling_pu is None
        assert (await client.read(123))["WMaxLimPct"] == pytest.approx(33.33)


async def test_the_limit_is_dropped_when_nobody_renews_it() -> None:
    time, inverter = Time(), an_inverter()
    async with client_of("sunspec_inverter", inverter, time) as (client, _):
        await client.write(123, WMaxLimPct=10.0, WMaxLimPct_RvrtTms=20, WMaxLim_Ena=1)
        time.run(inverter, 19)
        await client.write(123, WMaxLimPct=20.0)
        time.run(inverter, 19)
        assert inverter.ceiling_pu == pytest.approx(0.2)
        assert (await client.read(123))["WMaxLim_Ena"] == 1
        time.run(inverter, 2)
        assert inverter.ceiling_pu is None
        assert (await client.read(123))["WMaxLim_Ena"] == 0
        await client.write(123, WMaxLimPct=30.0)
        assert inverter.ceiling_pu is None, "the value alone does nothing once the limit has been dropped"
        await client.write(123, WMaxLim_Ena=1)
        assert inverter.ceiling_pu == pytest.approx(0.3)


async def test_a_limit_without_a_timer_stays() -> None:
    time, inverter = Time(), an_inverter()
    async with client_of("sunspec_inverter", inverter, time) as (client, _):
        await client.write(123, WMaxLimPct=10.0, WMaxLim_Ena=1)
        time.run(inverter, 600)
        assert inverter.ceiling_pu == pytest.approx(0.1)


async def test_disconnecting_stops_generation() -> None:
    time, inverter = Time(), an_inverter()
    async with client_of("sunspec_inverter", inverter, time) as (client, _):
        time.run(inverter, 2)
        await client.write(123, Conn=0)
        time.run(inverter, 2)
        values = await client.read(103)
        assert (values["W"], values["St"]) == (0, 1)
        assert (await client.read(122))["ECPConn"] == 0b01
        await client.write(123, Conn=1)
        time.run(inverter, 2)
        assert (await client.read(103))["W"] == pytest.approx(45_000, abs=50)


@pytest.mark.parametrize(
    ("number", "point", "value", "code"),
    [
        (123, "WMaxLimPct", 100.01, 3),
        (123, "WMaxLim_Ena", 2, 3),
        (123, "Conn", 7, 3),
        (123, "WMaxLimPct_RmpTms", 5, 3),
        (123, "OutPFSet", 0.9, 2),
        (123, "VArPct_Ena", 1, 2),
        (121, "WMax", 30_000, 2),
    ],
)
async def test_the_inverter_refuses_what_it_cannot_do(number: int, point: str, value: float, code: int) -> None:
    inverter = an_inverter()
    async with client_of("sunspec_inverter", inverter, Time()) as (client, _):
        before = await client.read(number)
        with pytest.raises(ModbusClientException, match=f"exception: {code}"):
            await client.write(number, **{point: value})
        assert await client.read(number) == before
        assert inverter.ceiling_pu is None


async def test_the_battery_shows_discharging_as_positive_watts() -> None:
    time, battery = Time(), a_battery()
    battery.set_power(-12_340.0, None, time())
    async with client_of("sunspec_battery", battery, time) as (client, _):
        time.run(battery, 5)
        values = await client.read(701)
        assert values["W"] == pytest.approx(12_340, abs=5)
        assert values["WL2"] == pytest.approx(12_340 / 3, abs=5)
        assert values["A"] == pytest.approx(12_340 / 230, abs=0.01)
        assert values["VL3"] == pytest.approx(230.0)
        assert values["LLV"] == pytest.approx(230 * math.sqrt(3), abs=0.05)
        assert values["Hz"] == pytest.approx(50.0)
        assert (values["TotWhInj"], values["TotWhAbs"]) == (round(battery.energy_export_wh), 0)
        assert (values["InvSt"], values["ConnSt"]) == (3, 1)
        storage = await client.read(713)
        assert storage["WHRtg"] == 100_000
        assert storage["SoC"] == pytest.approx(100 * battery.soc, abs=0.005)
        assert storage["WHAvail"] == pytest.approx(battery.stored_wh, abs=5)
        capacity = await client.read(702)
        assert (capacity["WChaRteMaxRtg"], capacity["WDisChaRteMaxRtg"]) == (50_000, 50_000)
        battery.set_power(30_000.0, None, time())
        time.run(battery, 5)
        assert (await client.read(701))["W"] == pytest.approx(-30_000, abs=5)


async def test_the_battery_follows_watts_or_percent_while_enabled() -> None:
    time, battery = Time(), a_battery()
    async with client_of("sunspec_battery", battery, time) as (client, _):
        await client.write(704, WSet=-20_001)
        assert battery.setpoint_w is None
        await client.write(704, WSetEna=1)
        assert battery.setpoint_w == 20_001
        await client.write(704, WSetMod=0, WSetPct=12.5)
        assert battery.setpoint_w == -6_250
        await client.write(704, WSetEna=0)
        assert battery.setpoint_w is None


async def test_the_battery_stands_still_when_nobody_renews_its_setpoint() -> None:
    time, battery = Time(), a_battery()
    async with client_of("sunspec_battery", battery, time) as (client, _):
        await client.write(704, WSetRvrtTms=30, WSet=10_000)
        await client.write(704, WSetEna=1)
        time.run(battery, 29)
        assert (await client.read(704))["WSetRvrtRem"] == 1
        await client.write(704, WSet=11_000)
        assert (await client.read(704))["WSetRvrtRem"] == 30
        time.run(battery, 29)
        assert battery.setpoint_w == -11_000
        time.run(battery, 2)
        values = await client.read(704)
        assert (values["WSetEna"], values["WSet"], values["WSetRvrtRem"]) == (0, 0, 0)
        assert (await client.read(701))["W"] == pytest.approx(0, abs=5)


async def test_a_battery_may_stay_enabled_at_its_reversion_value() -> None:
    time, battery = Time(), a_battery()
    async with client_of("sunspec_battery", battery, time) as (client, _):
        await client.write(704, WSetEnaRvrt=1, WSetRvrtTms=5, WSet=10_000)
        await client.write(704, WSetEna=1)
        time.run(battery, 8)
        values = await client.read(704)
        assert (values["WSetEna"], values["WSet"]) == (1, 0)
        assert battery.power_w == pytest.approx(0, abs=1)
        await client.write(704, WSet=5_000)
        assert battery.setpoint_w == -5_000


@pytest.mark.parametrize(
    ("number", "point", "value", "code"),
    [
        (704, "WSet", 50_001, 3),
        (704, "WSet", -50_001, 3),
        (704, "WSetPct", 100.01, 3),
        (704, "WSetRvrt", 1, 3),
        (704, "WSetMod", 2, 3),
        (704, "WSetRvrtTms", 86_401, 3),
        (704, "WMaxLimPctEna", 1, 2),
        (704, "VarSetEna", 1, 2),
        (702, "WChaRteMax", 10_000, 2),
        (715, "OpCtl", 2, 3),
    ],
)
async def test_the_battery_refuses_what_it_cannot_do(number: int, point: str, value: float, code: int) -> None:
    battery = a_battery()
    async with client_of("sunspec_battery", battery, Time()) as (client, _):
        before = await client.read(number)
        if before[point] is None:
            client.device.models[number][0].points[point].sf_required = False
        with pytest.raises(ModbusClientException, match=f"exception: {code}"):
            await client.write(number, **{point: value})
        assert await client.read(number) == before


async def test_half_a_value_is_never_written() -> None:
    battery = a_battery()
    async with client_of("sunspec_battery", battery, Time()) as (client, twin):
        model = client.device.models[704][0]
        wset = model.model_addr + model.points["WSet"].offset
        raw = AsyncModbusTcpClient("127.0.0.1", port=twin.port)
        await raw.connect()
        for address in (wset, wset + 1):
            assert (await raw.write_register(address, 1, device_id=3)).exception_code == 2
        assert not (await raw.write_registers(wset, [0xFFFF, 0xFFFE], device_id=3)).isError()
        raw.close()
        assert (await client.read(704))["WSet"] == -2


async def test_heartbeats_and_the_start_command() -> None:
    time, battery = Time(), a_battery()
    async with client_of("sunspec_battery", battery, time) as (client, _):
        assert (await client.read(715))["DERHb"] == 0
        time.run(battery, 7)
        await client.write(715, ControllerHb=41)
        values = await client.read(715)
        assert (values["DERHb"], values["ControllerHb"], values["LocRemCtl"]) == (7, 41, 0)
        await client.write(715, OpCtl=0)
        assert not battery.connected
        assert (await client.read(701))["ConnSt"] == 0
        await client.write(715, OpCtl=1)
        assert battery.connected


def test_every_layout_names_its_document_and_known_types() -> None:
    for number, model in LAYOUTS.items():
        assert str(number) in model.source
        assert {point.kind for point in model.points} <= TYPES.keys() | {"string"}

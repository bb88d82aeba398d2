"""The twins of Huawei's SUN2000: without a battery, with a LUNA2000, and the photovoltaics of the latter.

Sources: Huawei, "Solar Inverter Modbus Interface Definitions", Issue 05, 2023-02-16, as transcribed by
huawei-solar-lib (registers.py: register, type and gain; register_values.py: enumerations) and by others who quote it:
37765 is positive while the battery charges, 47083 is a period of 0 to 1440 minutes whose value isn't kept, 47247 and
47249 are kilowatts with a gain of 1000. The document itself wasn't seen. Holding registers by functions 3, 6 and 16,
high word first; "no value" is 0xFFFF, 0x7FFF, 0xFFFFFFFF or 0x7FFFFFFF by type (huawei-solar-lib, `invalid_value`).

Forcible charge and discharge: powers, period and target mode are set first, then the command (47100: 0 stop, 1
charge, 2 discharge) starts them, as huawei-solar does. Here a power takes effect with the command alone. In target
mode 0 the period ends it, in mode 1 the state of charge of 47101; the command is then 0 again and the battery follows
the working mode (47086), for which the twin has no meter: it stands still. Owners measured that such a command ends
by itself after its period. A power above what the battery can do (37046, 37048) is refused.

The power of the inverter is limited by 40125 (percent) or 40126 (watts), whichever was written last, and by 47415
with 47416 (watts) or 47418 (percent), for which the twin takes its own terminals for the connection point. These are
kept and hold without end.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus.inverters.direction import direction
from sim_devices.modbus.inverters.hybrid import HybridUnit, Parts
from sim_devices.modbus.register_table import Holes, RegisterTable, Row, Values, rows
from sim_devices.modbus.registers import TYPES, Getter, Setting
from sim_devices.modbus.sunspec_values import between, line_voltage_v, one_of, phase_voltage_v, site_phase
from sim_devices.models import BatteryModel

BATTERY_VOLTAGE_V: Final = 450.0
LONGEST_PERIOD_MIN: Final = 1440

# 32089, 37762, 47100, 47246, 47415.
ON_GRID: Final = 0x0200
POWER_LIMITED: Final = 0x0201
SHUT_DOWN_BY_COMMAND: Final = 0x0301
NO_IRRADIATION: Final = 0xA000
OFFLINE: Final = 0
STANDBY: Final = 1
RUNNING: Final = 2
STOP: Final = 0
CHARGE: Final = 1
DISCHARGE: Final = 2
BY_TIME: Final = 0
BY_SOC: Final = 1
UNLIMITED: Final = 0
LIMIT_IN_WATTS: Final = 6
LIMIT_IN_PERCENT: Final = 7

HUAWEI_TYPES: Final = {
    "U16": TYPES["uint16"],
    "U32": TYPES["uint32"],
    "I16": TYPES["int16"]._replace(low=-(2**15), high=2**15 - 2, absent=2**15 - 1),
    "I32": TYPES["int32"]._replace(low=-(2**31), high=2**31 - 2, absent=2**31 - 1),
    "string": TYPES["uint16"],
}

INVERTER: Final = rows(
    """
    30000 model string:15;  30015 serial_number string:10;  30025 part_number string:10;  30070 model_id U16;
    30071 pv_strings U16;  30072 mpp_trackers U16;  30073 rated_power_w U32;  30075 max_power_w U32;
    32064 input_power_w I32;
    32066 voltage_l1_l2_v U16 -1;  32067 voltage_l2_l3_v U16 -1;  32068 voltage_l3_l1_v U16 -1;
    32069 voltage_l1_v U16 -1;  32070 voltage_l2_v U16 -1;  32071 voltage_l3_v U16 -1;
    32072 current_l1_a I32 -3;  32074 current_l2_a I32 -3;  32076 current_l3_a I32 -3;
    32078 peak_power_w I32;  32080 power_w I32;  32082 reactive_power_var I32;  32084 power_factor I16 -3;
    32085 frequency_hz U16 -2;  32086 efficiency_pct U16 -2;  32087 temperature_c I16 -1;
    32088 insulation_mohm U16 -3;  32089 device_status U16;  32090 fault_code U16;
    32106 energy_wh U32 1;  32108 dc_energy_wh U32 1;  32114 daily_energy_wh U32 1;
    40125 derating_pct I16 -1;  40126 derating_w U32;
    47415 active_power_mode U16;  47416 feed_in_limit_w I32;  47418 feed_in_limit_pct I16 -1;
    """,
    HUAWEI_TYPES,
)

BATTERY: Final = rows(
    """
    37000 unit_1_status U16;  37001 unit_1_power_w I32;  37003 unit_1_voltage_v U16 -1;  37004 unit_1_soc_pct U16 -1;
    37046 max_charge_w U32;  37048 max_discharge_w U32;
    37758 capacity_wh U32;  37760 soc_pct U16 -1;  37762 status U16;  37763 battery_voltage_v U16 -1;
    37764 battery_current_a I16 -1;  37765 battery_power_w I32;
    37780 energy_import_wh U32 1;  37782 energy_export_wh U32 1;
    47000 product U16;  47075 charge_limit_w U32;  47077 discharge_limit_w U32;
    47081 charge_cutoff_pct U16 -1;  47082 discharge_cutoff_pct U16 -1;
    47083 forcible_period_min U16;  47086 working_mode U16;  47087 charge_from_grid U16;
    47100 forcible_command U16;  47101 forcible_soc_pct U16 -1;
    47246 forcible_target U16;  47247 forcible_charge_w U32;  47249 forcible_discharge_w U32;
    """,
    HUAWEI_TYPES,
)

HOLES: Final = Holes(0, 15)
"""huawei-solar-lib reads across gaps of less than 16 registers; what it gets for them it doesn't look at."""

LIMITS: Final = frozenset({"derating_pct", "derating_w", "active_power_mode", "feed_in_limit_w", "feed_in_limit_pct"})


class Sun2000Unit(HybridUnit):
    """A SUN2000 with photovoltaics, a battery or both, as a Modbus unit."""

    def __init__(self, parts: Parts, clock: Clock, serial: str) -> None:
        self._clock = clock
        self._serial = serial
        self._derating = "derating_pct"
        battery = parts.battery
        self._reversions = 0 if battery is None else battery.reversions
        table: tuple[Row, ...] = INVERTER
        values: Values = {**self._identity(parts), **self._terminals(parts), **self._limits(parts)}
        if battery is not None:
            table += BATTERY
            values = {**values, **self._battery(battery), **self._forcible(battery)}
        super().__init__(parts, RegisterTable.of_rows(table, values, holes=HOLES))

    def with_parts(self, parts: Parts) -> Sun2000Unit:
        """A unit of the same kind with these models."""
        return Sun2000Unit(parts, self._clock, self._serial)

    def _identity(self, parts: Parts) -> Values:
        return {
            "model": "SUN2000-10KTL-M1",
            "serial_number": self._serial,
            "part_number": "01074311",
            "model_id": 424,
            "pv_strings": 2,
            "mpp_trackers": 2,
            "rated_power_w": parts.rating_w,
            "max_power_w": parts.rating_w,
        }

    def _terminals(self, parts: Parts) -> Values:
        terminals = parts.terminals

        def between_v(phase: int) -> Getter | None:
            if len(terminals.phases) != 3:
                return None
            return lambda: line_voltage_v(terminals.voltage_v_by_phase, phase)

        def current_a(terminal: int) -> Getter | None:
            phase = site_phase(terminals, terminal)
            return None if phase is None else lambda: abs(parts.current_a(phase))

        return {
            "input_power_w": lambda: parts.pv_w,
            "voltage_l1_l2_v": between_v(0),
            "voltage_l2_l3_v": between_v(1),
            "voltage_l3_l1_v": between_v(2),
            **{f"voltage_l{phase + 1}_v": phase_voltage_v(terminals, phase) for phase in range(3)},
            **{f"current_l{phase + 1}_a": current_a(phase) for phase in range(3)},
            "power_w": lambda: -parts.power_w,
            "reactive_power_var": 0,
            "power_factor": 1.0,
            "frequency_hz": lambda: terminals.frequency_hz,
            "efficiency_pct": 100.0,
            "temperature_c": 35.0,
            "insulation_mohm": 3.0,
            "device_status": lambda: self._device_status(parts),
            "fault_code": 0,
            "energy_wh": lambda: sum(model.energy_export_wh for model in parts.models),
            "dc_energy_wh": lambda: 0.0 if parts.pv is None else parts.pv.energy_wh,
            "daily_energy_wh": lambda: sum(model.energy_export_wh for model in parts.models),
        }

    def _device_status(self, parts: Parts) -> float:
        if not parts.terminals.connected:
            return SHUT_DOWN_BY_COMMAND
        pv = parts.pv
        if pv is not None:
            if pv.ceiling_pu is not None and pv.ceiling_pu < pv.available_pu:
                return POWER_LIMITED
            if pv.available_w <= 0 and parts.battery is None:
                return NO_IRRADIATION
        return ON_GRID

    def _limits(self, parts: Parts) -> Values:
        rating_w = parts.rating_w
        return {
            "derating_pct": Setting(100.0, between(0.0, 100.0)),
            "derating_w": Setting(rating_w, between(0, rating_w)),
            "active_power_mode": Setting(UNLIMITED, one_of(0, 1, 5, 6, 7)),
            "feed_in_limit_w": Setting(rating_w, between(-1000, rating_w)),
            "feed_in_limit_pct": Setting(100.0, between(-100.0, 100.0)),
        }

    def _battery(self, model: BatteryModel) -> Values:
        measured: Values = {
            "unit_1_status": lambda: self._battery_status(model),
            "unit_1_power_w": lambda: model.power_w,
            "unit_1_voltage_v": BATTERY_VOLTAGE_V,
            "unit_1_soc_pct": lambda: 100.0 * model.soc,
            "max_charge_w": lambda: model.max_charge_w,
            "max_discharge_w": lambda: model.max_discharge_w,
            "capacity_wh": model.capacity_wh,
            "soc_pct": lambda: 100.0 * model.soc,
            "status": lambda: self._battery_status(model),
            "battery_voltage_v": BATTERY_VOLTAGE_V,
            "battery_current_a": lambda: model.power_w / BATTERY_VOLTAGE_V,
            "battery_power_w": lambda: model.power_w,
            "energy_import_wh": lambda: model.energy_import_wh,
            "energy_export_wh": lambda: model.energy_export_wh,
            # LUNA2000.
            "product": 2,
        }
        return measured

    def _battery_status(self, model: BatteryModel) -> float:
        if not model.connected:
            return OFFLINE
        return RUNNING if direction(model.power_w) else STANDBY

    def _forcible(self, model: BatteryModel) -> Values:
        power, percent = between(0, model.rating_w), between(0.0, 100.0)
        return {
            "charge_limit_w": Setting(model.rating_w, power),
            "discharge_limit_w": Setting(model.rating_w, power),
            "charge_cutoff_pct": Setting(100.0, between(90.0, 100.0)),
            "discharge_cutoff_pct": Setting(5.0, between(0.0, 20.0)),
            "forcible_period_min": Setting(0, between(0, LONGEST_PERIOD_MIN)),
            "working_mode": Setting(2, between(0, 5)),
            "charge_from_grid": Setting(1, one_of(0, 1)),
            "forcible_command": Setting(STOP, one_of(STOP, CHARGE, DISCHARGE)),
            "forcible_soc_pct": Setting(100.0, percent),
            "forcible_target": Setting(BY_TIME, one_of(BY_TIME, BY_SOC)),
            "forcible_charge_w": Setting(0, power),
            "forcible_discharge_w": Setting(0, power),
        }

    def _settle(self) -> None:
        battery = self.parts.battery
        if battery is None:
            return
        settings = self.holding.settings
        if battery.reversions != self._reversions:
            self._reversions = battery.reversions
            self.holding.store({"forcible_command": STOP, "forcible_period_min": 0})
        elif settings["forcible_target"] == BY_SOC and self._reached(battery):
            self.holding.store({"forcible_command": STOP})
            battery.set_power(None, None, self._clock())

    def _reached(self, battery: BatteryModel) -> bool:
        settings = self.holding.settings
        target = settings["forcible_soc_pct"] / 100.0
        if settings["forcible_command"] == CHARGE:
            return battery.soc >= target
        return settings["forcible_command"] == DISCHARGE and battery.soc <= target

    def _written(self, names: Set[str]) -> None:
        if "derating_pct" in names or "derating_w" in names:
            self._derating = "derating_w" if "derating_w" in names else "derating_pct"
        if names & LIMITS:
            self._limit()
        if "forcible_command" in names and self.parts.battery is not None:
            self._force(self.parts.battery)

    def _limit(self) -> None:
        pv, settings = self.parts.pv, self.holding.settings
        if pv is None:
            return
        rating_w = self.parts.rating_w
        by_percent = self._derating == "derating_pct"
        limit_w = settings["derating_pct"] / 100.0 * rating_w if by_percent else settings["derating_w"]
        match settings["active_power_mode"]:
            case 5:
                limit_w = 0.0
            case 6:
                limit_w = min(limit_w, settings["feed_in_limit_w"])
            case 7:
                limit_w = min(limit_w, settings["feed_in_limit_pct"] / 100.0 * rating_w)
        pv.set_ceiling(min(max(limit_w, 0.0) / pv.rating_w, 1.0), None, self._clock())

    def _force(self, battery: BatteryModel) -> None:
        settings, now_s = self.holding.settings, self._clock()
        command = settings["forcible_command"]
        by_time = settings["forcible_target"] == BY_TIME
        if command == STOP or (by_time and not settings["forcible_period_min"]):
            self.holding.store({"forcible_command": STOP})
            battery.set_power(None, None, now_s)
            return
        if command == CHARGE:
            power_w = min(settings["forcible_charge_w"], settings["charge_limit_w"])
        else:
            power_w = -min(settings["forcible_discharge_w"], settings["discharge_limit_w"])
        battery.set_power(power_w, 60.0 * settings["forcible_period_min"] if by_time else None, now_s)

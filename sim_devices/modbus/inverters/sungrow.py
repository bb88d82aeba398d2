"""The twins of a Sungrow SH hybrid inverter: its battery, its photovoltaics, or both behind one unit.

Sources, both seen:

- Sungrow, "Communication Protocol of Residential Hybrid Inverter", V1.1.5, 2024-09-24: 3.1 (read-only registers,
  function 4), 3.2 (holding registers, functions 3, 6 and 16), the note behind them (address = number - 1; numbers of
  two registers with the low word first), 4.1 (running state), 4.2 (power flow status).
- The same, V1.1.11, 2025-11-19: registers 13089 and 13090 (active power limitation, 3.1), "It is recommended to use"
  5214 and 5242 instead of 13022 and 5036, 3.2 (command and power, 0 to 100 % of BDC rated power 5628) and 3.5 (EMS
  modes; in external EMS and VPP mode the inverter returns to self-consumption when the heartbeat isn't renewed within
  the time of 13080; compulsory mode has no such time).

The protocol doesn't say which sign battery power (5214) has: positive while discharging, as transcribed by mkaiser's
list for Home Assistant (2026-04), which says that 13022 has none on older firmware; here it is a magnitude. A row's
name is the one in the table; the number in the row is the address, one less than the protocol's.

Self-consumption, without a meter of its own, stands still. Conversion has no losses. Active power limitation limits
the photovoltaics alone. Not acted on: 13058 and 13059 (limits of the state of charge).
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus.inverters.direction import direction
from sim_devices.modbus.inverters.hybrid import HybridUnit, Parts
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE
from sim_devices.modbus.register_table import RegisterTable, Values, rows
from sim_devices.modbus.registers import TYPES, Getter, Setting
from sim_devices.modbus.sunspec_values import between, one_of, phase_voltage_v, site_phase
from sim_devices.models import BatteryModel

BATTERY_VOLTAGE_V: Final = 250.0
DEFAULT_HEARTBEAT_S: Final = 20
SH10RT: Final = 0x0E03

# 13050: EMS modes; 13051: commands; enabling; 4.1: running states.
SELF_CONSUMPTION: Final = 0
COMPULSORY: Final = 2
EXTERNAL_EMS: Final = 3
VPP: Final = 4
CHARGE: Final = 0xAA
DISCHARGE: Final = 0xBB
STOP: Final = 0xCC
ENABLE: Final = 0xAA
DISABLE: Final = 0x55
STATE_RUNNING: Final = 0x0040
STATE_STANDBY: Final = 0x0008
STATE_FORCED: Final = 0x0800
STATE_EXTERNAL_EMS: Final = 0x4000

SUNGROW_TYPES: Final = {
    "U16": TYPES["uint16"],
    "S16": TYPES["int16"]._replace(low=-(2**15), high=2**15 - 2, absent=2**15 - 1),
    "U32": TYPES["uint32"],
    "S32": TYPES["int32"]._replace(low=-(2**31), high=2**31 - 2, absent=2**31 - 1),
}

INPUTS: Final = rows(
    """
    4989 serial_number string:10;  4999 device_type U16;  5000 nominal_power_w U16 2;  5001 output_type U16;
    5002 daily_output_wh U16 2;  5003 total_output_wh U32 2;  5007 temperature_c S16 -1;
    5010 mppt_1_v U16 -1;  5011 mppt_1_a U16 -1;  5012 mppt_2_v U16 -1;  5013 mppt_2_a U16 -1;
    5016 pv_power_w U32;  5018 voltage_l1_v U16 -1;  5019 voltage_l2_v U16 -1;  5020 voltage_l3_v U16 -1;
    5032 reactive_power_var S32;  5034 power_factor S16 -3;  5035 frequency_hz U16 -1;
    5213 battery_power_w S32;  5241 frequency_fine_hz U16 -2;
    5627 bdc_rated_w U16 2;  5630 battery_current_a S16 -1;  5638 capacity_wh U16 1;
    12999 running_state U16;  13000 power_flow U16;  13001 daily_pv_wh U16 2;  13002 total_pv_wh U32 2;
    13019 battery_voltage_v U16 -1;  13020 battery_current_size_a U16 -1;  13021 battery_power_size_w U16;
    13022 soc_pct U16 -1;  13023 soh_pct U16 -1;  13024 battery_temperature_c S16 -1;
    13025 daily_discharge_wh U16 2;  13026 total_discharge_wh U32 2;
    13030 current_l1_a S16 -1;  13031 current_l2_a S16 -1;  13032 current_l3_a S16 -1;  13033 power_w S32;
    13039 daily_charge_wh U16 2;  13040 total_charge_wh U32 2;
    """,
    SUNGROW_TYPES,
)

HOLDING: Final = rows(
    """
    12999 start_stop U16;  13049 ems_mode U16;  13050 command U16;  13051 command_power_w U16;
    13057 max_soc_pct U16 -1;  13058 min_soc_pct U16 -1;  13079 heartbeat_s U16;
    13088 power_limitation U16;  13089 power_limit_pct U16 -1;
    33046 max_charge_w U16 1;  33047 max_discharge_w U16 1;
    """,
    SUNGROW_TYPES,
)

COMMANDS: Final = frozenset(
    {"ems_mode", "command", "command_power_w", "heartbeat_s", "max_charge_w", "max_discharge_w"}
)


class SungrowShUnit(HybridUnit):
    """An SH hybrid inverter as a Modbus unit."""

    functions = frozenset({READ_HOLDING, READ_INPUT, WRITE_SINGLE, WRITE_MULTIPLE})

    def __init__(self, parts: Parts, clock: Clock, serial: str) -> None:
        self._clock = clock
        self._serial = serial
        self._reversions = 0 if parts.battery is None else parts.battery.reversions
        inputs: Values = {**self._identity(parts), **self._terminals(parts), **self._pv(parts)}
        if parts.battery is not None:
            inputs = {**inputs, **self._battery(parts.battery)}
        super().__init__(
            parts,
            RegisterTable.of_rows(HOLDING, self._settings(parts), order="low word first"),
            RegisterTable.of_rows(INPUTS, inputs, order="low word first"),
        )

    def with_parts(self, parts: Parts) -> SungrowShUnit:
        """A unit of the same kind with these models."""
        return SungrowShUnit(parts, self._clock, self._serial)

    def _identity(self, parts: Parts) -> Values:
        return {
            "serial_number": self._serial,
            "device_type": SH10RT,
            "nominal_power_w": parts.rating_w,
            # 0 single phase, 1 three phases and neutral.
            "output_type": int(len(parts.terminals.phases) == 3),
            "temperature_c": 35.0,
        }

    def _terminals(self, parts: Parts) -> Values:
        terminals = parts.terminals

        def current_a(terminal: int) -> Getter | None:
            phase = site_phase(terminals, terminal)
            return None if phase is None else lambda: -parts.current_a(phase)

        def exported_wh() -> float:
            return sum(model.energy_export_wh for model in parts.models)

        return {
            "daily_output_wh": exported_wh,
            "total_output_wh": exported_wh,
            **{f"voltage_l{phase + 1}_v": phase_voltage_v(terminals, phase) for phase in range(3)},
            **{f"current_l{phase + 1}_a": current_a(phase) for phase in range(3)},
            "reactive_power_var": 0,
            "power_factor": 1.0,
            "frequency_hz": lambda: terminals.frequency_hz,
            "frequency_fine_hz": lambda: terminals.frequency_hz,
            "power_w": lambda: -parts.power_w,
            "running_state": self._running_state,
            "power_flow": self._power_flow,
        }

    def _pv(self, parts: Parts) -> Values:
        def energy_wh() -> float:
            return 0.0 if parts.pv is None else parts.pv.energy_wh

        return {
            "mppt_1_v": 600.0,
            "mppt_1_a": lambda: parts.pv_w / 600.0,
            "mppt_2_v": 0.0,
            "mppt_2_a": 0.0,
            "pv_power_w": lambda: parts.pv_w,
            "daily_pv_wh": energy_wh,
            "total_pv_wh": energy_wh,
        }

    def _battery(self, model: BatteryModel) -> Values:
        return {
            "battery_power_w": lambda: -model.power_w,
            "battery_power_size_w": lambda: abs(model.power_w),
            "battery_voltage_v": BATTERY_VOLTAGE_V,
            "battery_current_a": lambda: -model.power_w / BATTERY_VOLTAGE_V,
            "battery_current_size_a": lambda: abs(model.power_w) / BATTERY_VOLTAGE_V,
            "bdc_rated_w": model.rating_w,
            "capacity_wh": model.capacity_wh,
            "soc_pct": lambda: 100.0 * model.soc,
            "soh_pct": 100.0,
            "battery_temperature_c": 25.0,
            "daily_discharge_wh": lambda: model.energy_export_wh,
            "total_discharge_wh": lambda: model.energy_export_wh,
            "daily_charge_wh": lambda: model.energy_import_wh,
            "total_charge_wh": lambda: model.energy_import_wh,
        }

    def _settings(self, parts: Parts) -> Values:
        rating_w = 0.0 if parts.battery is None else parts.battery.rating_w
        settings: Values = {
            "power_limitation": Setting(DISABLE, one_of(ENABLE, DISABLE)),
            "power_limit_pct": Setting(100.0, between(0.0, 100.0)),
        }
        if parts.battery is None:
            return settings
        return {
            **settings,
            "ems_mode": Setting(SELF_CONSUMPTION, one_of(SELF_CONSUMPTION, COMPULSORY, EXTERNAL_EMS, VPP)),
            "command": Setting(STOP, one_of(CHARGE, DISCHARGE, STOP)),
            "command_power_w": Setting(min(1000.0, rating_w), between(0, rating_w)),
            "max_soc_pct": Setting(100.0, between(50.0, 100.0)),
            "min_soc_pct": Setting(5.0, between(0.0, 50.0)),
            "heartbeat_s": Setting(DEFAULT_HEARTBEAT_S, between(0, 1000)),
            "max_charge_w": Setting(rating_w, between(10, max(10_600.0, rating_w))),
            "max_discharge_w": Setting(rating_w, between(10, max(10_600.0, rating_w))),
        }

    def _running_state(self) -> float:
        mode = self.holding.settings.get("ems_mode", SELF_CONSUMPTION)
        if mode == COMPULSORY:
            return STATE_FORCED
        if mode in (EXTERNAL_EMS, VPP):
            return STATE_EXTERNAL_EMS
        return STATE_RUNNING if direction(self.parts.power_w) else STATE_STANDBY

    def _power_flow(self) -> float:
        """Bits 0 photovoltaics, 1 charging, 2 discharging."""
        battery = 0 if self.parts.battery is None else direction(self.parts.battery.power_w)
        return int(direction(self.parts.pv_w) > 0) | int(battery > 0) << 1 | int(battery < 0) << 2

    def _settle(self) -> None:
        battery = self.parts.battery
        if battery is not None and battery.reversions != self._reversions:
            self._reversions = battery.reversions
            self.holding.store({"ems_mode": SELF_CONSUMPTION})

    def _written(self, names: Set[str]) -> None:
        if names & {"power_limitation", "power_limit_pct"}:
            self._limit()
        if names & COMMANDS and self.parts.battery is not None:
            self._command(self.parts.battery, names)

    def _limit(self) -> None:
        pv, settings = self.parts.pv, self.holding.settings
        if pv is None:
            return
        limited = settings["power_limitation"] == ENABLE
        limit_w = settings["power_limit_pct"] / 100.0 * self.parts.rating_w
        pv.set_ceiling(min(limit_w / pv.rating_w, 1.0) if limited else None, None, self._clock())

    def _command(self, battery: BatteryModel, names: Set[str]) -> None:
        settings, now_s = self.holding.settings, self._clock()
        if settings["ems_mode"] == SELF_CONSUMPTION:
            battery.set_power(None, None, now_s)
            return
        life_s = None
        if settings["ems_mode"] != COMPULSORY:
            renewed = names & {"ems_mode", "heartbeat_s"}
            life_s = settings["heartbeat_s"] if renewed else battery.reversion_remaining_s(now_s)
        battery.set_power(self._power_w(), life_s or None, now_s)

    def _power_w(self) -> float:
        settings = self.holding.settings
        if settings["command"] == CHARGE:
            return min(settings["command_power_w"], settings["max_charge_w"])
        if settings["command"] == DISCHARGE:
            return -min(settings["command_power_w"], settings["max_discharge_w"])
        return 0.0

"""The twin of an SMA battery inverter (Sunny Boy Storage) by SMA's own registers, unit 3.

Sources: SMA publishes a list of "Parameters and measured values" for each device and firmware. Such lists were seen
as transcribed by py-sma-modbus2 (sma.py, which names SMA's channel, type and format of each register), by
libsmamodbus (SmaModbus.hpp: which registers are write only, "technically readable, but returns NaN") and by OpenEMS
(io.openems.edge.sma, Sunny Island and STP SE battery). In particular:

- GridMs.TotW (30775) is positive while the inverter feeds in, so that a battery discharges; so is the setpoint
  Inverter.WModCfg.WCtlComCfg.WSpt (40149), which acts while WCtlComAct (40151) is 802 "active", not 803 "inactive".
- Inverter.CtlComCfg.WCtlCom.CtlComMssMod (41193: 2506 values maintained, 2507 apply fallback values), TmsOut (41195,
  1 to 10,000 s, default 600 s) and Inverter.WModCfg.WCtlComCfg.FlbWSpt (41215, the setpoint that then holds): names
  as transcribed by py-sma-modbus2; values from SMA's parameter list of the Sunny Tripower xx-US-50, rows 112 and 113,
  as quoted by others. Which of the two 41193 is from the factory is not said; here the fallback. 44035 and 44037,
  limits of newer devices, are there and not a number.
- Bat.Amp (30843) is positive while discharging: OpenEMS takes it unchanged for its battery's current, of which it
  says that discharging is positive.
- Not a number: 0x80000000 for S32, 0xFFFFFFFF for U32, 0x00FFFFFD for lists of tags, all ones for U64 ("SMA Modbus
  Interface", data types and NaN values). A read may begin and end anywhere among the values, as OpenEMS does with
  30843 to 30956; what is between them is all ones.

The twin's own regulation, without a meter, stands still. Functions 3, 4, 6 and 16; both tables are one.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus.inverters.direction import direction
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE
from sim_devices.modbus.register_table import Holes, RegisterTable, Values, WriteOnly, rows
from sim_devices.modbus.registers import TYPES, Setting
from sim_devices.modbus.sunspec_values import between, one_of, phase_current_a, phase_generation_w, phase_voltage_v
from sim_devices.modbus.table_unit import SettingsUnit
from sim_devices.models import BatteryModel

ACTIVE: Final = 802
INACTIVE: Final = 803
HOLD: Final = 2506
APPLY_FALLBACK: Final = 2507
DEFAULT_TIMEOUT_S: Final = 600
LARGEST_INT32: Final = 2**31 - 1
BATTERY_VOLTAGE_V: Final = 400.0

# Lists of tags: Operation.Health, Bat.OpStt, Bat.ChaCtlComAval, Nameplate.MainModel.
OFF: Final = 303
OK: Final = 307
STANDBY: Final = 2291
CHARGE: Final = 2292
DISCHARGE: Final = 2293
YES: Final = 1129
BATTERY_INVERTER: Final = 8007
SUNNY_BOY_STORAGE_5: Final = 9326

SMA_TYPES: Final = {
    "S32": TYPES["int32"],
    "U32": TYPES["uint32"],
    "U64": TYPES["uint64"],
    "TAG": TYPES["uint32"]._replace(absent=0x00FFFFFD),
}

REGISTERS: Final = rows(
    """
    30051 main_model TAG;  30053 model TAG;  30057 serial_number U32;  30201 health TAG;  30231 rated_power_w U32;
    30233 max_power_w U32;
    30775 power_w S32;  30777 power_l1_w S32;  30779 power_l2_w S32;  30781 power_l3_w S32;
    30783 voltage_l1_v U32 -2;  30785 voltage_l2_v U32 -2;  30787 voltage_l3_v U32 -2;  30803 frequency_hz U32 -2;
    30843 battery_current_a S32 -3;
    30845 soc_pct U32;  30847 capacity_pct U32;  30849 battery_temperature_c S32 -1;  30851 battery_voltage_v U32 -2;
    30955 battery_state TAG;
    30977 current_l1_a S32 -3;  30979 current_l2_a S32 -3;  30981 current_l3_a S32 -3;
    31061 control_available TAG;
    31393 charge_power_w U32;  31395 discharge_power_w U32;  31397 energy_import_wh U64;  31401 energy_export_wh U64;
    40149 power_setpoint_w S32;  40151 control_by_communication TAG;
    40187 capacity_wh U32;  40189 max_charge_w U32;  40191 max_discharge_w U32;
    41193 on_missing_setpoint TAG;  41195 setpoint_timeout_s U32;  41215 fallback_setpoint_w S32;
    44035 fallback_min_power S32;  44037 fallback_max_power S32;
    """,
    SMA_TYPES,
)

SETPOINT: Final = frozenset({"power_setpoint_w", "control_by_communication"})


class SmaStorageUnit(SettingsUnit):
    """A battery inverter as a Modbus unit; each write of the setpoint or its activation starts the time-out anew."""

    functions = frozenset({READ_HOLDING, READ_INPUT, WRITE_SINGLE, WRITE_MULTIPLE})

    def __init__(self, model: BatteryModel, clock: Clock, serial: int) -> None:
        self._model = model
        self._clock = clock
        self._reversions = model.reversions
        values: Values = {**self._measurements(), **self._settings(), "serial_number": serial}
        super().__init__(RegisterTable.of_rows(REGISTERS, values, holes=Holes(0xFFFF, 125)))

    def _measurements(self) -> Values:
        model = self._model
        return {
            "main_model": BATTERY_INVERTER,
            "model": SUNNY_BOY_STORAGE_5,
            "health": lambda: OK if model.connected else OFF,
            "rated_power_w": model.rating_w,
            "max_power_w": model.rating_w,
            "power_w": lambda: -model.power_w,
            **{f"power_l{phase + 1}_w": phase_generation_w(model, phase) for phase in range(3)},
            **{f"voltage_l{phase + 1}_v": phase_voltage_v(model, phase) for phase in range(3)},
            **{f"current_l{phase + 1}_a": phase_current_a(model, phase) for phase in range(3)},
            "frequency_hz": lambda: model.frequency_hz,
            "soc_pct": lambda: 100.0 * model.soc,
            "capacity_pct": 100,
            "battery_temperature_c": 25.0,
            "battery_voltage_v": BATTERY_VOLTAGE_V,
            "battery_current_a": lambda: -model.power_w / BATTERY_VOLTAGE_V,
            "battery_state": self._battery_state,
            "control_available": YES,
            "charge_power_w": lambda: max(model.power_w, 0.0),
            "discharge_power_w": lambda: max(-model.power_w, 0.0),
            "energy_import_wh": lambda: model.energy_import_wh,
            "energy_export_wh": lambda: model.energy_export_wh,
            "capacity_wh": model.capacity_wh,
            "max_charge_w": lambda: model.max_charge_w,
            "max_discharge_w": lambda: model.max_discharge_w,
        }

    def _settings(self) -> Values:
        return {
            "power_setpoint_w": WriteOnly(0, between(-LARGEST_INT32, LARGEST_INT32)),
            "control_by_communication": WriteOnly(INACTIVE, one_of(ACTIVE, INACTIVE)),
            "on_missing_setpoint": Setting(APPLY_FALLBACK, one_of(HOLD, APPLY_FALLBACK)),
            "setpoint_timeout_s": Setting(DEFAULT_TIMEOUT_S, between(1, 10_000)),
            "fallback_setpoint_w": Setting(0, between(-LARGEST_INT32, LARGEST_INT32)),
        }

    def _battery_state(self) -> float:
        model = self._model
        if not model.connected:
            return OFF
        if flow := direction(model.power_w):
            return CHARGE if flow > 0 else DISCHARGE
        return STANDBY

    def _settle(self) -> None:
        if self._model.reversions != self._reversions:
            self._reversions = self._model.reversions
            self.holding.store({"power_setpoint_w": self.holding.settings["fallback_setpoint_w"]})

    def _written(self, names: Set[str]) -> None:
        settings, now_s = self.holding.settings, self._clock()
        self._model.fallback_w = -settings["fallback_setpoint_w"]
        if not names & SETPOINT:
            return
        if settings["control_by_communication"] == INACTIVE:
            self._model.set_power(None, None, now_s)
            return
        timeout_s = settings["setpoint_timeout_s"] if settings["on_missing_setpoint"] == APPLY_FALLBACK else None
        self._model.set_power(-settings["power_setpoint_w"], timeout_s, now_s)

"""The twins of SolarEdge inverters: a plain one with enhanced dynamic power control, and one with StorEdge.

Sources:

- SolarEdge, "Technical Note, Power Control Protocol for SolarEdge Inverters", Version 1.3, Nov. 2017: the global
  dynamic block (0xF000), commit and restore (0xF100), the power control block (0xF104, 0xF142), the enhanced dynamic
  power control block (0xF300), the StorEdge control block (0xE004) and battery 1 (0xE100), each with its register
  map; Appendix B, "Configuration of the Storage Control for Remote Control mode".
- SolarEdge, "Technical Note, SunSpec Logging in SolarEdge Inverters", Version 3.2, June 2025: model 1 of length 65 at
  40000 and model 101 or 103 at 40069.
- The notes don't say in which order the registers of a 32-bit number come: low word first, as transcribed by
  solaredge-modbus-multi (module hub) and evcc (template solaredge-hybrid, "float32s"); and as the latter reads
  battery power (scale -1 to its own sign), it is positive while charging. State of energy is a percentage there.
- The defaults of 0xF310 (60 s) and 0xF312 (100 %), and 0xF318 and 0xF31A (-1 switches the ramp off), are those of
  Victron's dbus-fronius (solaredge_limiter.cpp).

The device is as the installer left it: AdvancedPwrControlEn is 1, ReactivePwrConfig is 4 and both are committed,
StorEdge is in remote control with AC charging always allowed, and the ramps are off. A commit or restore command is
refused.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus.inverters.direction import direction
from sim_devices.modbus.inverters.sunspec_storage import COMMON_WITHOUT_PAD, inverter_model
from sim_devices.modbus.pdu import ExceptionCode, Table
from sim_devices.modbus.register_table import RegisterTable, Row, Values, rows
from sim_devices.modbus.registers import Setting
from sim_devices.modbus.sunspec_layout import Values as ModelValues
from sim_devices.modbus.sunspec_layout import chain, scale_for
from sim_devices.modbus.sunspec_values import (
    HEADROOM,
    VOLTAGE_SF,
    between,
    between_phases_v,
    one_of,
    phase_current_a,
    phase_voltage_v,
)
from sim_devices.modbus.table_unit import SettingsUnit
from sim_devices.models import BatteryModel, InverterModel

VENDOR_BLOCKS: Final = 0xE000
"""Below it the SunSpec map, from it on SolarEdge's own blocks."""

BATTERY_VOLTAGE_V: Final = 400.0
LARGEST_UINT32: Final = 2**32 - 2

# The table of the enhanced block and its prerequisites; addresses and ranges as in the note, sections named above.
POWER_CONTROL: Final = rows(
    """
    0xF000 rrcr_state uint16;  0xF001 active_power_limit_pct uint16;  0xF002 cos_phi float32;
    0xF104 reactive_power_config int32;
    0xF142 advanced_power_control_enabled int32;
    0xF300 dynamic_control_enabled uint16;  0xF301 reserved_1 uint16;  0xF302 reserved_2 float32;
    0xF304 max_active_power_w float32;  0xF306 max_reactive_power_var float32;
    0xF308 active_reactive_preference uint16;  0xF309 cos_phi_q_preference uint16;  0xF30A reserved_3 float32;
    0xF30C active_power_limit_w float32;  0xF30E reactive_power_limit_var float32;  0xF310 command_timeout_s uint32;
    0xF312 fallback_active_limit_pct float32;  0xF314 fallback_reactive_limit_pct float32;
    0xF316 fallback_cos_phi float32;  0xF318 ramp_up_pct_per_min float32;  0xF31A ramp_down_pct_per_min float32;
    0xF31C reactive_ramp_up_pct_per_min float32;  0xF31E reactive_ramp_down_pct_per_min float32;
    0xF320 phi_change_rate float32;
    0xF322 dynamic_active_limit_pct float32;  0xF324 dynamic_reactive_ref_pct float32;
    0xF326 dynamic_cos_phi_ref float32;
    """
)

STOREDGE: Final = rows(
    """
    0xE000 export_control_mode uint16;  0xE001 export_limit_mode uint16;  0xE002 export_site_limit_w float32;
    0xE004 control_mode uint16;  0xE005 ac_charge_policy uint16;  0xE006 ac_charge_limit float32;
    0xE008 backup_reserved_pct float32;  0xE00A default_mode uint16;  0xE00B command_timeout_s uint32;
    0xE00D command_mode uint16;  0xE00E charge_limit_w float32;  0xE010 discharge_limit_w float32;
    0xE012 external_production_w float32;
    0xE100 battery_manufacturer string:16;  0xE110 battery_model string:16;  0xE120 battery_firmware string:16;
    0xE130 battery_serial string:16;  0xE140 battery_device_id uint16;  0xE141 reserved uint16;
    0xE142 rated_energy_wh float32;  0xE144 max_charge_w float32;  0xE146 max_discharge_w float32;
    0xE148 max_charge_peak_w float32;  0xE14A max_discharge_peak_w float32;
    0xE14C reserved_block string:32;
    0xE16C average_temperature_c float32;  0xE16E max_temperature_c float32;  0xE170 battery_voltage_v float32;
    0xE172 battery_current_a float32;  0xE174 battery_power_w float32;  0xE176 energy_export_wh uint64;
    0xE17A energy_import_wh uint64;  0xE17E max_energy_wh float32;  0xE180 available_energy_wh float32;
    0xE182 state_of_health_pct float32;  0xE184 state_of_energy_pct float32;  0xE186 battery_status uint32;
    0xE188 battery_status_internal uint32;
    """
)

# StorEdge control and status block: control modes, charge/discharge modes, battery status.
REMOTE_CONTROL: Final = 4
CHARGE_FROM_PV_AND_AC: Final = 3
MAXIMIZE_EXPORT: Final = 4
STANDBY: Final = 1
CHARGE: Final = 3
DISCHARGE: Final = 4
OFF: Final = 0


class SolarEdgeUnit(SettingsUnit):
    """A SunSpec map that is read only, and SolarEdge's own blocks behind it."""

    def __init__(
        self, model: InverterModel | BatteryModel, clock: Clock, serial: str, table: tuple[Row, ...], values: Values
    ) -> None:
        self._clock = clock
        self._device = model
        self._reversions = model.reversions
        identity: ModelValues = {"Mn": "SolarEdge", "Md": "SE10K-RWS", "Vr": "0004.0020", "SN": serial, "DA": 1}
        self.map = chain(
            [(COMMON_WITHOUT_PAD, identity), (inverter_model(len(model.phases)), self._measurements(model))]
        )
        super().__init__(RegisterTable.of_rows(table, values, order="low word first"))

    def _measurements(self, model: InverterModel | BatteryModel) -> ModelValues:
        return {
            "A": lambda: sum(abs(current_a) for current_a in model.current_a_by_phase),
            **{f"Aph{letter}": phase_current_a(model, phase) for phase, letter in enumerate("ABC")},
            "A_SF": scale_for(HEADROOM * model.rating_w / model.nominal_voltage_v, "uint16", -2),
            **{f"PPVph{letters}": between_phases_v(model, phase) for phase, letters in enumerate(("AB", "BC", "CA"))},
            **{f"PhVph{letter}": phase_voltage_v(model, phase) for phase, letter in enumerate("ABC")},
            "V_SF": VOLTAGE_SF,
            "W": lambda: -model.power_w,
            "W_SF": scale_for(HEADROOM * model.rating_w, "int16", -1),
            "Hz": lambda: model.frequency_hz,
            "Hz_SF": -2,
            "VA": lambda: abs(model.power_w),
            "VA_SF": scale_for(HEADROOM * model.rating_w, "int16", -1),
            "WH": lambda: model.energy_export_wh,
            "WH_SF": 0,
            "DCW": lambda: -model.power_w,
            "DCW_SF": scale_for(HEADROOM * model.rating_w, "int16", -1),
            "TmpSnk": 35.0,
            "Tmp_SF": -2,
            "St": self._status,
            "StVnd": 0,
        }

    def _status(self) -> float:
        """1 off, 2 sleeping, 4 producing, 5 curtailed."""
        model = self._device
        if not model.connected:
            return 1
        if isinstance(model, InverterModel):
            if model.available_w <= 0:
                return 2
            return 5 if model.ceiling_pu is not None and model.ceiling_pu < model.available_pu else 4
        return 4 if direction(model.power_w) else 2

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of registers of one of the two maps."""
        if address >= VENDOR_BLOCKS:
            return super().read(table, address, count)
        self._settle()
        return self.map.read(address, count)


class SolarEdgeInverterUnit(SolarEdgeUnit):
    """An inverter without a battery.

    With Enable Dynamic Power Control on 1 the inverter generates at most Dynamic Active Power Limit percent of Active
    Power Limit. Each write of the dynamic limit starts Command Timeout anew; when it has passed, Fall-back Active Power
    Limit takes its place. The enable flag and the dynamic limit aren't kept over a restart.
    """

    def __init__(self, model: InverterModel, clock: Clock, serial: str) -> None:
        self._model = model
        super().__init__(model, clock, serial, POWER_CONTROL, self._controls(model))

    def _controls(self, model: InverterModel) -> Values:
        percent, ramp = between(0.0, 100.0), lambda rate: rate == -1.0 or 0.0 <= rate <= 100.0
        return {
            "rrcr_state": 0,
            "active_power_limit_pct": Setting(100, between(0, 100)),
            "cos_phi": 1.0,
            "reactive_power_config": 4,
            "advanced_power_control_enabled": 1,
            "dynamic_control_enabled": Setting(0, one_of(0, 1)),
            "max_active_power_w": model.rating_w,
            "max_reactive_power_var": model.rating_w,
            "active_reactive_preference": 1,
            "cos_phi_q_preference": 0,
            "active_power_limit_w": Setting(model.rating_w, between(0.0, model.rating_w)),
            "reactive_power_limit_var": model.rating_w,
            "command_timeout_s": Setting(60, between(0, LARGEST_UINT32)),
            "fallback_active_limit_pct": Setting(100.0, percent),
            "fallback_reactive_limit_pct": 100.0,
            "fallback_cos_phi": 1.0,
            "reactive_ramp_up_pct_per_min": -1.0,
            "reactive_ramp_down_pct_per_min": -1.0,
            "phi_change_rate": -1.0,
            "ramp_up_pct_per_min": Setting(-1.0, ramp),
            "ramp_down_pct_per_min": Setting(-1.0, ramp),
            "dynamic_active_limit_pct": Setting(100.0, percent),
            "dynamic_reactive_ref_pct": 0.0,
            "dynamic_cos_phi_ref": 1.0,
        }

    def _settle(self) -> None:
        if self._model.reversions != self._reversions:
            self._reversions = self._model.reversions
            settings = self.holding.settings
            self.holding.store({"dynamic_active_limit_pct": settings["fallback_active_limit_pct"]})

    def _written(self, names: Set[str]) -> None:
        settings = self.holding.settings
        limit_pu = settings["active_power_limit_w"] / self._model.rating_w
        self._model.fallback_pu = settings["fallback_active_limit_pct"] / 100.0 * limit_pu
        now_s = self._clock()
        if settings["dynamic_control_enabled"] == 0:
            self._model.set_ceiling(settings["active_power_limit_pct"] / 100.0, None, now_s)
        elif names & {"dynamic_active_limit_pct", "dynamic_control_enabled", "active_power_limit_w"}:
            ceiling_pu = settings["dynamic_active_limit_pct"] / 100.0 * limit_pu
            self._model.set_ceiling(ceiling_pu, settings["command_timeout_s"] or None, now_s)


class SolarEdgeStorageUnit(SolarEdgeUnit):
    """An inverter with battery 1, without photovoltaics and without a meter.

    In remote control the command mode acts for Remote Control Command Timeout after the last write of it, of a limit
    or of the time-out; then the default mode does. Modes 0, 1, 2, 5 and 7 stand still: what they would do depends on
    photovoltaics or a meter. 3 charges up to the charge limit, if the policy lets it charge from AC; 4 discharges up to
    the discharge limit.
    """

    COMMANDS: Final = frozenset(
        {"control_mode", "ac_charge_policy", "command_timeout_s", "command_mode", "charge_limit_w", "discharge_limit_w"}
    )

    def __init__(self, model: BatteryModel, clock: Clock, serial: str) -> None:
        self._model = model
        super().__init__(model, clock, serial, STOREDGE, {**self._controls(model), **self._battery(model, serial)})

    def _controls(self, model: BatteryModel) -> Values:
        modes = one_of(0, 1, 2, 3, 4, 5, 7)
        return {
            "export_control_mode": 0,
            "export_limit_mode": 0,
            "export_site_limit_w": 0.0,
            "external_production_w": 0.0,
            "control_mode": Setting(REMOTE_CONTROL, between(0, 4)),
            "ac_charge_policy": Setting(1, between(0, 3)),
            "ac_charge_limit": 0.0,
            "backup_reserved_pct": 0.0,
            "default_mode": Setting(1, modes),
            "command_timeout_s": Setting(3600, between(0, 86_400)),
            "command_mode": Setting(1, modes),
            "charge_limit_w": Setting(model.rating_w, between(0.0, model.rating_w)),
            "discharge_limit_w": Setting(model.rating_w, between(0.0, model.rating_w)),
        }

    def _battery(self, model: BatteryModel, serial: str) -> Values:
        return {
            "battery_manufacturer": "SolarEdge",
            "battery_model": "Home Battery",
            "battery_firmware": "2.1",
            "battery_serial": serial,
            "battery_device_id": 15,
            "rated_energy_wh": model.capacity_wh,
            "max_charge_w": model.rating_w,
            "max_discharge_w": model.rating_w,
            "max_charge_peak_w": model.rating_w,
            "max_discharge_peak_w": model.rating_w,
            "average_temperature_c": 25.0,
            "max_temperature_c": 26.0,
            "battery_voltage_v": BATTERY_VOLTAGE_V,
            "battery_current_a": lambda: model.power_w / BATTERY_VOLTAGE_V,
            "battery_power_w": lambda: model.power_w,
            "energy_export_wh": lambda: model.energy_export_wh,
            "energy_import_wh": lambda: model.energy_import_wh,
            "max_energy_wh": model.capacity_wh,
            "available_energy_wh": lambda: model.stored_wh,
            "state_of_health_pct": 100.0,
            "state_of_energy_pct": lambda: 100.0 * model.soc,
            "battery_status": self._battery_status,
            "battery_status_internal": 0,
        }

    def _battery_status(self) -> float:
        model = self._model
        if not model.connected:
            return OFF
        if flow := direction(model.power_w):
            return CHARGE if flow > 0 else DISCHARGE
        return STANDBY

    def _power_w(self, mode: float) -> float:
        settings = self.holding.settings
        if settings["control_mode"] != REMOTE_CONTROL:
            return 0.0
        if mode == CHARGE_FROM_PV_AND_AC:
            return settings["charge_limit_w"] if settings["ac_charge_policy"] else 0.0
        return -settings["discharge_limit_w"] if mode == MAXIMIZE_EXPORT else 0.0

    def _written(self, names: Set[str]) -> None:
        settings = self.holding.settings
        self._model.fallback_w = self._power_w(settings["default_mode"])
        if names & self.COMMANDS:
            timeout_s = settings["command_timeout_s"]
            mode = settings["command_mode"] if timeout_s else settings["default_mode"]
            self._model.set_power(self._power_w(mode), timeout_s or None, self._clock())

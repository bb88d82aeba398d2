"""The twin of a Victron VE.Bus system (MultiPlus, Quattro) behind a GX device: the service com.victronenergy.vebus.

Sources:

- Victron Energy, "CCGX Modbus TCP register list", rev 53, sheet "Field list", and the same list as the GX device's
  own server reads it (dbus_modbustcp, attributes.csv): addresses, types and divisors ("scale factor" there: 0.1
  counts tens of watts, 10 counts tenths), signs (AC input positive from the mains to the Multi, DC positive from the
  Multi to the battery), which can be written.
- That server's source (mappings.cpp, backend.cpp): functions 3, 4, 6 and 16; exception 2 for a register that there
  isn't and for one that can't be written; a value that isn't known reads as 0, not as "absent".
- Victron Energy, "ESS mode 2 and 3", section on mode 3: the point of control is the AC input; each phase has a
  setpoint, charging positive; a setpoint has to be renewed within 60 s, otherwise the Multi goes to passthru. The
  time is quoted by users of the page, one of whom saw 10 s; the page was not seen whole.

Nothing is connected to the AC output, so that AC input and battery are the same power. A system of one phase has no
/Ac/ActiveIn/L2: its registers read 0, and what is written to its setpoint has no effect.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE
from sim_devices.modbus.register_table import RegisterTable, Values, rows
from sim_devices.modbus.registers import TYPES, Setting
from sim_devices.modbus.sunspec_values import between, one_of
from sim_devices.modbus.table_unit import SettingsUnit
from sim_devices.models import BatteryModel

SETPOINT_LIFE_S: Final = 60.0
BATTERY_VOLTAGE_V: Final = 51.2

# /State.
PASSTHRU: Final = 8
EXTERNAL_CONTROL: Final = 252

# Unknown values read as 0, and every raw value means something.
GX_TYPES: Final = {
    "int16": TYPES["int16"]._replace(low=-(2**15), absent=0),
    "uint16": TYPES["uint16"]._replace(high=2**16 - 1, absent=0),
    "int32": TYPES["int32"]._replace(low=-(2**31), absent=0),
    "uint32": TYPES["uint32"]._replace(high=2**32 - 1, absent=0),
}

REGISTERS: Final = rows(
    """
    3 input_l1_v uint16 -1;  4 input_l2_v uint16 -1;  5 input_l3_v uint16 -1;
    6 input_l1_a int16 -1;  7 input_l2_a int16 -1;  8 input_l3_a int16 -1;
    9 input_l1_hz int16 -2;  10 input_l2_hz int16 -2;  11 input_l3_hz int16 -2;
    12 input_l1_w int16 1;  13 input_l2_w int16 1;  14 input_l3_w int16 1;
    15 output_l1_v uint16 -1;  16 output_l2_v uint16 -1;  17 output_l3_v uint16 -1;
    18 output_l1_a int16 -1;  19 output_l2_a int16 -1;  20 output_l3_a int16 -1;
    21 output_hz int16 -2;  22 input_limit_a int16 -1;
    23 output_l1_w int16 1;  24 output_l2_w int16 1;  25 output_l3_w int16 1;
    26 battery_v uint16 -2;  27 battery_a int16 -1;  28 phase_count uint16;  29 active_input uint16;
    30 soc_pct uint16 -1;  31 state uint16;  32 error uint16;  33 switch_position uint16;
    34 alarm_temperature uint16;  35 alarm_low_battery uint16;  36 alarm_overload uint16;
    37 setpoint_l1_w int16;  38 disable_charge uint16;  39 disable_feed_in uint16;
    40 setpoint_l2_w int16;  41 setpoint_l3_w int16;
    76 energy_import_wh uint32 1;  86 energy_export_wh uint32 1;
    96 setpoint_l1_wide_w int32;  98 setpoint_l2_wide_w int32;  100 setpoint_l3_wide_w int32;
    """,
    GX_TYPES,
)


class VeBusUnit(SettingsUnit):
    """A VE.Bus system in ESS mode 3 as a Modbus unit; the setpoint of each phase lives for 60 s.

    Register 38 forbids charging and 39 feeding in; the setpoint yields to both.
    """

    functions = frozenset({READ_HOLDING, READ_INPUT, WRITE_SINGLE, WRITE_MULTIPLE})

    def __init__(self, model: BatteryModel, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._set_at_s: dict[int, float] = {}
        values: dict[str, Setting] = {
            "disable_charge": Setting(0, one_of(0, 1)),
            "disable_feed_in": Setting(0, one_of(0, 1)),
        }
        for phase in (1, 2, 3):
            values[f"setpoint_l{phase}_w"] = Setting(0, between(-(2**15), 2**15 - 1))
            values[f"setpoint_l{phase}_wide_w"] = Setting(0, between(-(2**31), 2**31 - 1))
        super().__init__(RegisterTable.of_rows(REGISTERS, {**self._measurements(), **values}))

    def _measurements(self) -> Values:
        model = self._model
        values: dict[str, float | None] = {
            "battery_v": BATTERY_VOLTAGE_V,
            "phase_count": len(model.phases),
            "active_input": 0,
            "error": 0,
            # On.
            "switch_position": 3,
            "alarm_temperature": 0,
            "alarm_low_battery": 0,
            "alarm_overload": 0,
            "input_limit_a": 50.0,
        }
        return {
            **values,
            **{name: value for terminal in range(len(model.phases)) for name, value in self._phase(terminal).items()},
            "output_hz": lambda: model.frequency_hz,
            "battery_a": lambda: model.power_w / BATTERY_VOLTAGE_V,
            "soc_pct": lambda: 100.0 * model.soc,
            "state": lambda: EXTERNAL_CONTROL if self._living() else PASSTHRU,
            "energy_import_wh": lambda: model.energy_import_wh,
            "energy_export_wh": lambda: model.energy_export_wh,
        }

    def _phase(self, terminal: int) -> Values:
        model, at, phase = self._model, self._model.phases[terminal] - 1, terminal + 1
        return {
            f"input_l{phase}_v": lambda: model.voltage_v_by_phase[at],
            f"input_l{phase}_a": lambda: model.current_a_by_phase[at],
            f"input_l{phase}_hz": lambda: model.frequency_hz,
            f"input_l{phase}_w": lambda: model.power_w_by_phase[at],
            f"output_l{phase}_v": lambda: model.voltage_v_by_phase[at],
            f"output_l{phase}_a": 0.0,
            f"output_l{phase}_w": 0.0,
        }

    def _living(self) -> list[int]:
        """The phases whose setpoint has been renewed in time."""
        now_s = self._clock()
        return [phase for phase, set_at_s in self._set_at_s.items() if now_s - set_at_s < SETPOINT_LIFE_S]

    def _settle(self) -> None:
        living = self._living()
        if len(living) != len(self._set_at_s):
            self._set_at_s = {phase: self._set_at_s[phase] for phase in living}
            self._apply()

    def _written(self, names: Set[str]) -> None:
        settings, now_s = self.holding.settings, self._clock()
        for phase in (1, 2, 3):
            narrow, wide = f"setpoint_l{phase}_w", f"setpoint_l{phase}_wide_w"
            if narrow in names or wide in names:
                power_w = settings[narrow if narrow in names else wide]
                self.holding.store({narrow: power_w, wide: power_w})
                if phase <= len(self._model.phases):
                    self._set_at_s[phase] = now_s
        self._apply()

    def _apply(self) -> None:
        settings, now_s = self.holding.settings, self._clock()
        if not self._set_at_s:
            self._model.set_power(None, None, now_s)
            return
        power_w = sum(settings[f"setpoint_l{phase}_w"] for phase in self._set_at_s)
        if power_w > 0 and settings["disable_charge"]:
            power_w = 0.0
        if power_w < 0 and settings["disable_feed_in"]:
            power_w = 0.0
        rest_s = max(self._set_at_s.values()) + SETPOINT_LIFE_S - now_s
        self._model.set_power(power_w, rest_s, now_s)

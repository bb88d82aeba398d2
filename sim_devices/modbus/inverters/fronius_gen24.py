"""The twin of a Fronius GEN24 Plus with a battery: SunSpec models 1, 103, 120, 121, 122, 123, 160 and 124.

Sources:

- Fronius, "Gen24 Primo/Symo Inverter Register Map with Integer+SF Inverter Model and storage configured for ROW use",
  seen as a copy of Fronius's own sheet: order and lengths of the models, which points are "not supported", scale
  factors, ranges, and exception 3 for a power window whose end lies before its beginning (sheet "storage (124)", rows
  OutWRte and InWRte).
- Fronius, "Modbus TCP & RTU, operating instructions", sections "Time response of the supported operating modes"
  (RvrtTms: every Modbus message restarts the timer; at its end the operating mode ends; 0: never), "Scale factors"
  (those of live values change), "Non-writable registers" (a write to one is ignored without an exception), "Entering
  invalid values" (exception 3), and "Basic Storage Control Model (124)", "Power window specifications", examples 1 to
  7. Seen in the text of the Datamanager's edition; that the GEN24's (42,0410,2649) says the same is taken from its
  title.

What the twin's own regulation would do with the battery depends on a meter that it doesn't have: it stands still as
far as the power window lets it. Charging comes from the grid, as there is no photovoltaics, so that ChaGriSet 0
allows none; it is 1 at the start, as a commissioned device's web interface sets it. Models 120 to 123 and MinRsvPct
are read only here.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus import sunspec_models as ic
from sim_devices.modbus.inverters.direction import direction
from sim_devices.modbus.inverters.sunspec_storage import (
    BASIC_STORAGE,
    COMMON_WITHOUT_PAD,
    inverter_model,
    multiple_mppt,
    unscaled,
)
from sim_devices.modbus.pdu import ExceptionCode, Table
from sim_devices.modbus.registers import Getter, Setting
from sim_devices.modbus.sunspec_layout import SunSpecUnit, Values, scale_for
from sim_devices.modbus.sunspec_values import (
    HEADROOM,
    VOLTAGE_SF,
    between,
    between_phases_v,
    one_of,
    phase_current_a,
    phase_voltage_v,
)
from sim_devices.models import BatteryModel

DC_VOLTAGE_V: Final = 400.0
LONGEST_REVERSION_S: Final = 28_800
CHARGE_LIMITED: Final = 1
DISCHARGE_LIMITED: Final = 2

# Model 124, ChaSt.
EMPTY: Final = 2
DISCHARGING: Final = 3
CHARGING: Final = 4
FULL: Final = 5
HOLDING: Final = 6

MODE: Final = "124.StorCtl_Mod"
DISCHARGE_PCT: Final = "124.OutWRte"
CHARGE_PCT: Final = "124.InWRte"
REVERSION: Final = "124.InOutWRte_RvrtTms"
FROM_GRID: Final = "124.ChaGriSet"
WINDOW: Final = frozenset({MODE, DISCHARGE_PCT, CHARGE_PCT})


def auto_scale(size: float, finest: int) -> int:
    """The finest scale factor with which a 16-bit register holds `size`, as it is now."""
    return scale_for(max(abs(size), 1.0), "int16", finest)


class Gen24Unit(SunSpecUnit):
    """The battery of a GEN24 as a Modbus unit: a power window (OutWRte, InWRte, StorCtl_Mod) that may time out."""

    def __init__(self, model: BatteryModel, clock: Clock, serial: str) -> None:
        self._model = model
        self._clock = clock
        self._reversions = model.reversions
        identity: Values = {"Mn": "Fronius", "Md": "Symo GEN24 10.0", "Vr": "1.31.0-0", "SN": serial, "DA": 1}
        super().__init__(
            [
                (COMMON_WITHOUT_PAD, identity),
                (unscaled(inverter_model(len(model.phases)), "W"), self._measurements()),
                (ic.NAMEPLATE, self._nameplate()),
                (
                    ic.BASIC_SETTINGS,
                    {"WMax": model.rating_w, "WMax_SF": 1, "VRef": model.nominal_voltage_v, "VRef_SF": 0},
                ),
                (ic.MEASUREMENTS_STATUS, {"PVConn": 0b001, "StorConn": self._stor_conn, "ECPConn": self._connected}),
                (ic.IMMEDIATE_CONTROLS, self._immediate()),
                (unscaled(multiple_mppt(4), *(f"{module}.DCW" for module in range(1, 5))), self._dc_inputs()),
                (BASIC_STORAGE, self._storage()),
            ]
        )

    def _connected(self) -> float:
        return int(self._model.connected)

    def _stor_conn(self) -> float:
        """Bits 0 connected, 1 available, 2 operating."""
        return (0b011 | (0b100 if direction(self._model.power_w) else 0)) if self._model.connected else 0

    def _measurements(self) -> Values:
        model = self._model

        def watts_sf() -> int:
            return auto_scale(model.power_w, -2)

        return {
            "A": lambda: sum(abs(current_a) for current_a in model.current_a_by_phase),
            **{f"Aph{letter}": phase_current_a(model, phase) for phase, letter in enumerate("ABC")},
            "A_SF": scale_for(HEADROOM * model.rating_w / model.nominal_voltage_v, "uint16", -3),
            **{f"PPVph{letters}": between_phases_v(model, phase) for phase, letters in enumerate(("AB", "BC", "CA"))},
            **{f"PhVph{letter}": phase_voltage_v(model, phase) for phase, letter in enumerate("ABC")},
            "V_SF": VOLTAGE_SF,
            "Hz": lambda: model.frequency_hz,
            "Hz_SF": -2,
            "WH": lambda: model.energy_export_wh,
            "WH_SF": 0,
            "TmpCab": 35.0,
            "Tmp_SF": -1,
            # 2 sleeping, 4 normal; StVnd says the same.
            "St": lambda: 4 if direction(model.power_w) else 2,
            "StVnd": lambda: 4 if direction(model.power_w) else 2,
            "Evt1": 0,
            "Evt2": 0,
            "EvtVnd1": 0,
            "EvtVnd2": 0,
            **live_scaled("W", lambda: -model.power_w, watts_sf),
        }

    def _nameplate(self) -> Values:
        model = self._model
        return {
            "DERTyp": 82,
            "WRtg": model.rating_w,
            "WRtg_SF": 1,
            "VARtg": model.rating_w,
            "VARtg_SF": 1,
            "ARtg": model.rating_w / (model.nominal_voltage_v * len(model.phases)),
            "ARtg_SF": -2,
            "WHRtg": model.capacity_wh,
            "WHRtg_SF": scale_for(model.capacity_wh, "uint16", 0),
            "MaxChaRte": model.rating_w,
            "MaxChaRte_SF": scale_for(model.rating_w, "uint16", 0),
            "MaxDisChaRte": model.rating_w,
            "MaxDisChaRte_SF": scale_for(model.rating_w, "uint16", 0),
        }

    def _immediate(self) -> Values:
        return {
            "Conn": self._connected,
            "WMaxLimPct": 100.0,
            "WMaxLimPct_RvrtTms": 0,
            "WMaxLim_Ena": 0,
            "OutPFSet_Ena": 0,
            "VArPct_Ena": 0,
            "WMaxLimPct_SF": -2,
            "OutPFSet_SF": -3,
            "VArPct_SF": 0,
        }

    def _dc_inputs(self) -> Values:
        """Modules 1 and 2 are photovoltaics, 3 charges and 4 discharges the battery; the other's values are then 0."""
        model = self._model

        def charge_w() -> float:
            return max(model.power_w, 0.0)

        def discharge_w() -> float:
            return max(-model.power_w, 0.0)

        def watts_sf() -> int:
            return auto_scale(model.power_w, -2)

        values: dict[str, float | str | Getter | None] = {
            "DCA_SF": -2,
            "DCV_SF": -1,
            "DCW_SF": watts_sf,
            "DCWH_SF": 0,
            "N": 4,
        }
        sources = (
            ("MPPT 1", lambda: 0.0, lambda: 0.0, lambda: 0.0),
            ("MPPT 2", lambda: 0.0, lambda: 0.0, lambda: 0.0),
            ("StCha 3", charge_w, lambda: DC_VOLTAGE_V, lambda: model.energy_import_wh),
            ("StDisCha 4", discharge_w, lambda: DC_VOLTAGE_V, lambda: model.energy_export_wh),
        )
        for module, (label, power_w, voltage_v, energy_wh) in enumerate(sources, start=1):
            values[f"{module}.ID"] = module
            values[f"{module}.IDStr"] = label
            values[f"{module}.DCA"] = current_of(power_w)
            values[f"{module}.DCV"] = voltage_v
            values[f"{module}.DCW"] = scaled_by(power_w, watts_sf)
            values[f"{module}.DCWH"] = energy_wh
            values[f"{module}.Tms"] = lambda: int(self._clock()) % 2**32
        return values

    def _storage(self) -> Values:
        model = self._model
        return {
            # WChaMax := max(MaxChaRte, MaxDisChaRte).
            "WChaMax": model.rating_w,
            "WChaMax_SF": scale_for(model.rating_w, "uint16", 0),
            "WChaGra": 100,
            "WDisChaGra": 100,
            "WChaDisChaGra_SF": 0,
            "StorCtl_Mod": Setting(0, one_of(0, 1, 2, 3)),
            "MinRsvPct": 5.0,
            "MinRsvPct_SF": -2,
            "ChaState": lambda: 100.0 * model.soc,
            "ChaState_SF": -2,
            "ChaSt": self._charge_status,
            "OutWRte": Setting(100.0, between(-100.0, 100.0)),
            "InWRte": Setting(100.0, between(-100.0, 100.0)),
            "InOutWRte_SF": -2,
            "InOutWRte_RvrtTms": Setting(0, between(0, LONGEST_REVERSION_S)),
            "ChaGriSet": Setting(1, one_of(0, 1)),
        }

    def _charge_status(self) -> float:
        model = self._model
        if flow := direction(model.power_w):
            return CHARGING if flow > 0 else DISCHARGING
        if model.soc <= 0.0:
            return EMPTY
        return FULL if model.soc >= 1.0 else HOLDING

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of registers; any message restarts the timer of the power window."""
        self._model.refresh(self._clock())
        return super().read(table, address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Exception 3 for values out of range and for a window that ends before it begins; else as any SunSpec unit.

        A value for what isn't writable is taken and forgotten.
        """
        self._settle()
        self._model.refresh(self._clock())
        written = self.image.decode_write(address, data)
        if written is ExceptionCode.ILLEGAL_ADDRESS:
            inside = not isinstance(self.image.read(address, len(data) // 2), ExceptionCode)
            return None if inside else ExceptionCode.ILLEGAL_ADDRESS
        if isinstance(written, ExceptionCode):
            return written
        settings = {**self.image.settings, **written}
        if settings[MODE] == 3 and -settings[CHARGE_PCT] > settings[DISCHARGE_PCT]:
            return ExceptionCode.ILLEGAL_VALUE
        self.image.store(written)
        self._written(written.keys())
        return None

    def _settle(self) -> None:
        if self._model.reversions != self._reversions:
            self._reversions = self._model.reversions
            self.image.store({MODE: 0})

    def _written(self, names: Set[str]) -> None:
        if not names & (WINDOW | {REVERSION, FROM_GRID}):
            return
        settings, rating_w = self.image.settings, self._model.rating_w
        mode = int(settings[MODE])
        if not mode:
            self._model.set_power(None, None, self._clock())
            return
        most_w = settings[CHARGE_PCT] / 100.0 * rating_w if mode & CHARGE_LIMITED else rating_w
        least_w = -settings[DISCHARGE_PCT] / 100.0 * rating_w if mode & DISCHARGE_LIMITED else -rating_w
        power_w = min(max(0.0, least_w), most_w)
        if power_w > 0 and settings[FROM_GRID] == 0:
            power_w = 0.0
        self._model.set_power(power_w, settings[REVERSION] or None, self._clock())


def live_scaled(name: str, get: Getter, factor: Getter) -> dict[str, Getter]:
    """A value and its scale factor, which is chosen anew for each read."""
    return {name: scaled_by(get, factor), f"{name}_SF": factor}


def scaled_by(get: Getter, factor: Getter) -> Getter:
    """The raw number of a value whose scale factor is `factor`, for a point that has none of its own."""

    def raw() -> float | None:
        value, exponent = get(), factor()
        return None if value is None or exponent is None else value / 10.0**exponent

    return raw


def current_of(power_w: Getter) -> Getter:
    """The direct current that goes with a power."""

    def current_a() -> float | None:
        value = power_w()
        return None if value is None else value / DC_VOLTAGE_V

    return current_a

"""The SunSpec twins: a meter, a PV inverter and a battery, each as a Modbus unit.

SunSpec's sign is the generator's for inverters and storage (W positive leaves the device: Information Model 701, point
W), the importer's for meters (W positive is drawn from the grid, quadrants 1 and 4, whose energy is TotWhImp:
Information Model 203). The device models use the load convention; the sign is changed here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus import sunspec_der_models as der
from sim_devices.modbus import sunspec_models as ic
from sim_devices.modbus.registers import Getter, Setting
from sim_devices.modbus.sunspec_layout import SunSpecUnit, Values, scale_for
from sim_devices.modbus.sunspec_values import (
    HEADROOM,
    LONGEST_REVERSION_S,
    PERCENT_SF,
    VOLTAGE_SF,
    between,
    between_phases_v,
    common,
    line_voltage_v,
    mean,
    mean_line_voltage_v,
    one_of,
    phase_current_a,
    phase_generation_w,
    phase_injected_a,
    phase_voltage_v,
)
from sim_devices.models import BatteryModel, InverterModel, MeterModel


class MeterTwin(SunSpecUnit):
    """The meter at the connection point: models 1 and 203, nothing to write.

    While the meter knows its values to be wrong they are "not implemented" and Evt says "missing sensor"; the energy
    counters stay at what they last counted.
    """

    def __init__(self, model: MeterModel, serial: str) -> None:
        self._model = model
        super().__init__([common("Twin meter", serial), (ic.METER_WYE_THREE_PHASE, self._values())])

    def _values(self) -> Values:
        model = self._model

        def known(get: Getter) -> Getter:
            return lambda: get() if model.valid else None

        def power_w(phase: int) -> Getter:
            return known(lambda: model.power_w_by_phase[phase])

        def current_a(phase: int) -> Getter:
            return known(lambda: model.current_a_by_phase[phase])

        def voltage_v(phase: int) -> Getter:
            return known(lambda: model.voltage_v_by_phase[phase])

        def between_v(phase: int) -> Getter:
            return known(lambda: line_voltage_v(model.voltage_v_by_phase, phase))

        highest_a = HEADROOM * model.rating_w / 230.0
        return {
            "A": known(lambda: sum(model.current_a_by_phase)),
            **{f"Aph{letter}": current_a(phase) for phase, letter in enumerate("ABC")},
            "A_SF": scale_for(highest_a, "int16", -2),
            "PhV": known(lambda: mean(model.voltage_v_by_phase)),
            **{f"PhVph{letter}": voltage_v(phase) for phase, letter in enumerate("ABC")},
            "PPV": known(lambda: mean_line_voltage_v(model.voltage_v_by_phase)),
            **{f"PhVph{letters}": between_v(phase) for phase, letters in enumerate(("AB", "BC", "CA"))},
            "V_SF": VOLTAGE_SF,
            "Hz": known(lambda: model.frequency_hz),
            "Hz_SF": -2,
            "W": known(lambda: model.power_w),
            **{f"Wph{letter}": power_w(phase) for phase, letter in enumerate("ABC")},
            "W_SF": scale_for(HEADROOM * model.rating_w, "int16", -1),
            "TotWhExp": lambda: model.energy_export_wh,
            "TotWhImp": lambda: model.energy_import_wh,
            "TotWh_SF": 0,
            "Evt": lambda: 0 if model.valid else 1 << 7,
        }


class InverterTwin(SunSpecUnit):
    """A PV inverter: models 1, 103, 120, 121, 122, 123.

    The limit acts while WMaxLim_Ena is 1. Each write of WMaxLimPct or WMaxLim_Ena then starts WMaxLimPct_RvrtTms anew
    (0: no time-out); a new time-out alone takes effect with the next of those writes. When it has passed the limit is
    gone and WMaxLim_Ena is 0. The inverter neither waits nor ramps by itself: WinTms and RmpTms take 0 alone.
    """

    def __init__(self, model: InverterModel, clock: Clock, serial: str) -> None:
        self._model = model
        self._clock = clock
        self._reversions = model.reversions
        super().__init__(
            [
                common("Twin PV inverter", serial),
                (ic.INVERTER_THREE_PHASE, self._measurements()),
                (ic.NAMEPLATE, self._nameplate()),
                (ic.BASIC_SETTINGS, self._basic_settings()),
                (ic.MEASUREMENTS_STATUS, self._status()),
                (ic.IMMEDIATE_CONTROLS, self._controls()),
            ]
        )

    def _measurements(self) -> Values:
        model = self._model
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
            "WH": lambda: model.energy_wh,
            "WH_SF": 0,
            # Mandatory in the model; this device measures no temperature of its own.
            "TmpCab": 35.0,
            "Tmp_SF": -1,
            "St": self._operating_state,
            "Evt1": 0,
            "Evt2": 0,
        }

    def _operating_state(self) -> float:
        """1 off, 2 sleeping, 4 following the maximum power point, 5 throttled."""
        model = self._model
        if not model.connected:
            return 1
        if model.available_w <= 0:
            return 2
        return 5 if self._throttled() else 4

    def _throttled(self) -> bool:
        model = self._model
        return model.ceiling_pu is not None and model.ceiling_pu < model.available_pu

    def _nameplate(self) -> Values:
        model = self._model
        watts_sf = scale_for(model.rating_w, "uint16", 0)
        return {
            "DERTyp": 4,
            "WRtg": model.rating_w,
            "WRtg_SF": watts_sf,
            "VARtg": model.rating_w,
            "VARtg_SF": watts_sf,
            **{f"VArRtgQ{quadrant}": 0 for quadrant in (1, 2, 3, 4)},
            "VArRtg_SF": 0,
            "ARtg": model.rating_w / (model.nominal_voltage_v * len(model.phases)),
            "ARtg_SF": -1,
            **{f"PFRtgQ{quadrant}": 1.0 for quadrant in (1, 2, 3, 4)},
            "PFRtg_SF": -2,
        }

    def _basic_settings(self) -> Values:
        return {
            "WMax": self._model.rating_w,
            "WMax_SF": scale_for(self._model.rating_w, "uint16", 0),
            "VRef": self._model.nominal_voltage_v,
            "VRef_SF": VOLTAGE_SF,
            "VRefOfs": 0,
            "VRefOfs_SF": VOLTAGE_SF,
        }

    def _status(self) -> Values:
        model = self._model
        return {
            # Bits 0 connected, 1 available, 2 operating.
            "PVConn": lambda: (0b011 | (0b100 if model.power_w < 0 else 0)) if model.connected else 0,
            "StorConn": 0,
            # Bits 0 disconnected, 1 connected.
            "ECPConn": lambda: 0b10 if model.connected else 0b01,
            "ActWh": lambda: model.energy_wh,
            "StActCtl": lambda: int(self._throttled()),
        }

    def _controls(self) -> Values:
        only_zero = Setting(0, one_of(0))
        return {
            "Conn": Setting(int(self._model.connected), one_of(0, 1)),
            "WMaxLimPct": Setting(100.0, between(0.0, 100.0)),
            "WMaxLimPct_WinTms": only_zero,
            "WMaxLimPct_RvrtTms": Setting(0, between(0, 65_534)),
            "WMaxLimPct_RmpTms": only_zero,
            "WMaxLim_Ena": Setting(0, one_of(0, 1)),
            "WMaxLimPct_SF": PERCENT_SF,
            "OutPFSet": 1.0,
            "OutPFSet_SF": -2,
            "OutPFSet_Ena": 0,
            "VArPct_Ena": 0,
        }

    def _settle(self) -> None:
        if self._model.reversions != self._reversions:
            self._reversions = self._model.reversions
            self.image.store({"123.WMaxLim_Ena": 0})

    def _written(self, names: Set[str]) -> None:
        settings = self.image.settings
        if "123.Conn" in names:
            self._model.connected = settings["123.Conn"] == 1
        if not names & {"123.WMaxLimPct", "123.WMaxLim_Ena"}:
            return
        if settings["123.WMaxLim_Ena"] == 1:
            ceiling_pu = settings["123.WMaxLimPct"] / 100.0
            self._model.set_ceiling(ceiling_pu, settings["123.WMaxLimPct_RvrtTms"] or None, self._clock())
        else:
            self._model.set_ceiling(None, None, self._clock())


class BatteryTwin(SunSpecUnit):
    """A battery: models 1, 701, 702, 704, 713, 715.

    WSet (W, WSetMod 1) or WSetPct (percent of WMax, WSetMod 0) is followed while WSetEna is 1. Each write of WSetEna,
    WSetMod, WSet or WSetPct then starts WSetRvrtTms anew (0: no time-out); a new time-out alone takes effect with the
    next of those writes. When it has passed the reversion values take their place: WSet and WSetPct become WSetRvrt
    and WSetPctRvrt, WSetEna becomes WSetEnaRvrt. This battery reverts to standing still: both reversion values take 0
    alone. The other functions of model 704 are not implemented.
    """

    COMMANDS: Final = frozenset({"704.WSetEna", "704.WSetMod", "704.WSet", "704.WSetPct"})

    def __init__(self, model: BatteryModel, clock: Clock, serial: str) -> None:
        self._model = model
        self._clock = clock
        self._started_s = clock()
        self._reversions = model.reversions
        super().__init__(
            [
                common("Twin battery", serial),
                (der.DER_AC_MEASUREMENT, self._measurements()),
                (der.DER_CAPACITY, self._capacity()),
                (der.DER_AC_CONTROLS, self._controls()),
                (der.DER_STORAGE_CAPACITY, self._storage()),
                (der.DER_CONTROL, self._heartbeats()),
            ]
        )

    def _measurements(self) -> Values:
        model = self._model
        values: dict[str, float | Getter | None] = {
            # 0 single phase, 1 split phase, 2 three phases.
            "ACType": 2 if len(model.phases) == 3 else 0,
            "St": lambda: int(model.connected),
            # 0 off, 3 running, 7 standby.
            "InvSt": lambda: (3 if model.power_w else 7) if model.connected else 0,
            "ConnSt": lambda: int(model.connected),
            "Alrm": 0,
            # Bit 0: grid following.
            "DERMode": 1,
            "W": lambda: -model.power_w,
            "A": lambda: -sum(model.current_a_by_phase),
            "LLV": lambda: mean_line_voltage_v(model.voltage_v_by_phase) if len(model.phases) == 3 else None,
            "LNV": lambda: model.voltage_v,
            "Hz": lambda: model.frequency_hz,
            "TotWhInj": lambda: model.energy_export_wh,
            "TotWhAbs": lambda: model.energy_import_wh,
            "A_SF": scale_for(HEADROOM * model.rating_w / model.nominal_voltage_v, "int16", -2),
            "V_SF": VOLTAGE_SF,
            "Hz_SF": -3,
            "W_SF": scale_for(HEADROOM * model.rating_w, "int16", -1),
            "TotWh_SF": 0,
        }
        for phase, between_name in enumerate(("VL1L2", "VL2L3", "VL3L1")):
            values[f"WL{phase + 1}"] = phase_generation_w(model, phase)
            values[f"AL{phase + 1}"] = phase_injected_a(model, phase)
            values[f"VL{phase + 1}"] = phase_voltage_v(model, phase)
            values[between_name] = between_phases_v(model, phase)
        return values

    def _capacity(self) -> Values:
        model = self._model
        return {
            "WMaxRtg": model.rating_w,
            "VAMaxRtg": model.rating_w,
            "WChaRteMaxRtg": model.rating_w,
            "WDisChaRteMaxRtg": model.rating_w,
            "VNomRtg": model.nominal_voltage_v,
            # Bit 1: fixed active power.
            "CtrlModes": 0b10,
            "WMax": model.rating_w,
            "VAMax": model.rating_w,
            "WChaRteMax": model.rating_w,
            "WDisChaRteMax": model.rating_w,
            "VNom": model.nominal_voltage_v,
            "W_SF": scale_for(model.rating_w, "uint16", 0),
            "VA_SF": scale_for(model.rating_w, "uint16", 0),
            "V_SF": VOLTAGE_SF,
        }

    def _controls(self) -> Values:
        on_or_off, rating_w = one_of(0, 1), self._model.rating_w
        return {
            "WSetEna": Setting(0, on_or_off),
            "WSetMod": Setting(1, on_or_off),
            "WSet": Setting(0, between(-rating_w, rating_w)),
            "WSetRvrt": Setting(0, one_of(0)),
            "WSetPct": Setting(0, between(-100.0, 100.0)),
            "WSetPctRvrt": Setting(0, one_of(0)),
            "WSetEnaRvrt": Setting(0, on_or_off),
            "WSetRvrtTms": Setting(0, between(0, LONGEST_REVERSION_S)),
            "WSetRvrtRem": lambda: math.ceil(self._model.reversion_remaining_s(self._clock()) or 0.0),
            "WSet_SF": 0,
            "WSetPct_SF": PERCENT_SF,
        }

    def _storage(self) -> Values:
        model = self._model
        return {
            "WHRtg": model.capacity_wh,
            "WHAvail": lambda: model.soc * model.capacity_wh,
            "SoC": lambda: 100.0 * model.soc,
            "SoH": 100.0,
            "Sta": 0,
            "WH_SF": scale_for(model.capacity_wh, "uint16", 0),
            "Pct_SF": PERCENT_SF,
        }

    def _heartbeats(self) -> Values:
        return {
            "LocRemCtl": 0,
            "DERHb": lambda: int(self._clock() - self._started_s) % 2**31,
            "ControllerHb": Setting(0, between(0, 2**32 - 2)),
            # 0 stop, 1 start; standby isn't among what this device does.
            "OpCtl": Setting(1, one_of(0, 1)),
        }

    def _settle(self) -> None:
        if self._model.reversions != self._reversions:
            self._reversions = self._model.reversions
            settings = self.image.settings
            self.image.store(
                {
                    "704.WSet": settings["704.WSetRvrt"],
                    "704.WSetPct": settings["704.WSetPctRvrt"],
                    "704.WSetEna": settings["704.WSetEnaRvrt"],
                }
            )

    def _written(self, names: Set[str]) -> None:
        settings = self.image.settings
        if "715.OpCtl" in names:
            self._model.connected = settings["715.OpCtl"] == 1
        if not names & self.COMMANDS:
            return
        if settings["704.WSetEna"] == 1:
            watts = settings["704.WSetMod"] == 1
            generation_w = settings["704.WSet"] if watts else settings["704.WSetPct"] / 100.0 * self._model.rating_w
            self._model.set_power(-generation_w, settings["704.WSetRvrtTms"] or None, self._clock())
        else:
            self._model.set_power(None, None, self._clock())

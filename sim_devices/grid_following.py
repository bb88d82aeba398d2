"""What inverters and batteries have in common: they follow the grid's voltage and frequency."""

from __future__ import annotations

from typing import Unpack

from config.twin import DeviceTwin
from sim_devices.device_model import DeviceModel, Terminals
from sim_devices.inverter_functions import InverterFunctions, ServiceState


class GridFollowingModel(DeviceModel):
    """A device behind an inverter: generates or takes power while there is a grid to follow (IEEE 1547-2018)."""

    def __init__(self, name: str, rating_w: float, settings: DeviceTwin, **terminals: Unpack[Terminals]) -> None:
        super().__init__(name, rating_w, settings, **terminals)
        nominal_hz = self.frequency_hz
        self.functions = InverterFunctions(settings.grid_functions, rating_w, nominal_hz)

    @property
    def service(self) -> ServiceState:
        """Whether it is in service, or why not."""
        return self.functions.service.state

    def _grid_acts(self, dt_s: float) -> bool:
        """Let the inverter's functions look at the grid; whether they change anything in this step."""
        functions = self.functions
        if self.energized and functions.rests_at(self.frequency_hz):
            self.reactive_var = 0.0
            return False
        volts, nominal_v = self.voltage_v_by_phase, self.nominal_voltage_v
        functions.step(self.energized, [volts[phase - 1] / nominal_v for phase in self.phases], self.frequency_hz, dt_s)
        if not functions.acts:
            self.reactive_var = 0.0
        return functions.acts

    def _limited_w(self, power_w: float) -> float:
        """The power as far as the inverter may give or take it; sets the reactive power that goes with it."""
        functions = self.functions
        most_w = functions.service.share_pu * self.rating_w
        power_w = min(max(power_w, -most_w), most_w)
        self._response.value_w = min(max(self._response.value_w, -most_w), most_w)
        power_w, injected_var = functions.within_rating(power_w)
        # Adding 0 keeps a device that injects nothing from showing a negative zero.
        self.reactive_var = 0.0 - injected_var if self.connected else 0.0
        return power_w + 0.0

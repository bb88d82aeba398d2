"""A heat pump with a store of warm water: it runs and pauses for least times, and three words steer it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Unpack

from config.twin import DeviceTwin, HeatPumpTwin
from sim_devices.device_model import SECONDS_PER_HOUR, DeviceModel, Terminals


class HeatPumpOrder(StrEnum):
    """The words of the SG Ready label (Bundesverband Wärmepumpe, 2012) without the fourth, forced running.

    Blocked: off, for at most two hours; normal: by its own thermostat; raised: surplus is there, store more.
    """

    BLOCKED = "blocked"
    NORMAL = "normal"
    RAISED = "raised"


LONGEST_BLOCK_S: Final = 7_200.0
"""SG Ready operating state 1: a utility may block it for two hours at most."""

SLACK_S: Final = 1e-9


class HeatPumpModel(DeviceModel):
    """A heat pump that is on or off: a thermostat on its store, least times on and off, and an order from outside.

    An order waits until the least time has passed. The store is one warm body: heat from the pump less the demand, at
    all times.
    """

    def __init__(
        self,
        name: str,
        settings: HeatPumpTwin,
        *,
        twin: DeviceTwin | None = None,
        **terminals: Unpack[Terminals],
    ) -> None:
        super().__init__(name, settings.power_w, twin if twin is not None else DeviceTwin(), **terminals)
        self.pump = settings
        self.order = HeatPumpOrder.NORMAL
        self.store_c = settings.store_c
        self.running = False
        self.starts = 0
        """How many times it has switched on."""
        # At the start it has stood for long enough to be switched on.
        self._in_state_s = settings.minimum_pause_s
        self._blocked_s = 0.0
        self._wants = False

    def set_order(self, order: HeatPumpOrder) -> None:
        """Steer it until told otherwise; a block ends by itself after two hours."""
        if order is not self.order:
            self._blocked_s = 0.0
        self.order = order

    def step(self, dt_s: float, now_s: float) -> None:
        """Advance by `dt_s`; `now_s` is the time at the end of the step."""
        supplied = self.connected and self.energized
        self._blocked_s = self._blocked_s + dt_s if self.order is HeatPumpOrder.BLOCKED else 0.0
        if not supplied and self.running:
            self._switch(False)
        elif supplied and self._asked() is not self.running and self._may_switch():
            self._switch(not self.running)
        self._in_state_s += dt_s
        power_w = self.pump.power_w if self.running else 0.0
        if power_w:
            power_w = max(0.0, power_w + self._noise_w())
        heat_w = power_w * self.pump.coefficient_of_performance - self.pump.demand_w
        self.store_c += heat_w * dt_s / SECONDS_PER_HOUR / self.pump.store_wh_per_k
        self._account(power_w, dt_s)

    def _asked(self) -> bool:
        """Whether it is to run: the thermostat, unless it is blocked."""
        raised_k = self.pump.raised_k if self.order is HeatPumpOrder.RAISED else 0.0
        if self.store_c <= self.pump.store_low_c + raised_k:
            self._wants = True
        elif self.store_c >= self.pump.store_high_c + raised_k:
            self._wants = False
        blocked = self.order is HeatPumpOrder.BLOCKED and self._blocked_s <= LONGEST_BLOCK_S
        return self._wants and not blocked

    def _may_switch(self) -> bool:
        least_s = self.pump.minimum_run_s if self.running else self.pump.minimum_pause_s
        return self._in_state_s >= least_s - SLACK_S

    def _switch(self, on: bool) -> None:
        self.running = on
        self.starts += on
        self._in_state_s = 0.0

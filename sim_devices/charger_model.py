"""An EV charger and the cars that come to it: the state machine of IEC 61851-1."""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple, Unpack

from config.twin import DeviceTwin, EvTwin
from config.vocabulary import ChargingState
from sim_devices.device_model import SECONDS_PER_HOUR, DeviceModel, PowerResponse, Terminals, share_by_phase

MINIMUM_CURRENT_A: Final = 6.0
"""The least current a charger can offer, IEC 61851-1 annex A; below it the pilot says no charging."""


class Failsafe(NamedTuple):
    """What a charger does on silence: after `timeout_s` without a command it offers `current_a`."""

    timeout_s: float
    current_a: float


class ChargerModel(DeviceModel):
    """An EV charger and the cars that come to it: the state machine of IEC 61851-1 annex A.

    A no car; B car connected, not drawing; C drawing; D drawing and wanting ventilation; E no supply (`connected`
    or `energized` false); F fault (`faulted`). The charger offers whole amperes from 6 A up or none; the car draws at
    most what is offered, what it can take and what it still needs, at the voltage of the moment.
    """

    def __init__(self, name: str, rating_w: float, settings: DeviceTwin, **terminals: Unpack[Terminals]) -> None:
        super().__init__(name, rating_w, settings, **terminals)
        self.max_current_a = float(round(rating_w / (len(self.phases) * self.nominal_voltage_v)))
        self.requested_current_a = self.max_current_a
        """What was last asked for, in whole amperes; a charger that nobody controls offers all it has."""
        self.enabled = True
        self.faulted = False
        self.session_energy_wh = 0.0
        self.sessions = 0
        """How many cars have plugged in since the start."""
        self._failsafe_current_a = 0.0
        self._coming = deque(sorted(settings.evs, key=lambda ev: ev.plug_in_s))
        self._ev: EvTwin | None = None
        self._elapsed_s = 0.0
        self._offered_since_s: float | None = None
        self._complete = False
        self._drew = False
        self._pauses = 0
        self._own_response = self._response

    @property
    def offered_current_a(self) -> float:
        """What the pilot offers now, per phase; 0 means no charging."""
        usable = self.enabled and self.connected and self.energized and not self.faulted
        return self.requested_current_a if usable else 0.0

    @property
    def ev(self) -> EvTwin | None:
        """The car that is plugged in."""
        return self._ev

    @property
    def complete(self) -> bool:
        """A car is plugged in that has got all it needed."""
        return self._complete

    @property
    def asleep(self) -> bool:
        """A car is plugged in that has been paused more often than it wakes; it draws no more until it comes anew."""
        return self._ev is not None and self._ev.wakes is not None and self._pauses > self._ev.wakes

    @property
    def state(self) -> ChargingState:
        """The state of IEC 61851-1."""
        if self.faulted:
            return ChargingState.F
        if not (self.connected and self.energized):
            return ChargingState.E
        if self._ev is None:
            return ChargingState.A
        if self.power_w <= 0:
            return ChargingState.B
        return ChargingState.D if self._ev.needs_ventilation else ChargingState.C

    def set_current(self, current_a: float, reversion: Failsafe | tuple[float, float] | None, now_s: float) -> None:
        """Offer `current_a` per phase: fractions of an ampere are dropped, less than 6 A offers nothing.

        `reversion` is (timeout_s, failsafe_current_a): without another command for that long the failsafe current is
        offered; None: hold for ever. Above the charger's rating is cut and counted. Raises ValueError for currents that
        are negative or not finite.
        """
        requested_a = self._whole_amperes(current_a)
        if reversion is not None:
            self._failsafe_current_a = self._whole_amperes(reversion[1])
        self._arm(None if reversion is None else reversion[0], now_s)
        self.requested_current_a = requested_a

    def plug_in(self, ev: EvTwin) -> None:
        """A car comes now, beside those that are scheduled; one that is there leaves. Its `plug_in_s` says nothing."""
        self._receive(ev)
        self.sessions += 1
        self.session_energy_wh = 0.0

    def unplug(self) -> None:
        """The car that is there leaves, if any."""
        self._receive(None)

    def _receive(self, ev: EvTwin | None) -> None:
        self._ev, self._complete, self._offered_since_s = ev, False, None
        self._drew, self._pauses = False, 0
        self._response = self._own_response
        if ev is not None and (ev.tr90_s is not None or ev.dead_time_s is not None):
            given = {"tr90_s": ev.tr90_s, "dead_time_s": ev.dead_time_s}
            changed = {name: value for name, value in given.items() if value is not None}
            self._response = PowerResponse(self.settings.model_copy(update=changed))
        self._factor_by_phase = share_by_phase(self._charging_phases)

    @property
    def _charging_phases(self) -> tuple[int, ...]:
        """The phases of the charger that the car uses."""
        most = None if self._ev is None else self._ev.phases
        return self.phases[:most]

    def step(self, dt_s: float, now_s: float) -> None:
        """Advance by `dt_s`; `now_s` is the time at the end of the step."""
        self._elapsed_s += dt_s
        if self._expired(now_s):
            self.requested_current_a = self._failsafe_current_a
        self._plug_and_unplug()
        power_w = self._response.step(self._wanted_w() * self.settings.delivers_pu, dt_s)
        if self._ev is None or not self.connected or not self.energized or self.faulted:
            self._response.value_w = power_w = 0.0
        elif power_w < 0.5 * self.nominal_voltage_v * len(self._charging_phases) and self._wanted_w() == 0:
            # A car that was told to stop opens its contactor; it doesn't fade out for ever.
            self._response.value_w = power_w = 0.0
        elif power_w > 0:
            power_w = max(0.0, power_w + self._noise_w())
        self._account(power_w, dt_s)
        self.session_energy_wh += power_w * dt_s / SECONDS_PER_HOUR

    def use_phases(self, phases: tuple[int, ...]) -> None:
        """Switch the contactor to these phases; a charging car is interrupted and has to wake again."""
        if phases != self.phases:
            self.phases = phases
            self._factor_by_phase = share_by_phase(self._charging_phases)
            self._response.value_w = 0.0
            self._offered_since_s = None

    def _whole_amperes(self, current_a: float) -> float:
        if not (math.isfinite(current_a) and current_a >= 0):
            raise ValueError(f"{self.name}: a current of {current_a} A can't be offered")
        if current_a > self.max_current_a:
            self.clipped += 1
            return self.max_current_a
        # A current computed from power may sit a rounding error below the ampere that was meant.
        whole_a = float(math.floor(current_a + 1e-6))
        return whole_a if whole_a >= MINIMUM_CURRENT_A else 0.0

    def _plug_and_unplug(self) -> None:
        if self._ev is not None and self._ev.unplug_s is not None and self._elapsed_s >= self._ev.unplug_s:
            self.unplug()
        if self._ev is None and self._coming and self._elapsed_s >= self._coming[0].plug_in_s:
            self.plug_in(self._coming.popleft())

    def _wanted_w(self) -> float:
        offered_a, ev = self.offered_current_a, self._ev
        if ev is None or offered_a < MINIMUM_CURRENT_A:
            self._offered_since_s = None
            self._pauses += self._drew
            self._drew = False
            return 0.0
        if self._offered_since_s is None:
            self._offered_since_s = self._elapsed_s
        needed_wh = min(ev.needed_wh, ev.battery_wh)
        left_pu = 1.0 - self.session_energy_wh / needed_wh
        if left_pu <= 0:
            self._complete = True
        if self._complete or self.asleep or self._elapsed_s - self._offered_since_s < ev.wake_s:
            return 0.0
        self._drew = self._drew or self.power_w > 0
        phases = self._charging_phases
        mean_v = sum(self.voltage_v_by_phase[phase - 1] for phase in phases) / len(phases)
        return min(offered_a, self._accepted_a(ev, left_pu)) * mean_v * len(phases)

    def _accepted_a(self, ev: EvTwin, left_pu: float) -> float:
        """What the car takes: near the end of its need it falls linearly, to a tenth so that there is an end.

        The session's need stands for the state of charge, of which a charger knows nothing: with the default taper
        the last tenth of the energy is charged more slowly.
        """
        room_pu = 1.0 - self.settings.taper_from_soc
        share = min(1.0, left_pu / room_pu) if room_pu > 0 else 1.0
        return ev.max_current_a * max(0.1, share)

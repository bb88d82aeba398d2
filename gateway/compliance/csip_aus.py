"""CSIP-AUS (SA HB 218, on IEEE 2030.5): the default control, programs by primacy, setGradW and randomised starts.

Attributes as the CSIP-AUS guide's annex B and IEEE 2030.5's schema name them. A control is a limit that a program's
source has given; without one the default control holds, and so it does, beside what is in hand, while no program is
heard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from math import inf
from typing import Any, Final, NamedTuple

from config.compliance import CsipAus as CsipSettings
from config.vocabulary import Absent, Quantity
from gateway.compliance.frame import ComplianceFunction, GivenLimit, Moment, QuantityBound, Ruling, is_magnitude

HUNDREDTHS_OF_A_PERCENT: Final = 10_000.0
STEP_PU: Final = 0.01
"""A ramp relaxes its bound in steps of this part of setMaxW, so that not every cycle is news."""

_MODES: Final = {
    Quantity.NET_EXPORT_W: "opModExpLimW",
    Quantity.NET_IMPORT_W: "opModImpLimW",
    Quantity.GENERATION_W: "opModGenLimW",
    Quantity.LOAD_W: "opModLoadLimW",
}


class ControlState(StrEnum):
    """Which control is followed."""

    LOST = "default control, no program heard"
    DEFAULT = "default control"
    ACTIVE = "active control"


class _Control(NamedTuple):
    """A control in hand; `begins_s` and `ends_s` with its randomised part, `given_end_s` without."""

    given: GivenLimit
    value_w: float
    primacy: int
    begins_s: float
    ends_s: float
    given_end_s: float


class DerPrograms(ComplianceFunction):
    """Follows the control of the lowest primacy on each mode. What tightens holds at once, setGradW ramps the rest."""

    def __init__(self, settings: CsipSettings, site: str) -> None:
        super().__init__("csip_aus", ControlState.LOST)
        self._settings, self._site = settings, site
        self._primacy = {program.source: program.primacy for program in settings.programs}
        defaults = {
            Quantity.NET_EXPORT_W: settings.default_export_w,
            Quantity.NET_IMPORT_W: settings.default_import_w,
            Quantity.GENERATION_W: settings.default_generation_w,
            Quantity.LOAD_W: settings.default_load_w,
        }
        self._default_w = {quantity: value for quantity, value in defaults.items() if value is not None}
        self._rate_w_per_s = (
            settings.set_max_w * settings.set_grad_w / HUNDREDTHS_OF_A_PERCENT if settings.set_grad_w else inf
        )
        self._controls: dict[tuple[str, str], _Control] = {}
        self._ramped_w: dict[Quantity, float] = {}
        self._held_w: dict[Quantity, float] = {}
        self._why: dict[Quantity, str] = {}
        self._last_s: float | None = None

    @property
    def sources(self) -> Mapping[str, float]:
        """Every program's parent."""
        return dict.fromkeys(self._primacy, self._settings.heartbeat_timeout_s)

    @property
    def ruled(self) -> frozenset[Quantity]:
        """The modes that the default control names."""
        return frozenset(self._default_w)

    def refusal(self, given: GivenLimit) -> str:
        """A number, or unlimited or unknown, which end the source's control."""
        if isinstance(given.value, Absent) or is_magnitude(given.value):
            return ""
        return f"{self.name}: {given.value!r} is not a magnitude"

    def _advance(self, moment: Moment) -> None:
        now_s = moment.now_s
        self._take_in(moment)
        heard = any(moment.age_s(source) <= self._settings.heartbeat_timeout_s for source in self._primacy)
        followed = {quantity: self._followed(quantity, now_s) for quantity in self._default_w}
        active = [control for control in followed.values() if control is not None]
        self._enter(heard, active, now_s)
        dt_s = 0.0 if self._last_s is None else max(now_s - self._last_s, 0.0)
        self._last_s = now_s
        for quantity, control in followed.items():
            default_w = self._default_w[quantity]
            target_w, why = default_w, f"{_MODES[quantity]} of the default control"
            if control is not None and (heard or control.value_w < default_w):
                target_w, why = control.value_w, f"{_MODES[quantity]} of {control.given.name}"
            ramped_w = self._ramp(self._ramped_w.get(quantity), target_w, dt_s)
            self._ramped_w[quantity] = ramped_w
            held_w = self._held_w.get(quantity, ramped_w)
            if ramped_w <= held_w or ramped_w == target_w or ramped_w - held_w >= STEP_PU * self._settings.set_max_w:
                self._held_w[quantity] = ramped_w
            self._why[quantity] = why

    def _enter(self, heard: bool, active: list[_Control], now_s: float) -> None:
        names = ", ".join(sorted({control.given.name for control in active}))
        if not heard:
            state, clause = ControlState.LOST, "CSIP-AUS 4.4: the default control is the fail-safe behaviour"
            reason = f"{', '.join(self._primacy)} silent"
        elif active:
            state, clause = ControlState.ACTIVE, "IEEE 2030.5 DERControl, primacy"
            reason = names
        else:
            state, clause = ControlState.DEFAULT, "CSIP-AUS 4.4: in effect until a DERControl event occurs"
            reason = "no control in force"
        if state is not self._state:
            self._to(state, now_s, clause, reason)

    def _ramp(self, held_w: float | None, target_w: float, dt_s: float) -> float:
        if held_w is None or (target_w < held_w and self._settings.ramp == "relaxing"):
            return target_w
        step_w = inf if self._rate_w_per_s == inf else self._rate_w_per_s * dt_s
        return min(max(target_w, held_w - step_w), held_w + step_w)

    def _take_in(self, moment: Moment) -> None:
        """New controls, and the end of those that were cancelled or are over."""
        now_s = moment.now_s
        mine = [one for one in moment.limits if self.governs(one.source, one.quantity) and not self.refusal(one)]
        present = {(one.source, one.order_id) for one in mine}
        for given in mine:
            key = (given.source, given.order_id)
            if key not in self._controls and not isinstance(given.value, Absent):
                self._controls[key] = self._control(given, given.value)
        for key, control in list(self._controls.items()):
            if key not in present and now_s < control.given_end_s:
                end_s = self._successor_begins_s(control, now_s)
                self._controls[key] = control = control._replace(given_end_s=now_s, ends_s=end_s)
            if now_s >= control.ends_s:
                del self._controls[key]

    def _control(self, given: GivenLimit, value_w: float) -> _Control:
        later_s = self._settings.randomise_start_s * _share(self._site, given.order_id)
        end_s = inf if given.ends_s is None else given.ends_s
        primacy = self._primacy[given.source]
        return _Control(given, value_w, primacy, given.starts_s + later_s, end_s + later_s, end_s)

    def _successor_begins_s(self, control: _Control, now_s: float) -> float:
        """A control that another replaces holds until that one begins."""
        given = control.given
        begins_s = [
            other.begins_s
            for other in self._controls.values()
            if (other.given.source, other.given.quantity) == (given.source, given.quantity)
            and other.given.received_s >= given.received_s
            and other is not control
        ]
        return min((at_s for at_s in begins_s if at_s > now_s), default=now_s)

    def _followed(self, quantity: Quantity, now_s: float) -> _Control | None:
        """The control in force on a mode: the lowest primacy, of one primacy the newest."""
        running = [
            control
            for control in self._controls.values()
            if control.given.quantity is quantity and control.begins_s <= now_s < control.ends_s
        ]
        return min(running, key=lambda one: (one.primacy, -one.given.received_s, one.given.order_id), default=None)

    def rule(self, moment: Moment) -> Ruling:
        """A bound on every mode that the default control names."""
        bounds = tuple(
            QuantityBound(
                quantity,
                self._held_w.get(quantity, default_w),
                self._why.get(quantity, f"{_MODES[quantity]} of the default control"),
            )
            for quantity, default_w in self._default_w.items()
        )
        facts = {"controls": [control.given.name for control in self._controls.values()]}
        return self._ruling(self._state is ControlState.LOST, bounds, facts=facts)

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """Nothing: the controls are orders, which are kept, and their random parts follow from their ids."""
        return {}

    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """Nothing to take up."""


def _share(site: str, order_id: str) -> float:
    """From 0 to 1, evenly over sites and orders, and the same after a restart."""
    digest = hashlib.sha256(f"{site}/{order_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64

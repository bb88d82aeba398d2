"""ENA EREC G100 issue 2: a customer limitation scheme's excursions, their counts, and the lock-out.

Times and counts as node-red-contrib-g100 and the replay of GivEnergy's form B transcribe them; the rule's own text is
not public. State 1 is operation within the limits, state 2 an excursion, state 3 the lock-out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import inf
from typing import Any, Final

from config.compliance import ErecG100
from config.vocabulary import Quantity
from gateway.compliance.frame import ComplianceFunction, Moment, QuantityBound, Ruling, from_utc, in_utc

COUNTED_AFTER_S: Final = 15.0
LOCKED_AFTER_S: Final = 60.0
SHORT_WINDOW_S: Final = 600.0
SHORT_WINDOW_COUNT: Final = 2
DAY_S: Final = 86_400.0
COUNT_TRIGGERS: Final[Mapping[str, int]] = {"third": 3, "more_than_three": 4}
"""The two readings of how many excursions in a day lock out: "three", and "more than three"."""

RESET_WINDOW_S: Final = 30 * 86_400.0
USER_LOCK_OUTS: Final = 3
"""Of so many lock-outs in 30 days the last is the installer's to reset, in domestic premises."""

COMMERCIAL_RESET_S: Final = 4 * 3600.0
UNMEASURED_AFTER_S: Final = 5.0
MEASURED_AGAIN_S: Final = 15.0
_COUNTS: Final = "EREC G100 issue 2, 4.5.1.3, as transcribed by node-red-contrib-g100"
_STAGES: Final = "EREC G100 issue 2, states 1 to 3, as transcribed by node-red-contrib-g100"
_FAILSAFE: Final = "EREC G100 issue 2, fail-safe on a fault of the scheme"
_RESET: Final = "EREC G100 issue 2, resets, as transcribed by node-red-contrib-g100"


class SchemeState(StrEnum):
    """State 2 is told apart before and after 15 s; fail-safe is the scheme without its measurement."""

    NORMAL = "state 1"
    EXCURSION = "state 2"
    COUNTED = "state 2, counted"
    LOCKED = "state 3"
    FAILSAFE = "fail-safe"


class LimitationScheme(ComplianceFunction):
    """Keeps the agreed limits, counts excursions beyond them, and stops until a reset once there were too many.

    Both directions share the counts and the lock-out: the stricter reading. While nothing is measured an excursion
    goes on, and after 5 s the scheme is as in a lock-out until 15 s of measurements have come.
    """

    def __init__(self, settings: ErecG100) -> None:
        super().__init__("g100", SchemeState.NORMAL)
        self._settings = settings
        self._excursion_s: float | None = None
        self._counted_s: list[float] = []
        self._locked_s: list[float] = []
        self._unmeasured_s: float | None = None
        self._measured_s: float | None = None

    def _advance(self, moment: Moment) -> None:
        now_s = moment.now_s
        net_w = moment.measured_net_w
        self._forget(now_s)
        if net_w is not None:
            self._unmeasured_s = None
            self._measured_s = now_s if self._measured_s is None else self._measured_s
        else:
            self._measured_s = None
            self._unmeasured_s = now_s if self._unmeasured_s is None else self._unmeasured_s
        if self._state is SchemeState.LOCKED:
            self._reset_by_time(now_s)
            return
        if net_w is not None:
            self._compare(net_w, now_s)
        self._judge_excursion(now_s)
        if self._state is not SchemeState.LOCKED:
            self._judge_measurement(now_s)

    def _compare(self, net_w: float, now_s: float) -> None:
        limits, tolerance_w = self._settings, self._settings.tolerance_w
        over_w = max(
            -net_w - (inf if limits.max_export_w is None else limits.max_export_w),
            net_w - (inf if limits.max_import_w is None else limits.max_import_w),
        )
        if over_w <= tolerance_w:
            self._excursion_s = None
            if self._state in (SchemeState.EXCURSION, SchemeState.COUNTED):
                self._to(SchemeState.NORMAL, now_s, _STAGES, "back within the limits")
        elif self._excursion_s is None:
            self._excursion_s = now_s
            if self._state is SchemeState.NORMAL:
                self._to(SchemeState.EXCURSION, now_s, _STAGES, f"{over_w:.0f} W beyond the limit")

    def _judge_excursion(self, now_s: float) -> None:
        if self._excursion_s is None:
            return
        lasted_s = now_s - self._excursion_s
        if lasted_s >= COUNTED_AFTER_S and not self._is_counted():
            self._counted_s.append(now_s)
            if self._state is SchemeState.EXCURSION:
                self._to(SchemeState.COUNTED, now_s, _COUNTS, f"an excursion of {COUNTED_AFTER_S:.0f} s")
            else:
                self._count(_COUNTS, f"an excursion of {COUNTED_AFTER_S:.0f} s")
        reason = self._lock_reason(lasted_s, now_s)
        if reason:
            self._locked_s.append(now_s)
            self._excursion_s = None
            self._to(SchemeState.LOCKED, now_s, _COUNTS, reason)

    def _is_counted(self) -> bool:
        return bool(self._counted_s) and self._excursion_s is not None and self._counted_s[-1] >= self._excursion_s

    def _lock_reason(self, lasted_s: float, now_s: float) -> str:
        if lasted_s >= LOCKED_AFTER_S:
            return f"an excursion of {LOCKED_AFTER_S:.0f} s"
        recent = sum(1 for at_s in self._counted_s if now_s - at_s <= SHORT_WINDOW_S)
        if recent >= SHORT_WINDOW_COUNT:
            return f"{recent} excursions of {COUNTED_AFTER_S:.0f} s within 10 min"
        if len(self._counted_s) >= COUNT_TRIGGERS[self._settings.count_trigger]:
            return f"{len(self._counted_s)} excursions of {COUNTED_AFTER_S:.0f} s within 24 h"
        return ""

    def _judge_measurement(self, now_s: float) -> None:
        if self._state is SchemeState.FAILSAFE:
            if self._measured_s is not None and now_s - self._measured_s >= MEASURED_AGAIN_S:
                state = SchemeState.NORMAL if self._excursion_s is None else SchemeState.EXCURSION
                self._to(state, now_s, _FAILSAFE, f"measured again for {MEASURED_AGAIN_S:.0f} s")
        elif self._unmeasured_s is not None and now_s - self._unmeasured_s >= UNMEASURED_AFTER_S:
            self._to(SchemeState.FAILSAFE, now_s, _FAILSAFE, "the net power is not measured")

    def _forget(self, now_s: float) -> None:
        self._counted_s = [at_s for at_s in self._counted_s if now_s - at_s <= DAY_S]
        self._locked_s = [at_s for at_s in self._locked_s if now_s - at_s <= RESET_WINDOW_S]

    def _reset_by_time(self, now_s: float) -> None:
        if self._settings.premises == "commercial" and self._since_s(now_s) >= COMMERCIAL_RESET_S:
            self._reset(now_s, "4 h have passed")

    def _reset(self, now_s: float, reason: str) -> None:
        self._counted_s, self._excursion_s = [], None
        self._to(SchemeState.NORMAL, now_s, _RESET, reason)

    def command(self, request: Mapping[str, Any], now_s: float) -> str:
        """Reset a lock-out: `reset` is user or installer; the installer's word clears the history as well."""
        by = request.get("reset")
        if by not in ("user", "installer"):
            raise ValueError("g100: reset: user or installer")
        if self._state is not SchemeState.LOCKED:
            raise ValueError("g100: nothing is locked out")
        if by == "user":
            if self._settings.premises != "domestic":
                raise ValueError("g100: in commercial premises 4 h or the installer reset a lock-out")
            if len(self._locked_s) >= USER_LOCK_OUTS:
                raise ValueError(f"g100: {len(self._locked_s)} lock-outs in 30 days: only the installer may reset it")
        else:
            self._locked_s = []
        self._reset(now_s, f"reset by the {by}")
        return f"reset by the {by}"

    def rule(self, moment: Moment) -> Ruling:
        """The agreed limits; in state 3 and fail-safe no export, and no controllable load."""
        stopped = self._state in (SchemeState.LOCKED, SchemeState.FAILSAFE)
        bounds = []
        if self._settings.max_export_w is not None:
            limit_w = 0.0 if stopped else self._settings.max_export_w
            bounds.append(QuantityBound(Quantity.NET_EXPORT_W, limit_w, "maximum export limit"))
        if self._settings.max_import_w is not None:
            bounds.append(QuantityBound(Quantity.NET_IMPORT_W, self._settings.max_import_w, "maximum import limit"))
            if stopped:
                # What can't be controlled can't be stopped: import is stopped as far as it is ours.
                bounds.append(QuantityBound(Quantity.CONTROLLABLE_LOAD_W, 0.0, "maximum import limit"))
        facts = {"excursions_24_h": len(self._counted_s), "lock_outs_30_d": len(self._locked_s)}
        return self._ruling(stopped, bounds, facts=facts)

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """The state and both histories."""
        entered_s = now_s if self._entered_s is None else self._entered_s
        return {
            "state": self.state,
            "entered": in_utc(entered_s, now_s, utc_s),
            "counted": [in_utc(at_s, now_s, utc_s) for at_s in self._counted_s],
            "locked": [in_utc(at_s, now_s, utc_s) for at_s in self._locked_s],
        }

    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """A lock-out and the counts go on; the time without power is no part of an excursion."""
        state, entered_s = SchemeState(dumped["state"]), from_utc(dumped["entered"], now_s, utc_s)
        counted_s = [from_utc(raw, now_s, utc_s) for raw in dumped["counted"]]
        locked_s = [from_utc(raw, now_s, utc_s) for raw in dumped["locked"]]
        self._counted_s, self._locked_s = sorted(counted_s), sorted(locked_s)
        if state is SchemeState.LOCKED:
            self._state, self._entered_s = state, entered_s

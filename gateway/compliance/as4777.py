"""AS/NZS 4777.1 and 4777.2: soft and hard limits on export and generation.

The 15 s of a soft limit are those that the CSIP-AUS test procedures quote of AS/NZS 4777.2. The times of a hard limit
are settings: no source at hand shows the standard's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from config.compliance import As4777 as As4777Settings
from config.vocabulary import Quantity
from gateway.compliance.frame import ComplianceFunction, Moment, QuantityBound, Ruling, from_utc, in_utc

CONTAINED_WITHIN_S: Final = 15.0
_SOFT: Final = "AS/NZS 4777.2, soft limit, as quoted by the CSIP-AUS test procedures"
_HARD: Final = "AS/NZS 4777.2, hard limit (times by the site file)"
_LOST: Final = "AS/NZS 4777.1, loss of the measurement (chosen: generation within the soft limits)"


class LimitState(StrEnum):
    """Where the site stands to its soft and hard limits."""

    FAILSAFE = "fail-safe"
    WITHIN = "within"
    BEYOND_SOFT = "beyond the soft limit"
    OVERRUN = "beyond the soft limit for 15 s"
    TRIPPED = "tripped"


class SoftAndHardLimits(ComplianceFunction):
    """Keeps the soft limits. Beyond one for 15 s, or unmeasured, generation alone is held within them.

    Beyond a hard limit for its time generation stops, and stays stopped for the reconnection time. Without a
    measurement for that time it is in fail-safe, as it is from the start.
    """

    def __init__(self, settings: As4777Settings) -> None:
        super().__init__("as4777", LimitState.FAILSAFE)
        self._settings = settings
        self._beyond_soft_s: float | None = None
        self._beyond_hard_s: float | None = None
        self._unmeasured_s: float | None = None

    def _advance(self, moment: Moment) -> None:
        now_s = moment.now_s
        soft_w, hard_w, measured = self._excesses(moment)
        if measured:
            self._unmeasured_s = None
            self._beyond_soft_s = _begun(self._beyond_soft_s, soft_w > 0.0, now_s)
            self._beyond_hard_s = _begun(self._beyond_hard_s, hard_w > 0.0, now_s)
        else:
            self._unmeasured_s = now_s if self._unmeasured_s is None else self._unmeasured_s
        if self._lasts(self._beyond_hard_s, now_s, self._settings.trip_after_s):
            if self._state is not LimitState.TRIPPED:
                self._to(LimitState.TRIPPED, now_s, _HARD, f"{hard_w:.0f} W beyond a hard limit")
        elif self._state is LimitState.TRIPPED:
            if measured and self._since_s(now_s) >= self._settings.reconnect_after_s:
                self._to(LimitState.WITHIN, now_s, _HARD, "the reconnection time has passed")
        elif self._lasts(self._unmeasured_s, now_s, self._settings.trip_after_s):
            if self._state is not LimitState.FAILSAFE:
                self._to(LimitState.FAILSAFE, now_s, _LOST, "not measured")
        elif measured:
            self._judge_soft(soft_w, now_s)

    def _judge_soft(self, soft_w: float, now_s: float) -> None:
        if self._beyond_soft_s is None:
            state, reason = LimitState.WITHIN, "within the soft limits"
        elif self._lasts(self._beyond_soft_s, now_s, CONTAINED_WITHIN_S):
            state, reason = LimitState.OVERRUN, f"{soft_w:.0f} W beyond for {CONTAINED_WITHIN_S:.0f} s"
        elif self._state is LimitState.OVERRUN:
            return
        else:
            state, reason = LimitState.BEYOND_SOFT, f"{soft_w:.0f} W beyond"
        if state is not self._state:
            self._to(state, now_s, _SOFT, reason)

    @staticmethod
    def _lasts(since_s: float | None, now_s: float, least_s: float) -> bool:
        return since_s is not None and now_s - since_s >= least_s

    def _excesses(self, moment: Moment) -> tuple[float, float, bool]:
        """How far beyond the soft and the hard limits, and whether everything that they are on is measured."""
        limits, net_w, generation_w = self._settings, moment.measured_net_w, moment.measured_generation_w
        export_w = None if net_w is None else -net_w
        pairs = (
            (export_w, limits.soft_export_w, limits.hard_export_w),
            (generation_w, limits.soft_generation_w, limits.hard_generation_w),
        )
        soft_w = hard_w = 0.0
        measured = True
        for value_w, soft, hard in pairs:
            if soft is None and hard is None:
                continue
            if value_w is None:
                measured = False
                continue
            soft_w = soft_w if soft is None else max(soft_w, value_w - soft)
            hard_w = hard_w if hard is None else max(hard_w, value_w - hard)
        return soft_w, hard_w, measured

    def rule(self, moment: Moment) -> Ruling:
        """The soft limits, or the hard ones where there is no soft one; in the other states less generation."""
        limits = self._settings
        export_w = limits.hard_export_w if limits.soft_export_w is None else limits.soft_export_w
        generation_w = limits.hard_generation_w if limits.soft_generation_w is None else limits.soft_generation_w
        bounds = []
        if export_w is not None:
            bounds.append(QuantityBound(Quantity.NET_EXPORT_W, export_w, "soft export limit"))
        if self._state is LimitState.TRIPPED:
            bounds.append(QuantityBound(Quantity.GENERATION_W, 0.0, "beyond a hard limit"))
        elif self._state in (LimitState.FAILSAFE, LimitState.OVERRUN):
            # Generation within the export limit exports no more than that, whatever the load is.
            alone_w = min(value for value in (export_w, generation_w) if value is not None)
            bounds.append(QuantityBound(Quantity.GENERATION_W, alone_w, "generation alone within the soft limits"))
        elif generation_w is not None:
            bounds.append(QuantityBound(Quantity.GENERATION_W, generation_w, "soft generation limit"))
        return self._ruling(self._state in (LimitState.FAILSAFE, LimitState.TRIPPED), bounds)

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """A trip and when it was."""
        entered_s = now_s if self._entered_s is None else self._entered_s
        return {"state": self.state, "entered": in_utc(entered_s, now_s, utc_s)}

    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """A trip goes on until its reconnection time has passed."""
        state, entered_s = LimitState(dumped["state"]), from_utc(dumped["entered"], now_s, utc_s)
        if state is LimitState.TRIPPED:
            self._state, self._entered_s = state, entered_s


def _begun(since_s: float | None, holds: bool, now_s: float) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else since_s

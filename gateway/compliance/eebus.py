"""EEBus limitation of power consumption and production, as the controllable system (LPC and LPP 1.0.0).

The specification's rule numbers are cited as EVerest's EEBUS module, evcc and WWCP EEBUS transcribe them; LPP's have
the same numbers as LPC's. States and their limits: section 2.3.2; transitions: section 2.3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from config.compliance import FAILSAFE_LEAST_S, FAILSAFE_MOST_S, EebusLpc, EebusLpp
from config.vocabulary import Absent, Quantity
from gateway.compliance.frame import (
    ComplianceFunction,
    GivenLimit,
    Moment,
    QuantityBound,
    Ruling,
    finite,
    from_utc,
    in_utc,
    is_magnitude,
)

HEARTBEAT_TIMEOUT_S: Final = 120.0
"""[LPC-031], [LPP-031]."""

LIMIT_AFTER_HEARTBEAT_S: Final = 60.0
"""Section 2.2: out of contact, only a limit that follows a heartbeat within this time is evaluated."""

WAIT_FOR_LIMIT_S: Final = 120.0
"""[LPC-906], [LPC-921], and the same of LPP."""


class LimitationState(StrEnum):
    """Section 2.3.2."""

    INIT = "init"
    CONTROLLED = "unlimited/controlled"
    LIMITED = "limited"
    FAILSAFE = "failsafe"
    AUTONOMOUS = "unlimited/autonomous"


_IN_CONTACT: Final = (LimitationState.CONTROLLED, LimitationState.LIMITED)
_LIMIT_CLAUSE: Final = {
    LimitationState.INIT: ("904", "902, 905"),
    LimitationState.CONTROLLED: ("910", "909"),
    LimitationState.LIMITED: ("910", "909"),
    LimitationState.FAILSAFE: ("919", "918"),
    LimitationState.AUTONOMOUS: ("919", "918"),
}
"""The rules by which an activated and a deactivated limit lead out of a state."""


class Limitation(ComplianceFunction):
    """LPC or LPP. A limit that can't be reached is applied as far as it goes: none is answered as inapplicable."""

    def __init__(self, name: str, rules: str, settings: EebusLpc | EebusLpp) -> None:
        super().__init__(name, LimitationState.INIT)
        self._rules, self._settings = rules, settings
        self._quantity = Quantity(settings.quantity)
        self._failsafe_w, self._duration_s = settings.failsafe_w, settings.failsafe_duration_s
        self._limit_w: float | None = None
        self._limit_name = ""
        self._ends_s: float | None = None
        self._newest_s: float | None = None
        self._newest_ids: frozenset[str] = frozenset()
        self._returned_s: float | None = None

    @property
    def sources(self) -> Mapping[str, float]:
        """The energy guard."""
        return {self._settings.source: HEARTBEAT_TIMEOUT_S}

    @property
    def ruled(self) -> frozenset[Quantity]:
        """The one quantity of the use case."""
        return frozenset({self._quantity})

    def refusal(self, given: GivenLimit) -> str:
        """A limit is a number or a deactivation, and follows a heartbeat (section 2.2)."""
        if given.value is not Absent.UNLIMITED and not is_magnitude(given.value):
            return f"{self.name}: a limit is a number, or unlimited, which deactivates it"
        if not self._is_fresh(given):
            return f"{self.name}: a limit is evaluated only after a fresh heartbeat, and there is none (section 2.2)"
        return ""

    def _is_fresh(self, given: GivenLimit) -> bool:
        most_s = HEARTBEAT_TIMEOUT_S if self._state in _IN_CONTACT else LIMIT_AFTER_HEARTBEAT_S
        age_s = given.heartbeat_age_s
        return age_s is not None and age_s <= most_s

    def _advance(self, moment: Moment) -> None:
        begun = [
            one for one in moment.limits if self.governs(one.source, one.quantity) and _begins_s(one) <= moment.now_s
        ]
        for given in sorted(begun, key=_begins_s):
            if self._is_new(given) and self._may_be_taken(given, moment):
                self._take(given, moment.now_s)
        self._time_passes(moment)

    def _is_new(self, given: GivenLimit) -> bool:
        """Whether a limit is looked at for the first time, and none that began later was."""
        at_s = _begins_s(given)
        if self._newest_s is not None and (at_s < self._newest_s or given.order_id in self._newest_ids):
            return False
        same = self._newest_ids if at_s == self._newest_s else frozenset[str]()
        self._newest_s, self._newest_ids = at_s, same | {given.order_id}
        return True

    def _may_be_taken(self, given: GivenLimit, moment: Moment) -> bool:
        if self.refusal(given) or not (given.ends_s is None or given.ends_s > moment.now_s):
            return False
        # One that was announced begins by itself only while its source is there.
        announced = given.starts_s > given.received_s
        return not announced or moment.age_s(given.source) <= HEARTBEAT_TIMEOUT_S

    def _take(self, given: GivenLimit, now_s: float) -> None:
        activated, deactivated = _LIMIT_CLAUSE[LimitationState(self._state)]
        self._returned_s = None
        if given.value is Absent.UNLIMITED or isinstance(given.value, Absent):
            self._limit_w = self._ends_s = None
            if self._state is not LimitationState.CONTROLLED:
                reason = f"{given.name} deactivates the limit"
                self._to(LimitationState.CONTROLLED, now_s, self._clause(deactivated), reason)
            return
        self._limit_w, self._limit_name, self._ends_s = given.value, given.name, given.ends_s
        reason = f"{given.name}: at most {given.value:.0f} W"
        if self._state is LimitationState.LIMITED:
            self._count(self._clause("914/1"), reason)
        else:
            self._to(LimitationState.LIMITED, now_s, self._clause(activated), reason)

    def _time_passes(self, moment: Moment) -> None:
        now_s, age_s = moment.now_s, moment.age_s(self._settings.source)
        match self._state:
            case LimitationState.LIMITED | LimitationState.CONTROLLED:
                if not age_s <= HEARTBEAT_TIMEOUT_S:
                    clause = self._clause("912" if self._state is LimitationState.LIMITED else "911")
                    self._limit_w = self._ends_s = None
                    reason = f"no heartbeat of {self._settings.source} for {HEARTBEAT_TIMEOUT_S:.0f} s"
                    self._to(LimitationState.FAILSAFE, now_s, clause, reason)
                elif self._state is LimitationState.LIMITED and self._ends_s is not None and now_s >= self._ends_s:
                    self._limit_w = self._ends_s = None
                    reason = f"the duration of {self._limit_name} ended"
                    self._to(LimitationState.CONTROLLED, now_s, self._clause("908"), reason)
            case LimitationState.INIT:
                if self._ends_s is not None and now_s >= self._ends_s:
                    self._limit_w = self._ends_s = None
                if self._since_s(now_s) > WAIT_FOR_LIMIT_S:
                    self._limit_w = self._ends_s = None
                    reason = f"no heartbeat with a limit within {WAIT_FOR_LIMIT_S:.0f} s of the start"
                    self._to(LimitationState.AUTONOMOUS, now_s, self._clause("906"), reason)
            case LimitationState.FAILSAFE:
                self._leave_failsafe(now_s, age_s)

    def _leave_failsafe(self, now_s: float, age_s: float) -> None:
        """[921] asks for a heartbeat and none lost again since: a single one opens nothing."""
        if not age_s <= HEARTBEAT_TIMEOUT_S:
            self._returned_s = None
        elif self._returned_s is None and age_s < self._since_s(now_s):
            self._returned_s = now_s - max(age_s, 0.0)
        if self._since_s(now_s) >= self._duration_s:
            reason = f"the fail-safe duration minimum of {self._duration_s:.0f} s ended"
            self._to(LimitationState.AUTONOMOUS, now_s, self._clause("922"), reason)
        elif self._returned_s is not None and now_s - self._returned_s > WAIT_FOR_LIMIT_S:
            self._returned_s = None
            reason = f"heartbeats, and no limit within {WAIT_FOR_LIMIT_S:.0f} s"
            self._to(LimitationState.AUTONOMOUS, now_s, self._clause("921"), reason)

    def rule(self, moment: Moment) -> Ruling:
        """The limit, the fail-safe value, or nothing, by the state (section 2.3.2, table 1)."""
        stays = self._state is LimitationState.AUTONOMOUS and self._settings.autonomous == "failsafe"
        failsafe = stays or self._state in (LimitationState.INIT, LimitationState.FAILSAFE)
        facts = {"failsafe_w": self._failsafe_w, "failsafe_duration_s": self._duration_s}
        if failsafe:
            value_w = self._failsafe_w if self._limit_w is None else min(self._failsafe_w, self._limit_w)
            why = f"fail-safe value ({self._settings.source})"
            return self._ruling(True, (QuantityBound(self._quantity, value_w, why),), facts=facts)
        if self._state is LimitationState.LIMITED and self._limit_w is not None:
            bound = QuantityBound(self._quantity, self._limit_w, self._limit_name)
            return self._ruling(False, (bound,), facts=facts)
        return self._ruling(False, facts=facts)

    def _clause(self, numbers: str) -> str:
        return ", ".join(f"[{self._rules}-{number}]" for number in numbers.split(", "))

    def command(self, request: Mapping[str, Any], now_s: float) -> str:
        """Set the fail-safe value or its duration ([LPC-022]): `failsafe_w`, `failsafe_duration_s`."""
        raw_w, raw_s = request.get("failsafe_w"), request.get("failsafe_duration_s")
        if raw_w is None and raw_s is None:
            raise ValueError(f"{self.name}: give failsafe_w, failsafe_duration_s, or both")
        value_w = self._failsafe_w if raw_w is None else finite(raw_w)
        duration_s = self._duration_s if raw_s is None else finite(raw_s)
        if value_w < 0.0:
            raise ValueError("failsafe_w: a magnitude of at least 0 is asked for")
        if not FAILSAFE_LEAST_S <= duration_s <= FAILSAFE_MOST_S:
            raise ValueError(
                f"failsafe_duration_s: {FAILSAFE_LEAST_S:.0f} to {FAILSAFE_MOST_S:.0f} ([{self._rules}-022])"
            )
        self._failsafe_w, self._duration_s = value_w, duration_s
        text = f"fail-safe {value_w:.0f} W for at least {duration_s:.0f} s"
        self._count(self._clause("022"), text)
        return text

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """The state, the limit in force and what was set."""
        entered_s = now_s if self._entered_s is None else self._entered_s
        return {
            "state": self.state,
            "entered": in_utc(entered_s, now_s, utc_s),
            "limit_w": self._limit_w,
            "ends": None if self._ends_s is None else in_utc(self._ends_s, now_s, utc_s),
            "failsafe_w": self._failsafe_w,
            "failsafe_duration_s": self._duration_s,
            "configured": [self._settings.failsafe_w, self._settings.failsafe_duration_s],
        }

    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """Start in init, as [LPC-901] asks; but a fail-safe state goes on, with what is left of its duration.

        A limit that was in force narrows init until it ends: a restart releases nothing. What was set is kept until
        the site file says something else.
        """
        state, limit_w, ends = LimitationState(dumped["state"]), dumped["limit_w"], dumped["ends"]
        entered_s = from_utc(dumped["entered"], now_s, utc_s)
        limit_w = None if limit_w is None else finite(limit_w)
        ends_s = None if ends is None else now_s + finite(ends) - utc_s
        failsafe_w, duration_s = finite(dumped["failsafe_w"]), finite(dumped["failsafe_duration_s"])
        usable = failsafe_w >= 0.0 and FAILSAFE_LEAST_S <= duration_s <= FAILSAFE_MOST_S
        if not usable or (limit_w is not None and limit_w < 0.0):
            raise ValueError("values out of range")
        if dumped["configured"] == [self._settings.failsafe_w, self._settings.failsafe_duration_s]:
            self._failsafe_w, self._duration_s = failsafe_w, duration_s
        if state is LimitationState.FAILSAFE:
            self._state, self._entered_s = state, entered_s
        elif limit_w is not None and (ends_s is None or ends_s > now_s):
            self._limit_w, self._limit_name, self._ends_s = limit_w, "the limit before the restart", ends_s


def _begins_s(given: GivenLimit) -> float:
    return max(given.received_s, given.starts_s)

"""Section 14a EnWG: the power that controllable devices keep when the network operator reduces them.

BNetzA decision BK6-22-300 of 2023-11-27, annex 1 (A1); clauses as hupe1980/hems and others transcribe them: the cases
and their summing in 2.4, the minimum power of one device in 4.5.1, of several behind an energy manager in 4.5.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from config.compliance import Section14a as Section14aSettings
from config.vocabulary import Absent, LimitValue, Quantity
from gateway.compliance.frame import ComplianceFunction, GivenLimit, Moment, QuantityBound, Ruling, is_magnitude

LEAST_W: Final = 4200.0
LARGE_W: Final = 11_000.0
LARGE_SHARE: Final = 0.4
SIMULTANEITY: Final[Mapping[int, float]] = {2: 0.80, 3: 0.75, 4: 0.70, 5: 0.65, 6: 0.60, 7: 0.55, 8: 0.50}
SIMULTANEITY_OF_MORE: Final = 0.45
"""A1 4.5.2: the factor by the number of devices, and from nine on."""

SUMMED: Final = ("heat_pump", "cooling")
"""A1 2.4.2: those of one of these cases count as one device with their sum."""


class Controllable(NamedTuple):
    """One device, or the heat pumps or the cooling of a site together; `power_w` is the rated consumption."""

    names: tuple[str, ...]
    case: str
    power_w: float

    @property
    def large(self) -> bool:
        """Whether 40 % of its power replaces the 4.2 kW."""
        return self.case in SUMMED and self.power_w > LARGE_W


def controllables(devices: Sequence[Controllable]) -> tuple[Controllable, ...]:
    """The devices as A1 2.4 counts them: above 4.2 kW each, heat pumps and cooling summed by their case."""
    counted = [one for one in devices if one.case not in SUMMED]
    for case in SUMMED:
        group = [one for one in devices if one.case == case]
        if group:
            names = tuple(name for one in group for name in one.names)
            counted.append(Controllable(names, case, sum(one.power_w for one in group)))
    return tuple(one for one in counted if one.power_w > LEAST_W)


def minimum_power_w(devices: Sequence[Controllable], control: str = "ems") -> float:
    """The power that must be left to devices as `controllables` counts them, watts; 0 for none.

    A1 4.5.1 for each by itself (direct), 4.5.2 for all together behind an energy manager (ems): the greater of 40 % of
    the large heat pumps and of the large cooling, or else 4.2 kW, plus (n - 1) x factor x 4.2 kW.
    """
    if not devices:
        return 0.0
    if control == "direct":
        return sum(LARGE_SHARE * one.power_w if one.large else LEAST_W for one in devices)
    base_w = max((LARGE_SHARE * one.power_w for one in devices if one.large), default=LEAST_W)
    factor = SIMULTANEITY.get(len(devices), SIMULTANEITY_OF_MORE)
    return base_w + (len(devices) - 1) * factor * LEAST_W


def divided_w(budget_w: float, devices: Sequence[Controllable]) -> dict[str, float]:
    """A budget over the devices by name, watts: first what each would keep alone, in proportion, then by power.

    No device gets more than its power; the shares add up to the budget, or to the devices' power where that is less.
    """
    floors_w = [min(LARGE_SHARE * one.power_w if one.large else LEAST_W, one.power_w) for one in devices]
    shares_w = [0.0] * len(devices)
    left_w = max(budget_w, 0.0)
    for wanted_w in (floors_w, [one.power_w for one in devices]):
        missing_w = [max(most_w - share_w, 0.0) for most_w, share_w in zip(wanted_w, shares_w, strict=True)]
        total_w = sum(missing_w)
        part = min(left_w / total_w, 1.0) if total_w > 0.0 else 0.0
        shares_w = [share_w + part * more_w for share_w, more_w in zip(shares_w, missing_w, strict=True)]
        left_w = max(left_w - part * total_w, 0.0)
    return {"+".join(one.names): share_w for one, share_w in zip(devices, shares_w, strict=True)}


class ReductionState(StrEnum):
    """Whether the network operator reduces, and whether it is there at all."""

    FAILSAFE = "failsafe"
    FREE = "unlimited"
    REDUCED = "reduced"
    BELOW = "reduced below the minimum"


class Reduction(ComplianceFunction):
    """Bounds the controllable load while it is reduced; the minimum power holds while the source is silent.

    An order `unknown` says that there is a reduction and not how far, as a relay does: the minimum power holds.
    """

    def __init__(self, settings: Section14aSettings, devices: Sequence[Controllable]) -> None:
        super().__init__("section_14a", ReductionState.FAILSAFE)
        self._settings = settings
        self._devices = controllables(devices)
        self.minimum_w = minimum_power_w(self._devices, settings.control)
        self._value: LimitValue = Absent.UNLIMITED
        self._why = ""

    @property
    def sources(self) -> Mapping[str, float]:
        """Who passes on the reductions."""
        return {self._settings.source: self._settings.heartbeat_timeout_s}

    @property
    def ruled(self) -> frozenset[Quantity]:
        """Controllable load."""
        return frozenset({Quantity.CONTROLLABLE_LOAD_W})

    def refusal(self, given: GivenLimit) -> str:
        """A number, unlimited, or unknown for a reduction to the minimum."""
        if isinstance(given.value, Absent) or is_magnitude(given.value):
            return ""
        return f"{self.name}: {given.value!r} is not a magnitude"

    def _advance(self, moment: Moment) -> None:
        source = self._settings.source
        mine = [
            one
            for one in moment.limits
            if self.governs(one.source, one.quantity) and one.starts_s <= moment.now_s and not self.refusal(one)
        ]
        newest = max(mine, key=lambda one: (one.received_s, one.order_id), default=None)
        ended = newest is None or (newest.ends_s is not None and newest.ends_s <= moment.now_s)
        self._value = Absent.UNLIMITED if newest is None or ended else newest.value
        self._why = "" if newest is None or ended else newest.name
        wanted, clause, reason = self._wanted(moment)
        if wanted is not self._state:
            self._to(wanted, moment.now_s, clause, reason or f"no reduction by {source}")

    def _wanted(self, moment: Moment) -> tuple[ReductionState, str, str]:
        value, source = self._value, self._settings.source
        if not moment.age_s(source) <= self._settings.heartbeat_timeout_s:
            return ReductionState.FAILSAFE, "A1 4.5 (chosen: no clause says what holds in silence)", f"{source} silent"
        if value is Absent.UNLIMITED:
            return ReductionState.FREE, "A1 4.3", ""
        if not isinstance(value, Absent) and value < self.minimum_w:
            words = f"{self._why}: {value:.0f} W, less than the minimum of {self.minimum_w:.0f} W"
            return ReductionState.BELOW, "A1 4.5", words
        return ReductionState.REDUCED, "A1 4.2", self._why

    def _ordered_w(self) -> float | None:
        """What the order in force leaves; None without one."""
        if self._value is Absent.UNLIMITED:
            return None
        if isinstance(self._value, Absent):
            return self.minimum_w
        return max(self._value, self.minimum_w) if self._settings.raise_to_minimum else self._value

    def rule(self, moment: Moment) -> Ruling:
        """The order, or the minimum power; in silence the tighter of both."""
        ordered_w = self._ordered_w()
        failsafe = self._state is ReductionState.FAILSAFE
        bound_w, why = ordered_w, self._why
        if failsafe and (ordered_w is None or ordered_w > self.minimum_w):
            bound_w, why = self.minimum_w, f"minimum power ({self._settings.source} silent)"
        shares_w = {} if bound_w is None else divided_w(bound_w, self._devices)
        facts = {"minimum_w": self.minimum_w, "shares_w": shares_w}
        bounds = () if bound_w is None else (QuantityBound(Quantity.CONTROLLABLE_LOAD_W, bound_w, why),)
        return self._ruling(failsafe, bounds, facts=facts)

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """Nothing: the orders themselves are kept, and silence is the start."""
        return {}

    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """Nothing to take up."""

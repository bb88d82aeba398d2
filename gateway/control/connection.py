"""The connection point in control: what is measured there, what the devices' sum may be, and the slow correction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from config.vocabulary import CURRENT_A_BY_PHASE, POWER_W
from gateway.control.envelope import Envelope
from gateway.control.feedback import Integral, PowerHistory, RestEstimate, settle_time_s
from gateway.control.model import SiteModel
from gateway.control.resources import Resource
from gateway.image import Image

INTEGRAL_LIMIT_PU: Final = 0.1
"""The integral corrects at most this part of the devices' summed ratings."""

MOVED_PU: Final = 0.01
"""A share that changes by more than this part of the rating is a step, and the integral waits for its end."""

IMPLAUSIBLE_METER_PU: Final = 10.0
"""A reading beyond this multiple of the rating is not a measurement."""

STANDSTILL_S: Final = 0.5
"""The integral bridges at most this time between two meter samples."""


class SumBounds(NamedTuple):
    """What the controllable devices' summed power may be, watts; `target_w` None: any, at the price."""

    lower_w: float
    upper_w: float
    target_w: float | None


@dataclass(slots=True)
class ConnectionState:
    """What is remembered of the connection point from cycle to cycle."""

    rest: RestEstimate
    integral: Integral
    histories: dict[str, PowerHistory] = field(default_factory=dict)
    heading_w: dict[str, float] = field(default_factory=dict)
    net_w: float | None = None
    bound: bool = False
    moved_s: float = 0.0
    integrated_s: float | None = None

    def measure(self, model: SiteModel, image: Image, resources: Iterable[Resource], dt_s: float) -> bool:
        """Pair the meter's reading with the devices' power at its own time; without one, let the rest widen.

        True while the meter is good.
        """
        resources = [resource for resource in resources if resource.power_w is not None]
        for resource in resources:
            name = resource.model.name
            history = self.histories.get(name)
            if history is None:
                history = self.histories[name] = PowerHistory()
            history.add(resource.measured_s, resource.power_w or 0.0)
        meter = image.devices.get(model.meter)
        reading = meter.number(POWER_W, image.now_s, model.stale_after_s) if meter is not None else None
        if meter is None or reading is None or abs(reading) > IMPLAUSIBLE_METER_PU * model.rating_w:
            if self.rest.measured_s is not None:
                self.rest.unknown_for(dt_s)
            return False
        measured_s = meter.sample(POWER_W).measured_s
        if self.rest.measured_s is not None and measured_s <= self.rest.measured_s:
            return True
        shared_w, hidden_w, hidden_shared_w = self._devices_at(measured_s, resources)
        self.net_w = reading + hidden_w
        self.rest.measured(self.net_w - shared_w - hidden_shared_w, measured_s)
        return True

    def _devices_at(self, time_s: float, resources: Iterable[Resource]) -> tuple[float, float, float]:
        """Power at a time: of the usable devices that the meter sees, of all that it does not, of the usable of those.

        Devices that take no share are part of the rest.
        """
        shared_w = hidden_w = hidden_shared_w = 0.0
        for resource in resources:
            if resource.model.seen_by_meter and not resource.usable:
                continue
            name = resource.model.name
            heading = self.heading_w.get(name) if resource.usable else None
            power = self.histories[name].at(time_s, heading, resource.model.tr90_s) or 0.0
            if resource.model.seen_by_meter:
                shared_w += power
            else:
                hidden_w += power
                hidden_shared_w += power * resource.usable
        return shared_w, hidden_w, hidden_shared_w

    def integrate(self, usable: list[Resource], now_s: float) -> None:
        """Advance the integral by a new meter sample, if a bound or target shaped the shares and they have settled."""
        measured_s = self.rest.measured_s
        if measured_s is None or measured_s == self.integrated_s:
            return
        dt_s = 0.0 if self.integrated_s is None else min(measured_s - self.integrated_s, STANDSTILL_S)
        self.integrated_s = measured_s
        settle_s = settle_time_s((resource.model.tr90_s, resource.model.dead_time_s) for resource in usable)
        if not self.bound:
            self.integral.fade(dt_s)
        elif now_s - self.moved_s > settle_s:
            # What was asked already has the correction in it; what was intended has not.
            excess_w = sum(self._excess_w(resource) for resource in usable)
            self.integral.advance(excess_w - self.integral.value_w, dt_s)

    def _excess_w(self, resource: Resource) -> float:
        """What a device delivers beyond what it was asked for.

        A ceiling device below its ceiling is no error: what it shows is what the next cycle expects of it.
        """
        power_w = resource.power_w or 0.0
        asked_w = self.heading_w.get(resource.model.name, power_w)
        below = resource.model.ceiling and abs(power_w) < abs(asked_w)
        return 0.0 if below else power_w - asked_w

    def intend(self, model: SiteModel, shares_w: dict[str, float], *, bound: bool, now_s: float) -> None:
        """Remember where each device is heading, and whether a bound or target made it so."""
        moves_w = [abs(power - self.heading_w.get(name, power)) for name, power in shares_w.items()]
        if max(moves_w, default=0.0) > MOVED_PU * model.rating_w or bound != self.bound:
            self.moved_s = now_s
        self.bound = bound
        self.heading_w = shares_w


def initial_connection(model: SiteModel) -> ConnectionState:
    """Nothing measured, nothing corrected."""
    ratings_w = sum(device.rating_w for device in model.devices)
    return ConnectionState(
        RestEstimate(model.rest_min_w, model.rest_max_w, model.rest_widens_w_per_s),
        Integral(model.integral_per_s, INTEGRAL_LIMIT_PU * ratings_w),
    )


def worst_excess_a(model: SiteModel, image: Image) -> float:
    """By how much the most loaded phase exceeds the mean, from the meter's phase currents; 0 where it has none."""
    meter = image.devices.get(model.meter)
    if meter is None or model.phases == 1:
        return 0.0
    currents = [meter.number(point, image.now_s, model.stale_after_s) for point in CURRENT_A_BY_PHASE]
    known = [abs(current) for current in currents if current is not None]
    return max(known) - sum(known) / len(known) if len(known) == model.phases else 0.0


def sum_bounds(model: SiteModel, envelope: Envelope, rest: RestEstimate) -> tuple[SumBounds, str]:
    """The envelope as bounds on the devices' sum, a margin inside; and what cannot be kept, or an empty text.

    With an uncertain rest each bound uses its own worst case. Where both cannot hold, the middle has the least possible
    violation.
    """
    rest_low_w, rest_high_w = rest.lower_w or 0.0, rest.upper_w or 0.0
    margin_w = min(model.margin_w, (envelope.upper.value_w - envelope.lower.value_w) / 4.0)
    upper_w = envelope.upper.value_w - margin_w - rest_high_w
    lower_w = envelope.lower.value_w + margin_w - rest_low_w
    unmet = ""
    if lower_w > upper_w:
        lower_w = upper_w = (lower_w + upper_w) / 2.0
        unmet = "the meter is lost: the uncontrolled power is only known within its declared extremes"
    if envelope.target is None:
        return SumBounds(lower_w, upper_w, None), unmet
    target_w = envelope.target.value_w - (rest_low_w + rest_high_w) / 2.0
    return SumBounds(lower_w, upper_w, min(max(target_w, lower_w), upper_w)), unmet

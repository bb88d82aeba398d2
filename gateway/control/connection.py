"""The connection point in control: what is measured there, what the devices' sum may be, and the slow correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, NamedTuple

from config.vocabulary import CURRENT_A_BY_PHASE, POWER_W
from gateway.control.bridging import is_slower
from gateway.control.deviation import Deviation, deviation_of
from gateway.control.envelope import Envelope
from gateway.control.feedback import Integral, RestEstimate, slowest_s
from gateway.control.loss import Reserve, is_lost, possible_w, reserved
from gateway.control.meter_trust import MeterTrust
from gateway.control.meter_window import Record
from gateway.control.model import DeviceModel, SiteModel
from gateway.control.resources import DOES_NOT_FOLLOW, Resource
from gateway.control.trajectory import Span, Trajectory
from gateway.image import Image

INTEGRAL_LIMIT_PU: Final = 0.1
"""The integral corrects at most this part of the devices' summed ratings."""

CORRECTED_PU: Final = 0.3
"""Of its rating: a device further beside what it was asked for is none that gives a little more or less: it shows
nonsense or does something else, and would leave the integral wrong for long after it has ended."""

MOVED_PU: Final = 0.01
MOVED_DEVICE_PU: Final = 0.1
"""A share that changes by more than this part of the connection's rating, or of the device's own, is a step, and the
integral waits for its end."""

IMPLAUSIBLE_METER_PU: Final = 10.0
"""A reading beyond this multiple of the rating is not a measurement."""

INTEGRATED_EACH_S: Final = 0.15
"""The integral is slow, and is not advanced more often than this."""

STANDSTILL_S: Final = 0.5
"""The integral bridges at most this time between two meter samples."""

GAP_HALF_LIFE_S: Final = 300.0
"""How soon a long time without samples is forgotten."""

JUMP_PU: Final = 0.25
"""A rest that jumps by more than this part of the rating is believed with the sample after."""

CONFIRMED_WITHIN_S: Final = 0.3
"""A meter that is slower than this is believed at once: waiting for another sample would cost more than a wrong one."""

NOTHING: Final = Reserve(0.0, 0.0)


class SumBounds(NamedTuple):
    """What the controllable devices' summed power may be, watts; `target_w` None: any, at the price."""

    lower_w: float
    upper_w: float
    target_w: float | None

    def shifted(self, by_w: float) -> SumBounds:
        """All of it moved by the same power."""
        return SumBounds(
            self.lower_w + by_w, self.upper_w + by_w, None if self.target_w is None else self.target_w + by_w
        )


class _Paired(NamedTuple):
    """The devices at the meter's time: all that it sees, all that it does not, and those that share."""

    seen: Span
    hidden_w: float
    shared: Span
    shared_w: dict[str, float]
    oldest_s: float


@dataclass(slots=True)
class ConnectionState:
    """What is remembered of the connection point from cycle to cycle.

    `shared_w`: the devices that the rest was taken without, and their power at the time of the meter's last sample.
    `fastest_s` and `slowest_s`: how long after a command the fastest and the slowest device may still move. `mixed`:
    some are so much slower than others that these bridge them. `late`: devices that do not follow yet.
    """

    rest: RestEstimate
    integral: Integral
    trust: MeterTrust
    fastest_s: float
    slowest_s: float
    mixed: bool
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    deviations: dict[str, Deviation] = field(default_factory=dict)
    shared_w: dict[str, float] = field(default_factory=dict)
    net_w: float | None = None
    bound: bool = False
    gap_s: float = 0.0
    integrated_s: float | None = None
    moved_s: float = float("-inf")
    jump_w: float | None = None
    late: frozenset[str] = frozenset()

    def measure(self, model: SiteModel, image: Image, resources: Sequence[Resource], dt_s: float) -> bool:
        """Pair the meter's reading with the devices' power at its own time; without one, let the rest widen.

        True while the meter is good and believed.
        """
        self._sampled(image, resources)
        meter = image.devices.get(model.meter)
        reading = meter.number(POWER_W, image.now_s, model.stale_after_s) if meter is not None else None
        if meter is None or reading is None or not abs(reading) <= IMPLAUSIBLE_METER_PU * model.rating_w:
            if self.rest.measured_s is not None:
                self.rest.unknown_for(dt_s)
            return False
        measured_s = min(meter.sample(POWER_W).measured_s, image.now_s) - model.meter_dead_time_s
        if self.rest.measured_s is None or measured_s > self.rest.measured_s:
            self._take(model, reading, measured_s, resources, dt_s)
        elif self.trust.good:
            self._recount(resources)
        else:
            self.rest.unknown_for(dt_s)
        return self.trust.good

    def _sampled(self, image: Image, resources: Sequence[Resource]) -> None:
        """Each device's power, and what of it is beside what it was asked for."""
        now_s, trajectories, deviations = image.now_s, self.trajectories, self.deviations
        for model, power_w, measured_s, _, usable, lower, *_ in resources:
            name = model.name
            deviation = deviations.get(name)
            if power_w is None:
                if deviation is not None:
                    deviation.forget()
                continue
            known = trajectories.get(name) or self.trajectory(model)
            if measured_s > now_s:
                measured_s = now_s
            known.add(measured_s, power_w)
            if deviation is None:
                continue
            if not usable or lower.source == DOES_NOT_FOLLOW or name in self.late:
                deviation.forget()
            elif name not in image.unanswered:
                deviation.sampled(measured_s, power_w)
            known.beside_w = deviation.value_w if deviation.known_w else 0.0

    def beside_w(self) -> float:
        """What the devices deliver beside what they are asked for, as far as that is certain; watts, signed."""
        return sum([one.value_w for one in self.deviations.values() if one.known_w])

    def _take(
        self, model: SiteModel, reading: float, measured_s: float, resources: Sequence[Resource], dt_s: float
    ) -> None:
        """A new meter sample."""
        paired = self._paired_at(measured_s, resources)
        net_w = reading + paired.hidden_w
        since_s = measured_s - self.rest.measured_s if self.rest.measured_s is not None else 0.0
        self.gap_s = max(self.gap_s * 0.5 ** (dt_s / GAP_HALF_LIFE_S), since_s, measured_s - paired.oldest_s)
        expected_w = net_w - paired.shared.expected_w
        low_w, high_w = net_w - paired.shared.high_w, net_w - paired.shared.low_w
        if self._waits_for_another(model, low_w, high_w, since_s):
            self.rest.measured_s = measured_s
            return
        doubted_from = self.trust.observe(
            Record(measured_s, reading, paired.seen, expected_w), self.gap_s, self.slowest_s
        )
        if doubted_from is not None:
            self.rest.assume(doubted_from.rest_w)
            self.rest.unknown_for(measured_s - doubted_from.time_s)
        elif not self.trust.good:
            self.rest.unknown_for(dt_s)
        else:
            self.net_w = net_w
            self._recount(resources)
            self.rest.measured(low_w, expected_w, high_w)
            self.shared_w = paired.shared_w
        self.rest.measured_s = measured_s

    def _waits_for_another(self, model: SiteModel, low_w: float, high_w: float, since_s: float) -> bool:
        """Whether a reading puts the rest so far from where it was that the next one has to say so, too.

        Meanwhile the rest is what it was. A second jump to the same side is believed, whatever its size.
        """
        was_w, before_w = self.rest.lower_w, self.jump_w
        self.jump_w = None
        if not self.rest.known or was_w is None or since_s > CONFIRMED_WITHIN_S:
            return False
        jump_w = min(max(was_w, low_w), high_w) - was_w
        if abs(jump_w) <= JUMP_PU * model.rating_w:
            return False
        self.jump_w = jump_w
        return before_w is None or before_w * jump_w < 0.0

    @property
    def parts_w(self) -> tuple[float, float | None]:
        """The uncontrolled rest, the middle of what it may be, and the devices' part of net power; None: not known."""
        rest_w = ((self.rest.lower_w or 0.0) + (self.rest.upper_w or 0.0)) / 2.0
        return rest_w, None if self.net_w is None else self.net_w - rest_w

    def trajectory(self, model: DeviceModel) -> Trajectory:
        """The device's samples and commands so far."""
        known = self.trajectories.get(model.name)
        if known is None:
            known = self.trajectories[model.name] = Trajectory(model.tr90_s, model.dead_time_s)
        return known

    def _paired_at(self, time_s: float, resources: Sequence[Resource]) -> _Paired:
        """The power at the meter's time of all that are heard."""
        oldest_s, hidden_w, shared_w = time_s, 0.0, {}
        seen_low_w = seen_expected_w = seen_high_w = low_w = expected_w = high_w = 0.0
        trajectories = self.trajectories
        for model, power_w, sampled_s, _, usable, *_ in resources:
            span = trajectories[model.name].at(time_s) if power_w is not None else None
            if span is None:
                continue
            least_w, likely_w, most_w = span
            if sampled_s < oldest_s:
                oldest_s = sampled_s
            if model.seen_by_meter:
                seen_low_w += least_w
                seen_expected_w += likely_w
                seen_high_w += most_w
            else:
                hidden_w += likely_w
            if usable:
                low_w += least_w
                expected_w += likely_w
                high_w += most_w
                shared_w[model.name] = likely_w
        seen, shared = Span(seen_low_w, seen_expected_w, seen_high_w), Span(low_w, expected_w, high_w)
        return _Paired(seen, hidden_w, shared, shared_w, oldest_s)

    def _recount(self, resources: Sequence[Resource]) -> None:
        """Devices that no longer share belong to the rest with the power that they had, and the other way round."""
        usable = [one.model for one in resources if one.usable]
        if len(usable) == len(self.shared_w) and all(one.name in self.shared_w for one in usable):
            return
        now, measured_s = {one.name for one in usable}, self.rest.measured_s
        for name in self.shared_w.keys() - now:
            self.rest.moved(self.shared_w.pop(name))
        for model in usable:
            if model.name not in self.shared_w and measured_s is not None:
                span = self.trajectory(model).at(measured_s)
                self.shared_w[model.name] = span.expected_w if span is not None else 0.0
                self.rest.moved(-self.shared_w[model.name])

    def integrate(self, model: SiteModel, usable: Sequence[Resource], now_s: float) -> None:
        """Advance the integral by a new meter sample, if a bound or target shaped the shares; settled devices count."""
        measured_s = self.rest.measured_s
        if measured_s is None or measured_s == self.integrated_s:
            return
        if self.integrated_s is not None and measured_s - self.integrated_s < INTEGRATED_EACH_S:
            return
        dt_s = 0.0 if self.integrated_s is None else min(measured_s - self.integrated_s, STANDSTILL_S)
        self.integrated_s = measured_s
        if not self.bound:
            self.integral.fade(dt_s)
            return
        if not self.mixed and now_s - self.moved_s < self.slowest_s:
            return
        heard = [one for one in usable if one.model.name not in self.late]
        excesses = [(one, self._excess_w(one, _step_w(model, one.model), now_s)) for one in heard]
        settled = [(one, excess_w) for one, excess_w in excesses if excess_w is not None]
        if not settled:
            return
        # What was asked already has the corrections in it; what was intended has not.
        known_w = sum(self.trajectories[one.model.name].beside_w for one, _ in settled)
        error_w = sum(excess_w for _, excess_w in settled) - known_w - self.integral.value_w
        response_s = slowest_s((one.model.tr90_s, one.model.dead_time_s) for one, _ in settled)
        age_s = max(self.gap_s, max(now_s - one.measured_s for one, _ in settled))
        self.integral.advance(error_w, dt_s, response_s + age_s)

    def _excess_w(self, resource: Resource, step_w: float, now_s: float) -> float | None:
        """What a device delivers beyond what it was asked for; None while it moves, and where it does something else.

        A ceiling device below its ceiling is no error: what it shows is what the next cycle expects of it.
        """
        asked_w = self.trajectory(resource.model).steady_w(min(resource.measured_s, now_s), step_w)
        if asked_w is None:
            return None
        power_w = resource.power_w or 0.0
        if resource.model.ceiling and abs(power_w) < abs(asked_w):
            return 0.0
        excess_w = power_w - asked_w
        return excess_w if abs(excess_w) <= CORRECTED_PU * resource.model.rating_w else None

    def intend(self, model: SiteModel, usable: Sequence[Resource], asked_w: Sequence[float], now_s: float) -> None:
        """Remember where each device is heading."""
        trajectories = self.trajectories
        for resource, power_w in zip(usable, asked_w, strict=True):
            device = resource.model
            if trajectories[device.name].command(now_s, power_w, device.rating_w, _step_w(model, device)):
                self.moved_s = now_s

    def told(self, usable: Sequence[Resource], setpoints_w: Sequence[float], now_s: float) -> None:
        """Remember what each device's setpoint is; a ceiling may lie above where it is heading."""
        for resource, setpoint_w in zip(usable, setpoints_w, strict=True):
            deviation = self.deviations.get(resource.model.name)
            if deviation is None or deviation.asked_w == setpoint_w or resource.model.name in self.late:
                continue
            if resource.lower.source != DOES_NOT_FOLLOW:
                deviation.command(now_s, setpoint_w, resource.power_w or 0.0)

    def reserve(self, resources: list[Resource], image: Image) -> Reserve:
        """What devices may change by that cannot be asked, or may not have heard."""
        if not image.unanswered and not any(is_lost(one) for one in resources):
            return NOTHING
        if not self.rest.known:
            return NOTHING
        measured_s = self.rest.measured_s or image.now_s
        return reserved(resources, self.trajectories, image, measured_s, self.fastest_s)

    def unseen(self, resources: list[Resource], image: Image) -> tuple[float, float]:
        """Without a meter: the least and most that lost devices have, unless the rest is known to have it in it."""
        if self.rest.known:
            return 0.0, 0.0
        low_w = high_w = 0.0
        for one in resources:
            if is_lost(one) and (self.rest.measured_s is None or one.model.name in self.shared_w):
                known = self.trajectories.get(one.model.name)
                least_w, most_w = possible_w(one.model, known, image.now_s, self.fastest_s)
                low_w, high_w = low_w + least_w, high_w + most_w
        return low_w, high_w


def _step_w(model: SiteModel, device: DeviceModel) -> float:
    return min(MOVED_PU * model.rating_w, MOVED_DEVICE_PU * device.rating_w)


def initial_connection(model: SiteModel) -> ConnectionState:
    """Nothing measured, nothing corrected."""
    ratings_w = sum(device.rating_w for device in model.devices)
    asked = [device for device in model.devices if device.controllable]
    responses_s = [device.response_s for device in asked]
    arrivals_s = [Trajectory(device.tr90_s, device.dead_time_s).arrival_s for device in asked]
    return ConnectionState(
        RestEstimate(model.rest_min_w, model.rest_max_w, model.rest_widens_w_per_s),
        Integral(model.integral_per_s, INTEGRAL_LIMIT_PU * ratings_w),
        MeterTrust(model.rating_w),
        min(arrivals_s, default=0.0),
        max(arrivals_s, default=0.0),
        bool(responses_s) and is_slower(max(responses_s), min(responses_s)),
        deviations={one.name: found for one in model.devices if (found := deviation_of(one)) is not None},
    )


def worst_excess_a(model: SiteModel, image: Image) -> float:
    """By how much the most loaded phase exceeds the mean, from the meter's phase currents; 0 where it has none."""
    meter = image.devices.get(model.meter)
    if meter is None or model.phases == 1:
        return 0.0
    currents = [meter.number(point, image.now_s, model.stale_after_s) for point in CURRENT_A_BY_PHASE]
    known = [abs(current) for current in currents if current is not None and isfinite(current)]
    return max(known) - sum(known) / len(known) if len(known) == model.phases else 0.0


def sum_bounds(
    model: SiteModel,
    envelope: Envelope,
    rest: RestEstimate,
    reserve: Reserve = NOTHING,
    unseen_w: tuple[float, float] = (0.0, 0.0),
) -> tuple[SumBounds, str]:
    """The envelope as bounds on the devices' sum, a margin inside; and what cannot be kept, or an empty text.

    With an uncertain rest each bound uses its own worst case. Where both cannot hold, the middle has the least possible
    violation. `unseen_w` is power that comes to the rest. A reserve narrows the bounds as far as there is room for it:
    what may happen never breaks what can be kept now.
    """
    rest_low_w, rest_high_w = (rest.lower_w or 0.0) + unseen_w[0], (rest.upper_w or 0.0) + unseen_w[1]
    most_w = (envelope.upper.value_w - envelope.lower.value_w) / 4.0
    upper_w = envelope.upper.value_w - min(max(model.margin_w, envelope.upper_margin_w), most_w) - rest_high_w
    lower_w = envelope.lower.value_w + min(max(model.margin_w, envelope.lower_margin_w), most_w) - rest_low_w
    unmet = ""
    if lower_w > upper_w:
        lower_w = upper_w = (lower_w + upper_w) / 2.0
        unmet = "the meter is lost: the uncontrolled power is only known within its declared extremes"
    if reserve.up_w + reserve.down_w > 0.0:
        share = min((upper_w - lower_w) / (reserve.up_w + reserve.down_w), 1.0)
        lower_w, upper_w = lower_w + share * reserve.down_w, upper_w - share * reserve.up_w
    if envelope.target is None:
        return SumBounds(lower_w, upper_w, None), unmet
    target_w = envelope.target.value_w - (rest_low_w + rest_high_w) / 2.0
    return SumBounds(lower_w, upper_w, min(max(target_w, lower_w), upper_w)), unmet

"""One device's step: rest before it, the step, what the device and the meter show of it, and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, NamedTuple

from config.profile import Profile
from config.vocabulary import (
    CHARGING_STATE,
    MAX_CHARGE_W,
    MAX_DISCHARGE_W,
    POWER_W,
    SOC,
    DeviceKind,
    Sample,
    WriteStatus,
)
from gateway.commission.field import Field, FieldView
from gateway.commission.judging import METER_AGREES_PU, meter_findings, own_findings, phase_findings
from gateway.commission.response import Seen, measure
from gateway.commission.step_plan import Bounds, Situation, StepPlan, plan_step
from gateway.control.model import DeviceModel

PRESENT_WITHIN_S: Final = 5.0
BASELINE_S: Final = 1.2
SETTLED_S: Final = 0.6
ATTEMPTS: Final = 3
SLOW_POINT_AGE_S: Final = 30.0
_LOOK_S: Final = 0.05
_LEAST_SAMPLES: Final = 4
_LEAST_LONGEST_S: Final = 6.0
_MOST_LONGEST_S: Final = 60.0
_OVERSHOOT_PU: Final = 1.5
_NOISE_PU: Final = 0.2
"""Of the step: where the connection moves more by itself, a step says nothing."""


class Aborted(Exception):  # noqa: N818 - the name says what happened, as the report reads it
    """Something odd: the step is broken off, and the rest state follows."""


class _Disturbed(Exception):  # noqa: N818 - likewise
    """Something else moved the device: the step says nothing, and may be made again."""


class Live(NamedTuple):
    """Where a step is, for whoever watches."""

    device: str
    phase: str
    elapsed_s: float
    target_w: float | None
    power_w: float | None
    meter_w: float | None


OnLive = Callable[[Live], None]


@dataclass(frozen=True, slots=True)
class StepSite:
    """What a step needs to know of the site. `meter` is None where the meter does not see the device."""

    meter: str | None
    bounds: Bounds
    rating_w: float
    others: tuple[str, ...]
    stale_after_s: float


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A step as it was measured: by the device itself, and by the meter where it sees the device."""

    asked_w: float
    own: Seen
    meter: Seen | None
    findings: tuple[str, ...]
    phase_changes_w: Mapping[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Recording:
    """Powers by instant: the device's own, the meter's less all other devices', and the meter's by phase."""

    own: list[tuple[float, float]] = field(default_factory=list)
    meter: list[tuple[float, float]] = field(default_factory=list)
    phases: dict[int, list[tuple[float, float]]] = field(default_factory=dict)


class Stepper:
    """Makes the step of one device. Raises Aborted; its caller sees to the rest state, which the field writes."""

    def __init__(
        self, work: Field, name: str, device: DeviceModel, profile: Profile, phases: tuple[int, ...], site: StepSite,
        on_live: OnLive,
    ) -> None:  # fmt: skip
        self._field = work
        self._view = work.view
        self._name = name
        self._device = device
        self._phases = phases
        self._profile = profile
        self._site = site
        self._on_live = on_live
        self._phase = ""
        self._since_s = work.clock()
        self._recording = _Recording()
        control = profile.control
        assert control is not None  # only controllable devices are stepped
        reversion_s = control.reversion_s or control.refresh_s * 3.0
        self._refresh_s = min(control.refresh_s, reversion_s / 3.0)
        response_s = device.dead_time_s + device.tr90_s
        self._longest_s = min(max(_LEAST_LONGEST_S, 4.0 * response_s + 2.0), _MOST_LONGEST_S)

    async def run(self, step_w: float) -> StepOutcome | str:
        """Step, and again if the meter disagrees, since another load may have moved; or in words why not."""
        self._view.listener = self._record
        try:
            return await self._attempts(step_w)
        finally:
            self._view.listener = None

    async def _attempts(self, step_w: float) -> StepOutcome | str:
        outcomes: list[StepOutcome] = []
        reason = ""
        await self._there()
        for attempt in range(ATTEMPTS):
            plan = self._plan(step_w)
            if isinstance(plan, str):
                reason = plan
                break
            if attempt or plan.base_w == 0.0:
                await self._write(plan.base_w)
                await self._settle(plan)
                # A ceiling that was lifted shows only now what there is.
                plan = self._plan(step_w)
            if isinstance(plan, str):
                reason = plan
                break
            try:
                outcomes.append(await self._once(plan))
            except _Disturbed as disturbed:
                reason = str(disturbed)
                continue
            if _disagreement(outcomes[-1]) <= METER_AGREES_PU or not worth_repeating(outcomes[-1]):
                return outcomes[-1]
        return min(outcomes, key=_disagreement) if outcomes else reason

    def _plan(self, step_w: float) -> StepPlan | str:
        now_s, view = self._field.clock(), self._view
        situation = situation_of(self._field, self._name, self._site.meter, now_s, self._site.stale_after_s)
        if situation is None:
            raise Aborted("its power is not known")
        if self._site.meter is not None and situation.net_w is None:
            raise Aborted(f"meter {self._site.meter} gives no power: {view.reasons.get(self._site.meter, 'no answer')}")
        return plan_step(self._device, situation, self._site.bounds, step_w)

    async def _there(self) -> None:
        """Wait until the device and the meter have been read."""
        self._enter("waits")

        def read() -> bool:
            there = self._site.meter is None or self._power(self._site.meter) is not None
            return there and has_been_read(self._view, self._name, self._profile)

        await self._view.until(read, PRESENT_WITHIN_S)
        for name in (self._name, self._site.meter):
            if name is not None and self._power(name) is None:
                raise Aborted(f"{name} does not answer: {self._field.link_reason(name)}")

    async def _once(self, plan: StepPlan) -> StepOutcome:
        before = await self._baseline(plan)
        stepped_s = await self._write(plan.target_w)
        after = await self._watch(plan, before, stepped_s)
        await self._write(plan.base_w)
        return self._judged(plan, before, after, stepped_s)

    async def _settle(self, plan: StepPlan) -> None:
        """Until the power stands still; something that doesn't is left to the baseline's judgement."""
        self._enter("rests")
        self._recording = _Recording()
        while self._elapsed_s() < self._longest_s:
            await self._look(plan.base_w)
            if self._elapsed_s() > SETTLED_S and _stands(self._recording.own, 0.03 * abs(plan.change_w)):
                return

    async def _baseline(self, plan: StepPlan) -> _Recording:
        """What there is before the step; taken again if the connection moved, as when a load was switched meanwhile."""
        noise_w = 0.0
        for _ in range(ATTEMPTS):
            before = await self._stretch()
            if self._site.meter is None or len(before.meter) < _LEAST_SAMPLES:
                return before
            noise_w = measure(before.meter, before.meter, 0.0, BASELINE_S).noise_w
            if noise_w <= _NOISE_PU * abs(plan.change_w):
                return before
        raise Aborted(f"the connection moves by {noise_w:.0f} W by itself; a larger step is needed")

    async def _stretch(self) -> _Recording:
        self._enter("baseline")
        self._recording = _Recording()
        while self._elapsed_s() < BASELINE_S or len(self._recording.own) < _LEAST_SAMPLES:
            await self._look(None)
            if self._elapsed_s() > self._longest_s:
                raise Aborted("its power is not measured often enough")
        return self._recording

    async def _watch(self, plan: StepPlan, before: _Recording, stepped_s: float) -> _Recording:
        """Record until the power stands at its new value, or the longest time has passed."""
        self._enter("step")
        self._recording = after = _Recording()
        base_w = fmean(power for _, power in before.own)
        refreshed_s = stepped_s
        while self._elapsed_s() < self._longest_s:
            await self._look(plan.target_w)
            self._watch_over(plan, base_w)
            if self._field.clock() - refreshed_s > self._refresh_s:
                refreshed_s = await self._write(plan.target_w)
            if not after.own or self._elapsed_s() < 2 * SETTLED_S:
                continue
            moved = abs(after.own[-1][1] - base_w) > 0.5 * abs(plan.change_w)
            views = [after.own, after.meter] if self._site.meter is not None else [after.own]
            if moved and all(_stands(view, 0.03 * abs(plan.change_w)) for view in views):
                break
        if not after.own:
            raise Aborted("its power was not measured after the step")
        return after

    def _watch_over(self, plan: StepPlan, base_w: float) -> None:
        power_w = self._power(self._name)
        if power_w is None or self._view.present.get(self._name) is False:
            raise Aborted(f"lost while it was stepped: {self._view.reasons.get(self._name) or 'its power is stale'}")
        if abs(power_w - base_w) > _OVERSHOOT_PU * abs(plan.change_w) + 0.02 * self._device.rating_w:
            if self._device.kind is DeviceKind.INVERTER and power_w > base_w:
                raise _Disturbed("what it can generate fell while it was stepped")
            raise Aborted(f"{power_w - base_w:+.0f} W came where {plan.change_w:+.0f} W were asked")
        if self._site.meter is None:
            return
        net_w = self._power(self._site.meter)
        if net_w is None:
            raise Aborted(f"meter {self._site.meter} was lost")
        slack_w, bounds = 0.02 * self._site.rating_w, self._site.bounds
        if net_w > bounds.upper_w + slack_w and plan.change_w > 0:
            raise Aborted(f"the connection is at {net_w:.0f} W, above {bounds.upper_w:.0f} W")
        if net_w < bounds.lower_w - slack_w and plan.change_w < 0:
            raise Aborted(f"the connection is at {net_w:.0f} W, below {bounds.lower_w:.0f} W")

    def _judged(self, plan: StepPlan, before: _Recording, after: _Recording, stepped_s: float) -> StepOutcome:
        own = measure(before.own, after.own, stepped_s, SETTLED_S)
        meter = None
        if before.meter and after.meter:
            meter = measure(before.meter, after.meter, stepped_s, SETTLED_S)
        changes_w = {
            phase: measure(samples, after.phases[phase], stepped_s, SETTLED_S).change_w
            for phase, samples in before.phases.items()
            if phase in after.phases
        }
        findings = list(own_findings(plan.change_w, own, meter))
        if meter is not None and self._site.meter is not None:
            wrong = list(meter_findings(self._site.meter, plan.change_w, own, meter))
            findings += wrong
            if not wrong and not findings:
                findings += phase_findings(self._phases, changes_w, own)
        return StepOutcome(plan.change_w, own, meter, tuple(findings), changes_w)

    async def _write(self, power_w: float) -> float:
        result = await self._field.write(self._name, power_w, "commissioning")
        if result.status is not WriteStatus.ACKNOWLEDGED:
            raise Aborted(f"a write was {result.status}: {result.detail or 'no reason given'}")
        return result.at_s

    def _record(self, device: str, samples: Mapping[str, Sample]) -> None:
        if device == self._name and POWER_W in samples:
            _append(self._recording.own, samples[POWER_W], 0.0)
        elif device == self._site.meter and POWER_W in samples:
            others_w = sum(self._power(other) or 0.0 for other in self._site.others)
            _append(self._recording.meter, samples[POWER_W], others_w)
            for phase in (1, 2, 3):
                sample = samples.get(f"power_l{phase}_w")
                if sample is not None:
                    _append(self._recording.phases.setdefault(phase, []), sample, 0.0)

    def _power(self, device: str) -> float | None:
        return self._view.number(device, POWER_W, self._field.clock(), self._site.stale_after_s)

    def _enter(self, phase: str) -> None:
        self._phase, self._since_s = phase, self._field.clock()

    def _elapsed_s(self) -> float:
        return self._field.clock() - self._since_s

    async def _look(self, target_w: float | None) -> None:
        meter_w = self._power(self._site.meter) if self._site.meter is not None else None
        self._on_live(Live(self._name, self._phase, self._elapsed_s(), target_w, self._power(self._name), meter_w))
        await asyncio.sleep(_LOOK_S)


def has_been_read(view: FieldView, name: str, profile: Profile) -> bool:
    """Whether every point that a step is chosen by has come, good or bad."""
    read = view.latest.get(name, {})
    wanted = (POWER_W, SOC, CHARGING_STATE, MAX_CHARGE_W, MAX_DISCHARGE_W)
    return all(point in read for point in wanted if point in profile.points)


def situation_of(work: Field, name: str, meter: str | None, now_s: float, stale_after_s: float) -> Situation | None:
    """What the field knows of a device and the connection; None without the device's power."""
    view = work.view
    power_w = view.number(name, POWER_W, now_s, stale_after_s)
    if power_w is None:
        return None
    return Situation(
        power_w,
        None if meter is None else view.number(meter, POWER_W, now_s, stale_after_s),
        view.number(name, SOC, now_s, SLOW_POINT_AGE_S),
        view.text(name, CHARGING_STATE),
        view.number(name, MAX_CHARGE_W, now_s, SLOW_POINT_AGE_S),
        view.number(name, MAX_DISCHARGE_W, now_s, SLOW_POINT_AGE_S),
    )


def _disagreement(outcome: StepOutcome) -> float:
    """How far device and meter are apart, of the step."""
    if outcome.meter is None:
        return 0.0
    return abs(outcome.meter.change_w - outcome.own.change_w) / abs(outcome.asked_w)


def worth_repeating(outcome: StepOutcome) -> bool:
    """Whether another load may be why the meter disagrees: the device responds, and the meter sees that rightly."""
    own, meter = outcome.own, outcome.meter
    responds = not list(own_findings(outcome.asked_w, own, None))
    return responds and meter is not None and meter.change_w * own.change_w > 0


def _append(samples: list[tuple[float, float]], sample: Sample, less_w: float) -> None:
    value = sample.value
    if isinstance(value, float | int) and (not samples or sample.measured_s > samples[-1][0]):
        samples.append((sample.measured_s, value - less_w))


def _stands(samples: list[tuple[float, float]], within_w: float) -> bool:
    """Whether the last `SETTLED_S` of samples stay within a band as wide as that; too few say nothing."""
    if not samples:
        return False
    last = [power for at_s, power in samples if at_s >= samples[-1][0] - SETTLED_S]
    covered = samples[0][0] <= samples[-1][0] - SETTLED_S
    return covered and len(last) >= _LEAST_SAMPLES and max(last) - min(last) <= within_w

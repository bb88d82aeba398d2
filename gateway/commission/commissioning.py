"""The whole of `gateway commission`: every device in turn, one at a time, and what was measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from config.lags import MeasuredLag
from config.profile import Profile
from config.site import Address, Site
from config.vocabulary import POWER_W, Clock, DeviceKind
from gateway.commission.field import Field, field_of
from gateway.commission.response import Seen
from gateway.commission.step_plan import Bounds, bounds_of, plan_step
from gateway.commission.stepping import (
    PRESENT_WITHIN_S,
    Aborted,
    OnLive,
    StepOutcome,
    Stepper,
    StepSite,
    has_been_read,
    situation_of,
)
from gateway.control.model import DeviceModel, SiteModel, build_site_model

DEFAULT_STEP_PU: Final = 0.2
PERIOD_S: Final = 0.02
_TELL_S: Final = 0.05
LEAST_STALE_S: Final = 1.0
_NOISE_OF_A_LAG_PU: Final = 0.03
_ORDER: Final = {DeviceKind.BATTERY: 0, DeviceKind.CHARGER: 1, DeviceKind.RELAY: 2, DeviceKind.INVERTER: 3}
"""Inverters last: at rest they generate nothing for a while."""

Outcome = Literal["good", "failed", "aborted", "skipped"]


@dataclass(frozen=True, slots=True)
class CommissionRequest:
    """What to commission. `addresses` replace the site file's; `devices` empty: every one that can be controlled."""

    site: Site
    profiles: Mapping[str, Profile]
    addresses: Mapping[str, Address] = field(default_factory=dict)
    twins: frozenset[str] = frozenset()
    devices: tuple[str, ...] = ()
    step_w: float | None = None
    step_pu: float = DEFAULT_STEP_PU
    allow_real_writes: bool = False


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What came of one device; `reason` says why it was skipped or aborted, `findings` what is wrong with it."""

    device: str
    kind: DeviceKind
    outcome: Outcome
    reason: str = ""
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    asked_w: float | None = None
    own: Seen | None = None
    meter: Seen | None = None
    phase_changes_w: Mapping[int, float] = field(default_factory=dict)
    lag: MeasuredLag | None = None

    def as_json(self) -> dict[str, Any]:
        """A plain object."""
        return {
            "device": self.device,
            "kind": self.kind.value,
            "outcome": self.outcome,
            "reason": self.reason,
            "findings": list(self.findings),
            "notes": list(self.notes),
            "asked_w": self.asked_w,
            "device_saw": _seen(self.own),
            "meter_saw": _seen(self.meter),
            "meter_phases_w": {str(phase): round(change_w, 1) for phase, change_w in self.phase_changes_w.items()},
            "tr90_s": None if self.lag is None else self.lag.tr90_s,
            "dead_time_s": None if self.lag is None else self.lag.dead_time_s,
        }


class Commissioning:
    """Steps the devices of a site in turn. `on_start` hears of each device whose turn begins, `on_report` of each as it
    is done; `reports` holds those that are done, whatever becomes of the others.
    """

    def __init__(
        self,
        request: CommissionRequest,
        clock: Clock,
        on_live: OnLive = lambda _: None,
        on_report: Callable[[DeviceReport], None] = lambda _: None,
        tell_twins: Callable[[Mapping[str, float]], None] | None = None,
        on_start: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._request = request
        self._clock = clock
        self._on_live = on_live
        self._on_report = on_report
        self._tell_twins = tell_twins
        self._on_start = on_start
        self._model: SiteModel = build_site_model(
            request.site, request.profiles, request.twins, on_bench=bool(request.twins)
        )
        self._devices: dict[str, DeviceModel] = {device.name: device for device in self._model.devices}
        self._addresses = {name: request.addresses.get(name, d.address) for name, d in request.site.devices.items()}
        self.reports: list[DeviceReport] = []

    async def run(self) -> list[DeviceReport]:
        """Every device's report; on cancellation the device under way is put at rest and the error passed on."""
        names = self._names()
        for name in await self._survey(names):
            self._on_start(name)
            self._add(await self._commission(name))
        return self.reports

    def _names(self) -> list[str]:
        if self._request.devices:
            return [name for name in self._request.devices if name in self._devices]
        return sorted(self._devices, key=lambda name: _ORDER.get(self._devices[name].kind, 9))

    def _add(self, report: DeviceReport) -> None:
        self.reports.append(report)
        self._on_report(report)

    def _may_be_written(self, name: str) -> bool:
        return name in self._request.twins or self._request.allow_real_writes

    def _refused(self, name: str) -> str:
        if not self._devices[name].controllable:
            return "it is read-only, or its profile has no control"
        if not self._may_be_written(name):
            return "it is real, and --allow-real-writes was not given"
        return ""

    async def _survey(self, names: Sequence[str]) -> list[str]:
        """Read everything once, and put the stores and chargers that may be written at rest; those left to step."""
        resting = frozenset(
            name
            for name, device in self._devices.items()
            if device.kind in (DeviceKind.BATTERY, DeviceKind.CHARGER) and not self._refused(name)
        )
        left = []
        async with self._field(resting) as work:
            waited = [*names, self._model.meter]
            await work.view.until(lambda: all(self._is_known(work, name) for name in waited), PRESENT_WITHIN_S)
            for name in names:
                report = self._passed_over(work, name)
                if report is None:
                    left.append(name)
                else:
                    self._add(report)
        return left

    def _is_known(self, work: Field, name: str) -> bool:
        return has_been_read(work.view, name, self._request.profiles[name])

    def _passed_over(self, work: Field, name: str) -> DeviceReport | None:
        """Why a device is not stepped: by its nature, its present state, or since it does not answer."""
        kind, reason = self._devices[name].kind, self._refused(name)
        situation = situation_of(work, name, None, self._clock(), self._stale_after_s(name))
        if not reason and situation is None:
            return DeviceReport(name, kind, "aborted", f"{name} does not answer: {work.link_reason(name)}")
        if not reason and situation is not None:
            # How far the connection is from its limits is looked at right before the step.
            plan = plan_step(self._devices[name], situation, self._bounds(), self._step_w(name))
            reason = plan if isinstance(plan, str) else ""
        return DeviceReport(name, kind, "skipped", reason) if reason else None

    def _stale_after_s(self, name: str) -> float:
        """How long a power of the device or of the meter may be believed."""
        own_s = self._devices[name].stale_after_s or self._model.stale_after_s
        return max(own_s, self._model.stale_after_s, LEAST_STALE_S)

    async def _commission(self, name: str) -> DeviceReport:
        device, kind = self._devices[name], self._devices[name].kind
        site = self._step_site(name)
        try:
            async with self._field(frozenset((name,))) as work:
                phases = self._request.site.devices[name].phases
                stepper = Stepper(work, name, device, self._request.profiles[name], phases, site, self._on_live)
                outcome = await stepper.run(self._step_w(name))
        except Aborted as aborted:
            return DeviceReport(name, kind, "aborted", str(aborted))
        if isinstance(outcome, str):
            return DeviceReport(name, kind, "skipped", outcome)
        return self._report(name, site, outcome)

    def _report(self, name: str, site: StepSite, outcome: StepOutcome) -> DeviceReport:
        lag = None if outcome.findings else self._lag(name, outcome)
        notes = (
            [] if site.meter is not None else ["the meter is real and does not see a twin: only its own power counts"]
        )
        if not outcome.findings and lag is None:
            notes.append("its response does not stand out from the noise")
        stated = self._request.site.devices[name]
        if lag is not None and (stated.tr90_s is not None or stated.dead_time_s is not None):
            notes.append("the site file states tr90_s or dead_time_s, which win over the measured ones")
        return DeviceReport(
            name,
            self._devices[name].kind,
            "failed" if outcome.findings else "good",
            findings=outcome.findings,
            notes=tuple(notes),
            asked_w=outcome.asked_w,
            own=outcome.own,
            meter=outcome.meter,
            phase_changes_w=outcome.phase_changes_w,
            lag=lag,
        )

    def _lag(self, name: str, outcome: StepOutcome) -> MeasuredLag | None:
        """The shorter of what the device and the meter have shown: either can only add a delay of its own.

        To each its sampling period is added, for a view of few samples is early or late by as much.
        """
        views: list[tuple[Literal["device", "meter"], Seen | None]] = [
            ("device", outcome.own),
            ("meter", outcome.meter),
        ]
        seen = [
            (view.lag_s + view.period_s, who, view)
            for who, view in views
            if view is not None and view.lag_s is not None
        ]
        clean = [item for item in seen if item[2].noise_w <= _NOISE_OF_A_LAG_PU * abs(outcome.asked_w)]
        best = min(clean or seen, key=lambda item: item[0], default=None)
        if best is None:
            return None
        _, who, view = best
        assert view.tr90_s is not None and view.dead_time_s is not None  # or it would have no lag
        return MeasuredLag(
            tr90_s=round(max(view.tr90_s, 0.001), 3),
            dead_time_s=round(view.dead_time_s, 3),
            measured_on="twin" if name in self._request.twins else "device",
            seen_by=who,
            measured_at=datetime.now(UTC).replace(microsecond=0),
        )

    def _step_site(self, name: str) -> StepSite:
        sees = self._devices[name].seen_by_meter
        others = tuple(other for other, device in self._devices.items() if other != name and device.seen_by_meter)
        meter = self._model.meter if sees else None
        return StepSite(meter, self._bounds(), self._model.rating_w, others, self._stale_after_s(name))

    def _bounds(self) -> Bounds:
        return bounds_of(self._model, has_parents=bool(self._request.site.parents))

    def _step_w(self, name: str) -> float:
        if self._request.step_w is not None:
            return self._request.step_w
        return self._request.step_pu * self._devices[name].rating_w

    @asynccontextmanager
    async def _field(self, written: frozenset[str]) -> AsyncIterator[Field]:
        request = self._request
        async with field_of(request.site, request.profiles, self._addresses, written, PERIOD_S, self._clock) as work:
            telling = asyncio.create_task(self._tell_real_powers(work), name="real powers")
            try:
                yield work
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)

    async def _tell_real_powers(self, work: Field) -> None:
        """Let the twins' physics add what the real devices measure, or the meter's twin has no sum to show."""
        real = [name for name in self._devices if name not in self._request.twins]
        while self._tell_twins is not None:
            now_s = self._clock()
            powers = {name: work.view.number(name, POWER_W, now_s, self._stale_after_s(name)) for name in real}
            self._tell_twins({name: power for name, power in powers.items() if power is not None})
            await asyncio.sleep(_TELL_S)


def _seen(seen: Seen | None) -> dict[str, float | None] | None:
    if seen is None:
        return None
    return {
        "change_w": round(seen.change_w, 1),
        "noise_w": round(seen.noise_w, 1),
        "dead_time_s": None if seen.dead_time_s is None else round(seen.dead_time_s, 3),
        "tr90_s": None if seen.tr90_s is None else round(seen.tr90_s, 3),
    }

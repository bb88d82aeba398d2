"""What control remembers of each resource from cycle to cycle: one record a device."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Final

from gateway.control.model import DeviceModel

CEILINGS_KEPT: Final = 256

STUCK_S: Final = 3.0
STUCK_HOLD_S: Final = 30.0
FAR_PU: Final = 0.1
STILL_PU: Final = 0.02
"""A device that has moved less than `STILL_PU` of its rating for `STUCK_S` and three times its response, while it was
further than `FAR_PU` from what it was asked for, does not follow; others take its share, and it is tried again after
`STUCK_HOLD_S`."""

SELDOM_S: Final = 1.0
"""A device whose power comes at longer intervals is predicted between them."""

SELDOM_MODEL_S: Final = 5.0
"""A device whose power may become this old is taken to report seldom until it has shown otherwise."""

FIRST_REST_S: Final = 10.0
LONGEST_REST_S: Final = 600.0
"""A charger that was paused is not offered power again for this long: contactors and cars wear out by toggling. Each
pause soon after a start doubles it."""

LONGEST_ROOM_S: Final = 20.0

FIRST_PATIENCE_S: Final = 1.0
LONGEST_PATIENCE_S: Final = 300.0
"""A raise that had to be taken back soon doubles the time until the next small one."""


@dataclass(slots=True)
class Session:
    """One car's stay at a charger.

    `takes_w`: what it shows that it takes, infinite while its ceiling holds it back or nobody knows yet; `may_w`: the
    highest ceiling that makes sense for it now. `turn`: who is served first where not all can be, the lowest first.
    `wants_nothing`: it was offered power at `tried_s` and has not begun; then it gets what nobody else takes. `sleeps`:
    it has drawn nothing since it was paused.
    """

    since_s: float
    takes_w: float = inf
    may_w: float = 0.0
    turn: float = 0.0
    keeps_on: bool = False
    offered_since_s: float | None = None
    started_s: float = -inf
    waiting_since_s: float | None = None
    paused_until_s: float = -inf
    rest_s: float = FIRST_REST_S
    pauses: int = 0
    drew: bool = False
    sleeps: bool = False
    not_woken: bool = False
    wants_nothing: bool = False
    tried_s: float = -inf
    raised_s: float = -inf
    cut_s: float = -inf
    patience_s: float = FIRST_PATIENCE_S
    need_w: float = 0.0
    left_wh: float = 0.0
    left_s: float = 0.0
    behind_since_s: float | None = None

    def offered(self, now_s: float, before_w: float, ceiling_w: float, restricted: bool) -> None:
        """The ceiling of this cycle, after `before_w`; `restricted`: the sharing has cut it, not the car."""
        if ceiling_w > before_w:
            if before_w == 0.0:
                self.started_s, self.waiting_since_s = now_s, None
            else:
                self.raised_s = now_s
        elif ceiling_w < before_w:
            if ceiling_w == 0.0:
                self._paused(now_s)
            elif restricted:
                soon = now_s - self.raised_s < 2.0 * self.patience_s
                if self.raised_s > self.cut_s:
                    # Once for each raise: what comes after is one long cut.
                    patience_s = 2.0 * self.patience_s if soon else 0.5 * self.patience_s
                    self.patience_s = min(max(patience_s, FIRST_PATIENCE_S), LONGEST_PATIENCE_S)
                self.cut_s = now_s

    def _paused(self, now_s: float) -> None:
        soon = now_s - self.started_s < 2.0 * self.rest_s + 60.0
        rested = self.paused_until_s > -inf
        self.rest_s = min(2.0 * self.rest_s, LONGEST_REST_S) if soon and rested else FIRST_REST_S
        self.paused_until_s = now_s + self.rest_s
        self.waiting_since_s = now_s
        self.pauses += self.drew
        self.sleeps = self.sleeps or self.drew
        self.drew = False

    def patient(self, now_s: float) -> bool:
        """Whether a small raise has to wait."""
        return now_s - max(self.raised_s, self.cut_s) < self.patience_s


@dataclass(slots=True)
class DeviceMemory:
    """One device's record. `ceilings`: when each was asked for, as magnitudes; `asked_w`: the last of all, signed.

    `envelope_w`: what a layer below last offered; `unoffered_w`: the power it had when it stopped to offer.
    """

    interval_s: float
    ceilings: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=CEILINGS_KEPT))
    asked_w: float | None = None
    still_since_s: float | None = None
    stood_w: float = 0.0
    held_until_s: float = -inf
    measured_s: float | None = None
    told: int = 0
    envelope_w: tuple[float, float] | None = None
    unoffered_w: float | None = None
    session: Session | None = None

    def sampled(self, measured_s: float) -> None:
        """A sample of that time, seen again or anew: how long it takes between two."""
        if self.measured_s is None:
            self.measured_s = measured_s
        elif measured_s > self.measured_s:
            gap_s = measured_s - self.measured_s
            self.measured_s, self.told = measured_s, self.told + 1
            self.interval_s = (
                gap_s if gap_s > self.interval_s or self.told == 1 else 0.8 * self.interval_s + 0.2 * gap_s
            )

    def seldom(self, now_s: float, measured_s: float) -> bool:
        """Whether the device reports so seldom that it has to be predicted."""
        return self.interval_s > SELDOM_S or now_s - measured_s > SELDOM_S

    def stuck(self, model: DeviceModel, now_s: float, measured_s: float, power_w: float) -> bool:
        """Whether a device stands still far from what it was asked for; it is then left as it is for `STUCK_HOLD_S`.

        Only a sample tells that was measured long enough after the asking. One that moves while it is left alone does
        not stand still: it is asked again.
        """
        if now_s < self.held_until_s:
            if abs(power_w - self.stood_w) <= STILL_PU * model.rating_w:
                return True
            self.held_until_s = now_s
        asked_w = power_w if self.asked_w is None else self.asked_w
        if (
            self.still_since_s is None
            or abs(power_w - asked_w) <= FAR_PU * model.rating_w
            or abs(power_w - self.stood_w) > STILL_PU * model.rating_w
        ):
            self.still_since_s, self.stood_w = now_s, power_w
            return False
        if measured_s - self.still_since_s <= STUCK_S + 3.0 * (model.tr90_s + model.dead_time_s):
            return False
        self.still_since_s = None
        self.held_until_s = now_s + STUCK_HOLD_S
        return True

    def asked(
        self, model: DeviceModel, now_s: float, share_w: float, setpoint_w: float, restricted: bool = False
    ) -> None:
        """What the device was asked for."""
        if not model.ceiling:
            self.asked_w = share_w
            return
        if self.session is not None:
            self.session.offered(now_s, self.asked_w or 0.0, setpoint_w, restricted)
        self.asked_w = setpoint_w
        magnitude_w = abs(setpoint_w)
        if not self.ceilings or self.ceilings[-1][1] != magnitude_w:
            self.ceilings.append((now_s, magnitude_w))


@dataclass(slots=True)
class Room:
    """What load and sun left to all others in the last seconds: the least since each time, oldest first."""

    seen: deque[tuple[float, float]] = field(default_factory=deque)

    def see(self, now_s: float, room_w: float) -> None:
        """The room of this cycle; what was more before does not count any more."""
        seen = self.seen
        while seen and seen[0][0] < now_s - LONGEST_ROOM_S:
            seen.popleft()
        while seen and seen[-1][1] >= room_w:
            seen.pop()
        seen.append((now_s, room_w))

    def lasting_w(self, since_s: float) -> float:
        """The room that has been there all the time since then, after `see`."""
        return next(room_w for at_s, room_w in self.seen if at_s >= since_s)


@dataclass(slots=True)
class Opening:
    """Whether all ceilings are open, and how long they stay closed once they had to be closed; longer each time."""

    open: bool = False
    opened_s: float = -inf
    closed_s: float = -inf
    wait_s: float = FIRST_PATIENCE_S

    def allowed(self, now_s: float, fits: bool) -> bool:
        """Whether they are open in this cycle; `fits`: there is room for all of it."""
        if self.open and not fits:
            soon = now_s - self.opened_s < 2.0 * self.wait_s
            self.wait_s = min(max((2.0 if soon else 0.5) * self.wait_s, FIRST_PATIENCE_S), LONGEST_PATIENCE_S)
            self.open, self.closed_s = False, now_s
        elif fits and not self.open and now_s - self.closed_s >= self.wait_s:
            self.open, self.opened_s = True, now_s
        return self.open


@dataclass(slots=True)
class ResourceMemory:
    """The records by device, and what pressed in the last cycle.

    `import_presses`: the upper bound on net power does; `export_presses`: the lower one.
    """

    devices: dict[str, DeviceMemory] = field(default_factory=dict)
    import_presses: bool = False
    export_presses: bool = False
    opening: Opening = field(default_factory=Opening)
    room: Room = field(default_factory=Room)

    def of(self, model: DeviceModel) -> DeviceMemory:
        """The device's record."""
        known = self.devices.get(model.name)
        if known is None:
            seldom = (model.stale_after_s or 0.0) > SELDOM_MODEL_S
            known = self.devices[model.name] = DeviceMemory(model.stale_after_s or 0.0 if seldom else 0.0)
        return known

    def session(self, device: str) -> Session | None:
        """The car at a charger."""
        known = self.devices.get(device)
        return None if known is None else known.session

    @property
    def plugged_in_s(self) -> dict[str, float]:
        """Since when each car is there."""
        return {name: one.session.since_s for name, one in self.devices.items() if one.session is not None}

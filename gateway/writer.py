"""The writer: turns decisions into as few writes as the devices need, tightening ones first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from config.vocabulary import Clock, Setpoint, WritePriority, WriteResult, WriteStatus
from drivers.driver import Driver
from gateway.control.decision import Decision

RETRY_S: Final = 1.0
"""A refused write is tried again after this time, an indeterminate one with the next cycle."""


@dataclass(frozen=True, slots=True)
class WritePace:
    """How often a device wants to be written to: from its profile."""

    deadband_w: float = 0.0
    min_interval_s: float = 0.0
    refresh_s: float = 10.0


_ANY_PACE: Final = WritePace()


@dataclass(slots=True)
class _Written:
    asked_w: float | None = None
    sent_s: float = float("-inf")
    sequence: int = -1
    retry_at_s: float | None = None


@dataclass(slots=True)
class _Batch:
    """The writes that followed from orders, until the last of them is acknowledged."""

    order_ids: tuple[str, ...]
    open: set[int]
    last_s: float


@dataclass(slots=True)
class Writer:
    """Sends setpoints through the drivers; the drivers' results come back through `result`.

    Where a bound presses, writes that relieve it go out at once and the opposite ones wait until those are answered.
    """

    drivers: Mapping[str, Driver]
    paces: Mapping[str, WritePace]
    clock: Clock
    life_s: float
    on_orders_written: Callable[[tuple[str, ...], float], None]
    observe: bool = False
    acknowledged: int = 0
    failed: int = 0
    first_acknowledged_s: float | None = None
    _devices: dict[str, _Written] = field(default_factory=dict)
    _sequence: int = 0
    _relieving: set[int] = field(default_factory=set)
    _waiting: list[Setpoint] = field(default_factory=list)
    _batches: list[_Batch] = field(default_factory=list)

    def submit(self, decision: Decision, order_ids: tuple[str, ...] = ()) -> int:
        """Write what has changed or is due; returns how many writes that makes. `order_ids`: what the cycle answers."""
        if self.observe:
            return 0
        now_s = self.clock()
        expires_s, side = now_s + self.life_s, decision.side
        priority = WritePriority.FAIL_SAFE if "fallback" in decision.binding else WritePriority.SETPOINT
        relieving: list[Setpoint] = []
        others: list[Setpoint] = []
        for device, power_w, cause in decision.setpoints:
            known = self._known(device)
            if not self._due(device, known, power_w, now_s):
                continue
            self._sequence += 1
            write = Setpoint(device, power_w, cause, expires_s, self._sequence, priority)
            (relieving if _relieves(side, known.asked_w, power_w) else others).append(write)
        self._relieving.update(write.sequence for write in relieving)
        writes = [*relieving, *others]
        if order_ids:
            self._batches.append(_Batch(order_ids, {write.sequence for write in writes}, now_s))
        self._forget_waiting()
        for write in relieving:
            self._send(write, now_s)
        if self._relieving and side in ("upper", "lower"):
            self._waiting = others
        else:
            for write in others:
                self._send(write, now_s)
        self._close_batches()
        return len(writes)

    def result(self, result: WriteResult) -> None:
        """The fate of a write."""
        if result.status is WriteStatus.ACKNOWLEDGED:
            self.acknowledged += 1
            if self.first_acknowledged_s is None:
                self.first_acknowledged_s = result.at_s
        elif result.status is not WriteStatus.SUPERSEDED:
            self.failed += 1
            known = self._known(result.device)
            if result.sequence == known.sequence:
                known.retry_at_s = result.at_s + (RETRY_S if result.status is WriteStatus.REFUSED else 0.0)
        self._settle(result.sequence, result.at_s)
        self._relieving.discard(result.sequence)
        if not self._relieving and self._waiting:
            waiting, self._waiting = self._waiting, []
            now_s = self.clock()
            for write in waiting:
                self._send(write, now_s)

    def asked_w(self, device: str, sequence: int) -> float | None:
        """The power of a write, if it is the newest of its device."""
        known = self._devices.get(device)
        return known.asked_w if known is not None and known.sequence == sequence else None

    def device_returned(self, device: str) -> None:
        """A device that was away gets the present setpoint with the next cycle, whatever it was told before."""
        self._devices.pop(device, None)

    def _due(self, device: str, known: _Written, power_w: float, now_s: float) -> bool:
        pace = self.paces.get(device, _ANY_PACE)
        if known.asked_w is None:
            return True
        since_s = now_s - known.sent_s
        if since_s < pace.min_interval_s:
            return False
        if known.retry_at_s is not None and now_s >= known.retry_at_s:
            return True
        changed = abs(power_w - known.asked_w) > pace.deadband_w
        return changed or since_s >= pace.refresh_s

    def _known(self, device: str) -> _Written:
        known = self._devices.get(device)
        if known is None:
            known = self._devices[device] = _Written()
        return known

    def _send(self, write: Setpoint, now_s: float) -> None:
        known = self._known(write.device)
        known.asked_w = write.power_w
        known.sent_s = now_s
        known.sequence = write.sequence
        known.retry_at_s = None
        self.drivers[write.device].write(write)

    def _forget_waiting(self) -> None:
        """Writes still held back by an earlier cycle are replaced by this one's."""
        for write in self._waiting:
            self._settle(write.sequence, self.clock())
        self._waiting = []

    def _settle(self, sequence: int, at_s: float) -> None:
        done = False
        for batch in self._batches:
            if sequence in batch.open:
                batch.open.discard(sequence)
                batch.last_s = max(batch.last_s, at_s)
                done = done or not batch.open
        if done:
            self._close_batches()

    def _close_batches(self) -> None:
        done = [batch for batch in self._batches if not batch.open]
        if done:
            self._batches = [batch for batch in self._batches if batch.open]
            for batch in done:
                self.on_orders_written(batch.order_ids, batch.last_s)


def _relieves(side: str, asked_w: float | None, power_w: float) -> bool:
    """Whether a change moves away from the bound that presses."""
    if asked_w is None or side not in ("upper", "lower"):
        return False
    return power_w < asked_w if side == "upper" else power_w > asked_w

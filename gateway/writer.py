"""The writer: turns decisions into as few writes as the devices need, tightening ones first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from config.vocabulary import Clock, Setpoint, WritePriority, WriteResult, WriteStatus
from drivers.driver import Driver, Remembers
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
_ACKNOWLEDGED: Final = WriteStatus.ACKNOWLEDGED
_new: Final = tuple.__new__


@dataclass(slots=True)
class _Written:
    """One device: by whom and how often it is written, and what it was last asked for."""

    driver: Driver
    pace: WritePace
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
        expires_s, side, price = now_s + self.life_s, decision.side, decision.lambda_per_kwh
        priority = WritePriority.FAIL_SAFE if "fallback" in decision.binding else WritePriority.SETPOINT
        presses = side in ("upper", "lower")
        first = sequence = self._sequence
        relieving: list[Setpoint] = []
        others: list[Setpoint] = []
        for device, power_w, cause in decision.setpoints:
            known = self._devices.get(device) or self._known(device)
            asked_w = known.asked_w
            if asked_w is not None and not _due(known, asked_w, power_w, now_s):
                continue
            sequence += 1
            write = _new(Setpoint, (device, power_w, cause, expires_s, sequence, priority, price))
            if presses and asked_w is not None and (power_w < asked_w if side == "upper" else power_w > asked_w):
                relieving.append(write)
            else:
                others.append(write)
        self._sequence = sequence
        if order_ids:
            self._batches.append(_Batch(order_ids, set(range(first + 1, sequence + 1)), now_s))
        self._forget_waiting()
        if relieving:
            self._relieving.update([write.sequence for write in relieving])
            self._send(relieving, now_s)
        if presses and self._relieving:
            self._waiting = others
        else:
            self._send(others, now_s)
        self._close_batches()
        return sequence - first

    def result(self, result: WriteResult) -> None:
        """The fate of a write."""
        if result.status is _ACKNOWLEDGED:
            self.acknowledged += 1
            if self.first_acknowledged_s is None:
                self.first_acknowledged_s = result.at_s
        elif result.status is not WriteStatus.SUPERSEDED:
            self.failed += 1
            known = self._known(result.device)
            if result.sequence == known.sequence:
                known.retry_at_s = result.at_s + (RETRY_S if result.status is WriteStatus.REFUSED else 0.0)
        if self._batches:
            self._settle(result.sequence, result.at_s)
        if self._relieving:
            self._relieving.discard(result.sequence)
        if self._waiting and not self._relieving:
            waiting, self._waiting = self._waiting, []
            self._send(waiting, self.clock())

    def asked_w(self, device: str, sequence: int) -> float | None:
        """The power of a write, if it is the newest of its device."""
        known = self._devices.get(device)
        return known.asked_w if known is not None and known.sequence == sequence else None

    def device_returned(self, device: str) -> None:
        """A device that was away gets the present setpoint with the next cycle, whatever it was told before."""
        self._devices.pop(device, None)

    def repair(self, device: str, *, at_once: bool) -> None:
        """Write the device's present setpoint whole: with its next refresh, or as soon as its least interval allows."""
        known = self._devices.get(device)
        if known is None:
            return
        if isinstance(known.driver, Remembers):
            known.driver.forget(device)
        if at_once:
            known.retry_at_s = self.clock()

    def _known(self, device: str) -> _Written:
        known = self._devices.get(device)
        if known is None:
            known = self._devices[device] = _Written(self.drivers[device], self.paces.get(device, _ANY_PACE))
        return known

    def _send(self, writes: Sequence[Setpoint], now_s: float) -> None:
        for write in writes:
            known = self._devices.get(write.device) or self._known(write.device)
            known.asked_w = write.power_w
            known.sent_s = now_s
            known.sequence = write.sequence
            known.retry_at_s = None
            known.driver.write(write)

    def _forget_waiting(self) -> None:
        """Writes still held back by an earlier cycle are replaced by this one's."""
        for write in self._waiting:
            self._settle(write.sequence, self.clock())
        self._waiting = []

    def _settle(self, sequence: int, at_s: float) -> None:
        done = False
        for batch in self._batches:
            if sequence in batch.open:
                batch.open.remove(sequence)
                if at_s > batch.last_s:
                    batch.last_s = at_s
                done = done or not batch.open
        if done:
            self._close_batches()

    def _close_batches(self) -> None:
        done = [batch for batch in self._batches if not batch.open]
        if done:
            self._batches = [batch for batch in self._batches if batch.open]
            for batch in done:
                self.on_orders_written(batch.order_ids, batch.last_s)


def _due(known: _Written, asked_w: float, power_w: float, now_s: float) -> bool:
    pace, since_s = known.pace, now_s - known.sent_s
    if since_s < pace.min_interval_s:
        return False
    if known.retry_at_s is not None and now_s >= known.retry_at_s:
        return True
    return abs(power_w - asked_w) > pace.deadband_w or since_s >= pace.refresh_s

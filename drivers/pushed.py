"""A device whose values come by themselves: which of them still stand, and whether it is alive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from config.profile import Access
from config.vocabulary import HEARTBEAT, Quality, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from config.vocabulary import Clock, FieldSink, SampleValue
    from drivers.binding import DeviceBinding
    from drivers.driver import LinkStats

_SHORTEST_WATCH_S: Final = 0.02


class PushedDevice:
    """What is known of one device that sends values when they change, and for how long it may be believed.

    A value that doesn't change isn't sent again, so its age says nothing; a dead device sends nothing either. The rule
    that tells them apart:

    - A *sign of life* is something only the living device can have caused. Its protocol says what that is; a heartbeat
      that repeats its last value never is one, so a replayed or frozen device doesn't live on.
    - With each sign of life, the points named `held` (those whose last value stands until the device sends another)
      are told again with the time of that sign. Where the protocol can say that nothing has changed, they are renewed
      by that too, while the device is present. All other points keep the time of their own arrival, and age.
    - What somebody else has kept (a retained message) is told with the next sign of life and not before: only then is
      it known that the device is there and would have sent a newer value.
    - Without a sign of life for `silence_s`, the device is absent and every point of it bad. The next sign brings it
      back, with the held values it had, or newer ones.
    """

    def __init__(
        self, binding: DeviceBinding, sink: FieldSink, stats: LinkStats, clock: Clock, held: Collection[str]
    ) -> None:
        self.binding = binding
        self.name = binding.name
        self.present: bool | None = None
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._held = frozenset(held)
        self._readable = tuple(name for name, point in binding.profile.points.items() if point.access is not Access.W)
        self._last: dict[str, Sample] = {}
        self._beat: SampleValue = None
        self._alive_s = clock()
        stats.devices[self.name] = False

    @property
    def silent_at_s(self) -> float:
        """When the device counts as absent unless a sign of life comes before."""
        return self._alive_s + self.binding.profile.pace.silence_s

    @property
    def beat(self) -> SampleValue:
        """The heartbeat's last value."""
        return self._beat

    def beats(self, fresh: Mapping[str, Sample]) -> bool | None:
        """Whether a heartbeat among `fresh` has moved since the last one; None if there is none among them."""
        sample = fresh.get(HEARTBEAT)
        if sample is None:
            return None
        moved = sample.quality is not Quality.BAD and sample.value != self._beat
        if moved:
            self._beat = sample.value
        return moved

    def keep(self, retained: Mapping[str, Sample]) -> None:
        """Values that were kept by somebody else: to be told with the next sign of life."""
        self._last.update(retained)

    def update(self, fresh: Mapping[str, Sample], *, alive: bool, confirmed: bool = False, renews: bool = True) -> bool:
        """Take newly measured samples; returns whether that brings the device back.

        `alive`: their coming is a sign of life. `confirmed`: it is certain that nothing else has changed, which renews
        the held points of a device that is present, but is no sign of its life. Without `renews` a sign of life says
        nothing about the held points.
        """
        now = self._clock()
        told = dict(fresh)
        self._last.update(fresh)
        came_back = alive and not self.present
        if alive:
            self._alive_s = now
        if (alive and renews) or (confirmed and self.present):
            told.update(self._standing(now, but=fresh))
        if told and (alive or self.present):
            self._sink.samples(self.name, told)
        if came_back:
            self.present = self._stats.devices[self.name] = True
            self._sink.device_state(self.name, True, "answers")
        return came_back

    def look(self) -> None:
        """Call the device absent if it has been silent too long."""
        if self.present is not False and self._clock() >= self.silent_at_s:
            self.gone(f"no sign of life for {self.binding.profile.pace.silence_s:g} s")

    def gone(self, reason: str) -> None:
        """The device is absent for a stated reason; every point of it turns bad. Told once."""
        if self.present is False:
            return
        self.present = self._stats.devices[self.name] = False
        bad = Sample(None, Quality.BAD, self._clock())
        self._sink.samples(self.name, dict.fromkeys(self._readable, bad))
        self._sink.device_state(self.name, False, reason)

    def link_up(self) -> None:
        """Its link is there: from now on it can be silent."""
        self._alive_s = self._clock()

    def link_lost(self, reason: str) -> None:
        """Its link is gone; nothing that was heard before may stand after it."""
        self._last.clear()
        self.gone(f"link lost: {reason}")

    def _standing(self, now: float, but: Mapping[str, Sample]) -> dict[str, Sample]:
        return {
            name: sample._replace(measured_s=max(now, sample.measured_s))
            for name, sample in self._last.items()
            if name in self._held and name not in but and sample.quality is not Quality.BAD
        }


async def watch_silence(devices: Sequence[PushedDevice], clock: Clock, link_is_up: Callable[[], bool]) -> None:
    """Call devices absent when they fall silent while their link is up; until cancelled."""
    silence_s = min(device.binding.profile.pace.silence_s for device in devices)
    while True:
        due = [device.silent_at_s for device in devices if device.present is not False] if link_is_up() else []
        due_s = min(due, default=clock() + silence_s)
        await asyncio.sleep(min(max(due_s - clock(), _SHORTEST_WATCH_S), silence_s))
        if link_is_up():
            for device in devices:
                device.look()

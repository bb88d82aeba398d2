"""When a layer's parents are told what: telemetry and offers, each parent its own, and nothing but the aggregate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from config.messages import Acknowledgement, AckStatus, Down, Offer, OfferInterval, Telemetry

TELEMETRY_S: Final = 1.0
OFFER_S: Final = 60.0
OFFER_LOOK_S: Final = 5.0
CHANGED_STEPS: Final = 2.0
"""An offer that differs from the last one by so many steps of its own grid is told before its minute is over."""

MOVED_PU: Final = 0.01
"""Of the connection's rating: a net power that has moved by this much is told at once."""


class Publisher(Protocol):
    """One parent's side: it is handed messages of the layer interface and knows nothing else of the layer."""

    def tell(self, telemetry: Telemetry) -> None: ...
    def offer(self, offer: Offer) -> None: ...


class Dispatcher(Protocol):
    """The dispatch in force, as far as it is repeated to whoever gave it."""

    @property
    def source(self) -> str: ...
    @property
    def order_id(self) -> str: ...


@dataclass(slots=True)
class Publication:
    """What the parents were told last, and when the next is due; monotonic seconds."""

    moved_w: float
    _telemetry_due_s: float = 0.0
    _look_due_s: float = 0.0
    _offer_due_s: float = 0.0
    _offer: Offer | None = None
    _compliance: str = ""
    _net_w: float | None = None

    def acknowledged(self, message: Acknowledgement) -> None:
        """A parent that has taken authority has heard no offer yet."""
        if message.kind is Down.AUTHORITY and message.status is AckStatus.ACCEPTED:
            self._look_due_s = self._offer_due_s = 0.0

    def telemetry_is_due(self, now_s: float, net_w: float | None, compliance: str, *, regulated: bool) -> bool:
        """Each second; each cycle while a parent regulates; at once when compliance or the net power has changed."""
        moved = (net_w is None) is not (self._net_w is None) or (
            net_w is not None and self._net_w is not None and abs(net_w - self._net_w) >= self.moved_w
        )
        return regulated or moved or compliance != self._compliance or now_s >= self._telemetry_due_s

    def tell(
        self, parents: Mapping[str, Publisher], now_s: float, message: Telemetry, dispatch: Dispatcher | None
    ) -> None:
        """Telemetry to all, with the dispatch in force for the one that gave it."""
        self._telemetry_due_s = now_s + TELEMETRY_S
        self._compliance, self._net_w = message.compliance.state, message.net_power_w
        for name, parent in parents.items():
            own = dispatch is not None and dispatch.source == name
            parent.tell(message.model_copy(update={"dispatch_id": dispatch.order_id}) if own and dispatch else message)

    def offer(self, parents: Mapping[str, Publisher], now_s: float, make: Callable[[], Offer | None]) -> Offer | None:
        """The offer to all, each minute, or when it has changed; it is made anew every `OFFER_LOOK_S`.

        The offer that was told; None where none was.
        """
        if now_s < self._look_due_s:
            return None
        made = make()
        self._look_due_s = now_s + (OFFER_LOOK_S if made is not None else TELEMETRY_S)
        if made is None or (now_s < self._offer_due_s and not _differ(made, self._offer)):
            return None
        self._offer_due_s, self._offer = now_s + OFFER_S, made
        for parent in parents.values():
            parent.offer(made)
        return made


def _differ(made: Offer, told: Offer | None) -> bool:
    """Whether the present interval of two offers, or one to come, differs by more than what their grid hides.

    The intervals of a plan that has come, or has run out, are other intervals.
    """
    if told is None or made.power_step_w != told.power_step_w:
        return True
    if _change(made.intervals[0], told.intervals[0], made.power_step_w):
        return True
    known = {one.start: one for one in told.intervals}
    for one in made.intervals[1:]:
        if one.start not in known:
            # The last of a row moves on by itself; of the next one all depends.
            if one is made.intervals[1]:
                return True
        elif len(known[one.start].curve) > 1 and _change(one, known[one.start], made.power_step_w):
            return True
    return False


def _change(one: OfferInterval, other: OfferInterval, step_w: float) -> bool:
    least_w, pairs = CHANGED_STEPS * step_w, (_powers(one), _powers(other))
    return len(pairs[0]) != len(pairs[1]) or any(abs(a - b) >= least_w for a, b in zip(*pairs, strict=True))


def _powers(interval: OfferInterval) -> tuple[float, ...]:
    return (interval.lower_w, interval.upper_w, *(point.power_w for point in interval.curve))

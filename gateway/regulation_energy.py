"""What regulation a site kept ready in an interval, what it was asked for and what it missed: for settlement.

Power in watts at the connection, load convention; what is asked is the change from the dispatch's base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.control.orders_in_force import DispatchInForce, OrdersInForce

AVERAGE_S: Final = 10
"""Both sides are averaged over the same time before they are compared."""

LEAST_KNOWN_S: Final = 5.0
"""Of such a time; less of the net power known counts as nothing done."""

LONGEST_STEP_S: Final = 10.0
"""What is seen holds until it is seen again; a longer gap is not counted."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What holds from one cycle to the next; `asked_w` is the change from the base."""

    at_s: float
    order_id: str
    base_w: float
    asked_w: float
    up_w: float
    down_w: float
    net_w: float | None


@dataclass(slots=True)
class _Window:
    """One stretch of `AVERAGE_S` of the clock: sums over time."""

    at: int
    orders: set[str] = field(default_factory=set)
    asked_ws: float = 0.0
    off_ws: float = 0.0
    seconds: float = 0.0
    known_s: float = 0.0


@dataclass(slots=True)
class RegulationEnergy:
    """One interval, seen cycle by cycle; what is told is empty where no capacity was reserved in it.

    A stretch in which a dispatch changed is not compared, for the base moves in it. Where the net power is not known,
    all that was asked counts as missed.
    """

    up_ws: float = 0.0
    down_ws: float = 0.0
    moved_w: float = 0.0
    asked_ws: float = 0.0
    missed_ws: float = 0.0
    reserved_s: float = 0.0
    _window: _Window | None = None
    _last: _Seen | None = None

    def take(self, utc_s: float, net_w: float | None, orders: OrdersInForce, now_s: float) -> None:
        """One cycle; `now_s` is the same moment on the orders' monotonic clock."""
        last, self._last = self._last, _seen(utc_s, net_w, orders, now_s)
        if last is None or not 0.0 < utc_s - last.at_s <= LONGEST_STEP_S:
            return
        if last.up_w or last.down_w:
            if self._last.order_id == last.order_id:
                self.moved_w += abs(self._last.asked_w - last.asked_w)
            dt_s = utc_s - last.at_s
            self.reserved_s += dt_s
            self.up_ws += last.up_w * dt_s
            self.down_ws += last.down_w * dt_s
        self._compare(last, utc_s)

    def _compare(self, held: _Seen, until_s: float) -> None:
        """Add what was asked and done to the stretches in which it held."""
        begin_s = held.at_s
        while begin_s < until_s:
            at = int(begin_s // AVERAGE_S)
            end_s = min(until_s, (at + 1.0) * AVERAGE_S)
            if self._window is None or self._window.at != at:
                self._close()
                self._window = _Window(at)
            window, dt_s = self._window, end_s - begin_s
            window.orders.add(held.order_id)
            if held.up_w or held.down_w:
                window.asked_ws += held.asked_w * dt_s
                window.seconds += dt_s
                if held.net_w is not None:
                    window.off_ws += (held.net_w - held.base_w - held.asked_w) * dt_s
                    window.known_s += dt_s
            begin_s = end_s

    def told(self) -> dict[str, Any] | None:
        """The sums so far, in watt hours, watts and seconds; None where no capacity was reserved."""
        self._close()
        if not (self.up_ws or self.down_ws):
            return None
        energies = {"up": self.up_ws, "down": self.down_ws, "asked": self.asked_ws, "missed": self.missed_ws}
        return {f"{name}_wh": round(value / 3600.0, 3) for name, value in energies.items()} | {
            "moved_w": round(self.moved_w, 1),
            "reserved_s": round(self.reserved_s, 1),
        }

    def _close(self) -> None:
        window, self._window = self._window, None
        if window is None or len(window.orders) > 1 or not window.seconds:
            return
        self.asked_ws += abs(window.asked_ws)
        if window.known_s < min(LEAST_KNOWN_S, window.seconds):
            self.missed_ws += abs(window.asked_ws)
        else:
            self.missed_ws += abs(window.off_ws) * window.seconds / window.known_s


def _seen(utc_s: float, net_w: float | None, orders: OrdersInForce, now_s: float) -> _Seen:
    dispatch = orders.dispatch
    if dispatch is None:
        return _Seen(utc_s, "", 0.0, 0.0, 0.0, 0.0, net_w)
    asked_w = _asked_w(dispatch, orders, now_s)
    reserved_w = dispatch.regulation_up_w, dispatch.regulation_down_w
    return _Seen(utc_s, dispatch.order_id, dispatch.net_power_w, asked_w, *reserved_w, net_w)


def _asked_w(dispatch: DispatchInForce, orders: OrdersInForce, now_s: float) -> float:
    """The change from base that the signal in force asks for; a signal above 0 lowers net power."""
    signal = orders.regulation
    if signal is None or now_s - signal.received_s > signal.lost_after_s:
        return 0.0
    capacity_w = dispatch.regulation_up_w if signal.signal >= 0.0 else dispatch.regulation_down_w
    return -signal.signal * capacity_w

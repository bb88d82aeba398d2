"""The operator at the site: hold, stop, limit and release, as orders with a source and a duration.

They come through the local socket, are acted on at once, journalled with fsync, and then answered, as a parent's are.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from config.messages import AckStatus, Down, LimitOrder
from config.vocabulary import Quantity, UtcClock
from gateway.journal import Journal
from gateway.orders.admission import Refused
from gateway.orders.book import OrderBook
from gateway.orders.held import Outcome
from gateway.orders.overrides import OPERATOR

LONGEST_S: Final = 366 * 86_400.0
_COMMANDS: Final = ("authority", "comply", "hold", "limit", "release", "stop")


@dataclass(frozen=True, slots=True)
class Operable:
    """What of a device an operator's order has to fit: its bounds by the site file, and whether it may be written."""

    min_w: float
    max_w: float
    controllable: bool


@dataclass(slots=True)
class OperatorDesk:
    """`present_w` gives a device's measured power, None where there is none; `wake` tells the cycle of an order.

    `conclude` is told of orders that another one ends.
    """

    book: OrderBook
    journal: Journal
    utc: UtcClock
    devices: Mapping[str, Operable]
    present_w: Callable[[str], float | None]
    wake: Callable[[str], None]
    conclude: Callable[[Outcome], None]
    _count: int = 0

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One command; its answer says what is in force now. Raises ValueError with a text for the operator."""
        command = request.get("command")
        if command == "authority" and request.get("parent") is None:
            return self._told("authority", self._who_dispatches(), None, {})
        try:
            match command:
                case "hold":
                    told = self._hold(request)
                case "stop":
                    told = self._stop(request)
                case "limit":
                    told = self._limit(request)
                case "release":
                    told = self._release(request)
                case "authority":
                    told = self._authority(request)
                case "comply":
                    words = self.book.compliance.command(request, self.book.clock())
                    told = self._told(self._next_id("comply"), words, None, {})
                case _:
                    raise ValueError(f"unknown command {command!r}; there are: {', '.join(_COMMANDS)}")
        except Refused as refused:
            raise ValueError(str(refused)) from refused
        self.wake(told["id"])
        failure = await self._journalled(told)
        return {**told, "warning": failure} if failure else told

    def _hold(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = self._device(request)
        power_w = _number(request, "power_w")
        if power_w is None:
            power_w = self.present_w(name)
            if power_w is None:
                raise ValueError(f"{name} has no good measured power now; say which power to hold")
        self._check_bounds(name, power_w)
        return self._override(request, {name: (power_w, power_w)}, f"hold {name} at {power_w:.0f} W")

    def _stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("device") is not None:
            name = self._device(request)
            return self._override(request, {name: (0.0, 0.0)}, f"stop {name}")
        names = [name for name, device in self.devices.items() if device.controllable]
        if not names:
            raise ValueError("the gateway writes to no device of this site")
        return self._override(request, dict.fromkeys(names, (0.0, 0.0)), f"stop {', '.join(names)}")

    def _limit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("device") is not None:
            return self._limit_device(request)
        try:
            quantity = Quantity(str(request.get("quantity")))
        except ValueError:
            raise ValueError(f"quantity: there are {', '.join(Quantity)}") from None
        value: float | str | None = request.get("value")
        if value != "unlimited":
            value = _number(request, "value")
        if value is None or (isinstance(value, float) and value < 0.0):
            raise ValueError("value: a magnitude of at least 0 is asked for, or unlimited")
        duration_s = _duration(request)
        issued = datetime.fromtimestamp(self.utc(), UTC)
        order_id = self._next_id("limit")
        order = LimitOrder.model_validate(
            {"id": order_id, "issued_at": issued, "quantity": quantity, "value": value, "duration_s": duration_s}
        )
        for outcome in self.book.take_limit(OPERATOR, order):
            if outcome.order_id != order_id:
                self.conclude(outcome)
        shown = value if isinstance(value, str) else f"{value:g}"
        return self._told(order_id, f"{quantity} at most {shown}", duration_s, order.model_dump(mode="json"))

    def _limit_device(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = self._device(request)
        device = self.devices[name]
        lower_w, upper_w = _number(request, "lower_w"), _number(request, "upper_w")
        if lower_w is None and upper_w is None:
            raise ValueError(f"{name}: give a lower bound, an upper bound, or both")
        lower_w = device.min_w if lower_w is None else lower_w
        upper_w = device.max_w if upper_w is None else upper_w
        if lower_w > upper_w:
            raise ValueError(f"{name}: {lower_w:.0f} W at least and {upper_w:.0f} W at most leave nothing")
        return self._override(request, {name: (lower_w, upper_w)}, f"keep {name} in {lower_w:.0f} to {upper_w:.0f} W")

    def _release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("meter"):
            self.book.meter_released = self._next_id("release-meter")
            return self._told(self.book.meter_released, "the operator says that the meter is good", None, {})
        name = None if request.get("device") is None else self._device(request)
        ended = self.book.release(name)
        if name is None:
            for outcome in self.book.withdraw(OPERATOR, "released by the operator"):
                self.conclude(outcome)
                ended.append(outcome.order_id)
        what = "nothing was held" if not ended else f"release {name or 'everything'}: {', '.join(ended)}"
        return self._told(self._next_id("release"), what, None, {})

    def _authority(self, request: Mapping[str, Any]) -> dict[str, Any]:
        parent, epoch = request.get("parent"), request.get("epoch")
        if epoch is not None and (isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch <= 2**53):
            raise ValueError("epoch: a whole number of at least 0 is asked for")
        for outcome in self.book.hand_over(str(parent), epoch):
            self.conclude(outcome)
        return self._told(self._next_id("authority"), self._who_dispatches(), None, {})

    def _who_dispatches(self) -> str:
        return f"{self.book.dispatcher or 'nobody'} dispatches, in epoch {self.book.epoch}"

    def _override(
        self, request: Mapping[str, Any], bounds_w: Mapping[str, tuple[float, float]], text: str
    ) -> dict[str, Any]:
        duration_s, order_id = _duration(request), self._next_id(str(request["command"]))
        for name, (lower_w, upper_w) in bounds_w.items():
            self.book.override(order_id, name, lower_w, upper_w, duration_s)
        return self._told(
            order_id, text, duration_s, {"bounds_w": {name: list(each) for name, each in bounds_w.items()}}
        )

    def _told(self, order_id: str, text: str, duration_s: float | None, message: Mapping[str, Any]) -> dict[str, Any]:
        ends = None if duration_s is None else datetime.fromtimestamp(self.utc(), UTC) + timedelta(seconds=duration_s)
        return {
            "id": order_id,
            "text": text,
            "until": None if ends is None else ends.isoformat(timespec="seconds"),
            "message": message,
        }

    def _device(self, request: Mapping[str, Any]) -> str:
        name = request.get("device")
        if not isinstance(name, str) or name not in self.devices:
            raise ValueError(f"{name}: no such device to control; there are {', '.join(self.devices)}")
        if not self.devices[name].controllable:
            raise ValueError(f"{name}: the gateway only reads this device")
        return name

    def _check_bounds(self, name: str, power_w: float) -> None:
        device = self.devices[name]
        if not device.min_w <= power_w <= device.max_w:
            raise ValueError(
                f"{name}: {power_w:.0f} W is outside of what the site file allows, "
                f"{device.min_w:.0f} to {device.max_w:.0f} W"
            )

    def _next_id(self, command: str) -> str:
        self._count += 1
        return f"{command}-{datetime.fromtimestamp(self.utc(), UTC):%Y%m%dT%H%M%S}-{self._count}"

    async def _journalled(self, told: Mapping[str, Any]) -> str:
        """Wait until the order is on disk; an empty text, or why it is not."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def written(failure: str) -> None:
            if not done.done():
                done.set_result(failure)

        self.journal.record_durably(
            "order",
            self.book.dump(),
            written,
            id=told["id"],
            kind=Down.LIMITS if "quantity" in told["message"] else "override",
            source=OPERATOR,
            status=AckStatus.ACCEPTED,
            reason=told["text"],
            received_s=self.book.clock(),
            message=told["message"],
            result=None,
        )
        return await done


def _number(request: Mapping[str, Any], key: str) -> float | None:
    value = request.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key}: a finite number is asked for")
    return float(value)


def _duration(request: Mapping[str, Any]) -> float | None:
    duration_s = _number(request, "duration_s")
    if duration_s is not None and not 0.0 < duration_s <= LONGEST_S:
        raise ValueError("duration_s: above 0 and at most a year")
    return duration_s

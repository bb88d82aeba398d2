"""The DSO twin's own writing of the messages downward, field by field, as docs/layer_interface.md describes them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from config.vocabulary import UtcClock
from sim_devices.dso.log import utc_text
from sim_devices.dso.script import DispatchStep, GiveOrder, LimitStep, OrderStep, RegulationStep


class Outgoing(NamedTuple):
    """One message: the last level of its topic, the id it bears, what is logged of it, and its bytes."""

    kind: str
    order_id: str | None
    message: dict[str, Any] | str
    payload: bytes


@dataclass
class Writer:
    """Makes messages for one run.

    `speed` is how many seconds of the script pass in one second: durations on the wire are those of the wall clock.
    Sequences begin at the time in seconds, so that they rise across restarts of the twin.
    """

    source: str
    rating_w: float
    run: str
    epoch: int = 1
    speed: float = 1.0
    utc_clock: UtcClock = time.time
    _heartbeats: int = field(init=False)
    _signals: int = field(init=False)

    def __post_init__(self) -> None:
        self._heartbeats = self._signals = int(self.utc_clock())

    def order(self, order: GiveOrder) -> Outgoing:
        """The order of one step of the script."""
        step = order.step
        if step.raw is not None:
            return Outgoing(step.raw.kind, None, step.raw.payload, step.raw.payload.encode())
        message = self._envelope(order)
        if step.limit is not None:
            message |= self._limit(step.limit)
        elif step.dispatch is not None:
            message |= self._dispatch(step.dispatch)
        elif step.authority is not None:
            epoch = self.epoch + step.authority.epoch_offset
            message |= {"parent": step.authority.parent or self.source, "epoch": epoch}
        message |= step.extra
        payload = json.dumps(message).encode()
        return Outgoing(step.kind, message["id"], message, payload + b" " * step.pad_bytes)

    def heartbeat(self) -> Outgoing:
        """The next life sign."""
        self._heartbeats += 1
        return self._plain("heartbeat", {"sequence": self._heartbeats, "issued_at": self._utc()})

    def signal(self, step: RegulationStep, value: float) -> Outgoing:
        """The next regulation signal."""
        self._signals += 1
        return self._plain(
            "regulation",
            {
                "epoch": self.epoch,
                "sequence": self._signals,
                "issued_at": self._utc(),
                "signal": value,
                "lost_after_s": step.lost_after_s / self.speed,
            },
        )

    def order_id(self, step: OrderStep) -> str:
        """The id of a step's order: its name and the run, so that no two runs share one."""
        return f"{step.id_of or step.name}-{self.run}"

    def _envelope(self, order: GiveOrder) -> dict[str, Any]:
        step = order.step
        envelope: dict[str, Any] = {"id": self.order_id(step), "issued_at": self._utc(-step.age_s)}
        if step.age_s:
            envelope["start"] = envelope["issued_at"]
        if step.duration_s is not None:
            envelope["duration_s"] = step.duration_s
        elif order.until_s is not None:
            # At least a millisecond: an order that waited for the broker until its own end still goes out.
            envelope["duration_s"] = max(0.001, round((order.until_s - order.at_s) / self.speed, 3))
        return envelope

    def _limit(self, step: LimitStep) -> dict[str, Any]:
        value = step.value if step.value_pu is None else step.value_pu * self.rating_w
        on_end = {} if step.on_end is None else {"on_end": step.on_end}
        return {"quantity": step.quantity, "value": value} | on_end

    def _dispatch(self, step: DispatchStep) -> dict[str, Any]:
        message: dict[str, Any] = {
            "epoch": self.epoch + step.epoch_offset,
            "net_power_w": step.net_power_pu * self.rating_w,
            "regulation_up_w": step.regulation_up_pu * self.rating_w,
            "regulation_down_w": step.regulation_down_pu * self.rating_w,
        }
        if step.ramp_pu_per_s is not None:
            message["ramp_w_per_s"] = step.ramp_pu_per_s * self.rating_w * self.speed
        if step.lambda_per_kwh is not None:
            message["lambda_per_kwh"] = step.lambda_per_kwh
        return message

    def _utc(self, offset_s: float = 0.0) -> str:
        return utc_text(self.utc_clock() + offset_s)

    @staticmethod
    def _plain(kind: str, message: dict[str, Any]) -> Outgoing:
        return Outgoing(kind, None, message, json.dumps(message).encode())

"""What faults make of a parent's messages (docs/layer_interface.md), as JSON objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from config.messages import MAX_POWER_W, RFC_3339, Down
from sim_devices.faults.fault_set import ActiveFault

Said: TypeAlias = dict[str, Any]
"""One message."""

Extra: TypeAlias = list[tuple[str, Said]]
"""Messages that follow it, each with the end of its topic."""

_TIMES: Final = ("issued_at", "start")
_OTHER_QUANTITIES_W: Final = 1000.0


@dataclass(slots=True)
class ParentMemory:
    """What was heard of the parents: the epoch of each in use."""

    epochs: dict[str, int] = field(default_factory=dict)


def changed_order(active: ActiveFault, source: str, kind: str, said: Said, memory: ParentMemory) -> tuple[Said, Extra]:
    """What arrives of a message of `source`, and what follows it."""
    epoch = said.get("epoch")
    if isinstance(epoch, int):
        memory.epochs[source] = epoch
    change = _CHANGES.get(active.name)
    return (said, []) if change is None else change(active, kind, said, memory.epochs.get(source, 0))


def _contradicted(active: ActiveFault, kind: str, said: Said, epoch: int) -> tuple[Said, Extra]:
    if kind == Down.DISPATCH and isinstance(said.get("net_power_w"), int | float):
        return said, [(kind, said | {"net_power_w": -said["net_power_w"]})]
    if kind != Down.LIMITS:
        return said, []
    following: Extra = [(kind, said | {"value": "unlimited"})]
    value, quantity = said.get("value"), said.get("quantity")
    if isinstance(value, int | float) and quantity in ("net_import_w", "net_export_w"):
        beyond_w = min(2.0 * value + _OTHER_QUANTITIES_W, MAX_POWER_W)
        order: Said = {key: said[key] for key in ("issued_at", "start", "duration_s") if key in said}
        order |= {"id": f"{said.get('id', '')}-against"[:64], "epoch": epoch}
        net_power_w = beyond_w if quantity == "net_import_w" else -beyond_w
        following.append((Down.DISPATCH, order | {"net_power_w": net_power_w}))
    return said, following


def _of_the_past(active: ActiveFault, kind: str, said: Said, epoch: int) -> tuple[Said, Extra]:
    told = said.get("epoch")
    if kind not in (Down.DISPATCH, Down.REGULATION) or not isinstance(told, int):
        return said, []
    return said | {"epoch": max(0, told - int(active.number("by")))}, []


def _shifted(said: Said, by_s: float) -> Said:
    """A message by a clock that is `by_s` ahead."""
    changed = dict(said)
    for name in _TIMES:
        text = said.get(name)
        if isinstance(text, str) and RFC_3339.fullmatch(text):
            try:
                changed[name] = (datetime.fromisoformat(text) + timedelta(seconds=by_s)).isoformat()
            except (ValueError, OverflowError):
                continue
    return changed


def _clock_off(active: ActiveFault, kind: str, said: Said, epoch: int) -> tuple[Said, Extra]:
    return _shifted(said, active.number("offset_s")), []


def _clock_back(active: ActiveFault, kind: str, said: Said, epoch: int) -> tuple[Said, Extra]:
    return _shifted(said, -active.number("step_s")), []


_CHANGES: Final[Mapping[str, Callable[[ActiveFault, str, Said, int], tuple[Said, Extra]]]] = {
    "contradictory_orders": _contradicted,
    "stale_epoch": _of_the_past,
    "clock_off": _clock_off,
    "clock_back": _clock_back,
}

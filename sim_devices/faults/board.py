"""Proxies by the names of what is behind them: sets, clears and shows faults for whoever asks, whatever the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from sim_devices.faults.fault import FaultError, Target, make_fault
from sim_devices.faults.fault_set import FaultNumbers, FaultSet
from sim_devices.faults.registry import FAULTS


class Proxy(Protocol):
    """What is asked of a proxy."""

    faults: FaultSet

    def state(self) -> dict[str, Any]:
        """What it does and has seen."""
        ...


class Placed(NamedTuple):
    """Something that faults can be set on, and the proxy in front of it."""

    target: Target
    proxy: Proxy


class FaultBoard:
    """All that faults can be set on, by name. `without` are names that can't, each with the reason.

    Every call raises FaultError for what can't be done; the text says what is allowed.
    """

    def __init__(self, placed: Mapping[str, Placed], without: Mapping[str, str] | None = None) -> None:
        self.placed = dict(placed)
        self._numbers = FaultNumbers()
        for each in self.placed.values():
            each.proxy.faults.numbers = self._numbers
        self._without = dict(without or {})

    def check(self, device: Any, fault: Any, parameters: Any = None) -> None:
        """Whether this fault could be set."""
        make_fault(fault, self._named(device).target, _options(parameters))

    def set(self, device: Any, fault: Any, parameters: Any = None) -> int:
        """Set a fault; its id, which no other fault of this board has had."""
        target, proxy = self._named(device)
        return proxy.faults.set_by(fault, _options(parameters), target).id

    def clear(self, device: Any = None, what: Any = None) -> int:
        """Clear the fault of that id or name (None: all) on a device (None: on all); how many were in force.

        What was never set by that id, and a name that is none of a fault, are refused.
        """
        if isinstance(what, bool) or not (what is None or isinstance(what, int | str)):
            raise FaultError(f"clear: expected the name of a fault, its id, or all, not {what!r}")
        what = None if what == "all" else what
        if isinstance(what, str) and what not in FAULTS:
            raise FaultError(f"no fault {what!r}; there are {', '.join(FAULTS)}")
        if isinstance(what, int) and not 0 < what <= self._numbers.last:
            given = f"ids are 1 to {self._numbers.last}" if self._numbers.last else "none has been set"
            raise FaultError(f"no fault has the id {what}; {given}")
        if device is None:
            proxies = {id(placed.proxy): placed.proxy for placed in self.placed.values()}
            return sum(proxy.faults.clear(what) for proxy in proxies.values())
        target, proxy = self._named(device)
        return proxy.faults.clear(what, {target.name})

    def status(self) -> dict[str, Any]:
        """For each name its protocols, what its proxy has seen, with whom it shares that, and its faults."""
        devices: dict[str, Any] = {}
        for name, (target, proxy) in self.placed.items():
            others = [other for other, placed in self.placed.items() if placed.proxy is proxy and other != name]
            state = proxy.state()
            mine = [fault for fault in state.pop("faults") if fault["target"] == target.name]
            shares = {"shares_with": others} if others else {}
            devices[name] = {"protocols": list(target.protocols), **state, **shares, "faults": mine}
        return {"devices": devices}

    def _named(self, device: Any) -> Placed:
        found = self.placed.get(device) if isinstance(device, str) else None
        if found is not None:
            return found
        reason = self._without.get(device) if isinstance(device, str) else None
        raise FaultError(reason or f"no device {device!r}; there are {', '.join(self.placed) or 'none'}")


def _options(parameters: Any) -> Mapping[str, Any]:
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping) or not all(isinstance(key, str) for key in parameters):
        raise FaultError(f"parameters: expected names and values, not {parameters!r}")
    return parameters

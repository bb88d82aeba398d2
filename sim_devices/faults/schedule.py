"""What a scenario says about faults: which begins or ends when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim_devices.faults.fault import FaultError


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """A fault that begins `at_s` seconds after a schedule's start; with `clear` it ends then, None being all."""

    at_s: float
    device: str
    fault: str | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    clear: bool = False

    @classmethod
    def parse(cls, said: Any) -> FaultEvent:
        """Read `{"at", "device", "fault", "parameters"}` or `{"at", "device", "clear"}`; raises FaultError."""
        if (
            not isinstance(said, Mapping)
            or not {"at", "device"} <= said.keys()
            or ("fault" in said) == ("clear" in said)
        ):
            raise FaultError(f"expected at, device, and either fault or clear, not {said!r}")
        unknown = sorted(said.keys() - {"at", "device", "fault", "parameters", "clear"})
        at_s, cleared = said["at"], said.get("clear")
        if unknown or isinstance(at_s, bool) or not isinstance(at_s, int | float) or not at_s >= 0:
            raise FaultError(
                f"at: expected seconds from 0 on, not {at_s!r}" if not unknown else f"unknown: {', '.join(unknown)}"
            )
        if "clear" in said:
            return cls(float(at_s), said["device"], None if cleared == "all" else cleared, {}, clear=True)
        return cls(float(at_s), said["device"], said["fault"], said.get("parameters") or {})

"""The nouns that every part of Lamina uses, with the standard library alone.

Sign: load convention. Power into a component is positive (import, charging, consuming); export, discharging and
generating are negative. Units stand in names. Times ending in `_s` that mark an instant are monotonic seconds of the
injected clock, never wall-clock time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, IntEnum, StrEnum
from typing import Final, NamedTuple, Protocol, TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Returns monotonic seconds."""

UtcClock: TypeAlias = Callable[[], float]
"""Returns wall-clock seconds since the epoch, UTC."""


class Quality(IntEnum):
    """How far a sample may be trusted; the order matters: `min` of two qualities is the quality of their sum."""

    BAD = 0
    UNCERTAIN = 1
    GOOD = 2


SampleValue: TypeAlias = float | str | None


class Sample(NamedTuple):
    """One value of a point: number or text (None when bad), its quality and the monotonic time of its measurement."""

    value: SampleValue
    quality: Quality
    measured_s: float


class SampleLayer(Mapping[str, Sample]):
    """Samples of points that are always measured together, which may be decoded when they are asked for.

    `names` are the points, the same object for each measurement of them, so that a newer layer is known to replace an
    older one without a look at either.
    """

    __slots__ = ("names",)

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


class Absent(Enum):
    """What a limit says when it is not a number. Zero is a number and means no power."""

    UNLIMITED = "unlimited"
    UNKNOWN = "unknown"


LimitValue: TypeAlias = float | Absent


class Quantity(StrEnum):
    """The quantities a limit may name; the value is in the unit that ends the name, a magnitude of at least 0."""

    NET_IMPORT_W = "net_import_w"
    NET_EXPORT_W = "net_export_w"
    GENERATION_W = "generation_w"
    LOAD_W = "load_w"
    CONTROLLABLE_LOAD_W = "controllable_load_w"
    CURRENT_PER_PHASE_A = "current_per_phase_a"


class DeviceKind(StrEnum):
    """What a device is to control."""

    METER = "meter"
    INVERTER = "inverter"
    BATTERY = "battery"
    CHARGER = "charger"
    RELAY = "relay"
    LAYER = "layer"


class ChargingState(StrEnum):
    """IEC 61851-1 annex A: no vehicle, connected, charging, charging with ventilation, no supply, fault."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"
    F = "F"


class LinkState(StrEnum):
    CONNECTING = "connecting"
    UP = "up"
    LOST = "lost"


class WriteStatus(StrEnum):
    """What became of a write. INDETERMINATE: no answer came, so the device may hold the old or the new value."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    INDETERMINATE = "indeterminate"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


class WritePriority(IntEnum):
    """Order of service on a link; lower goes first. Every write goes before every poll."""

    FAIL_SAFE = 0
    SETPOINT = 1
    FAST_POLL = 2
    SLOW_POLL = 3


class Setpoint(NamedTuple):
    """The active power asked of one device, load convention, with its cause and expiry (monotonic).

    `lambda_per_kwh`: the price at which the share was cleared, for a layer below; None: there was none.
    """

    device: str
    power_w: float
    cause: str
    expires_s: float
    sequence: int
    priority: WritePriority = WritePriority.SETPOINT
    lambda_per_kwh: float | None = None


class WriteResult(NamedTuple):
    """What became of one setpoint; `at_s` is when the last register was acknowledged or the write given up."""

    device: str
    sequence: int
    status: WriteStatus
    at_s: float
    detail: str = ""


class FieldSink(Protocol):
    """Where drivers deliver: the gateway's side of the process image. Every call returns at once and never raises."""

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        """Newest samples by point name; points that are not named keep their last sample.

        What is given is never changed afterwards and may be kept.
        """

    def write_result(self, result: WriteResult) -> None:
        """The fate of a setpoint given to `Driver.write`; exactly one for each."""

    def link_state(self, link: str, state: LinkState, reason: str) -> None:
        """A transition of a link, told once; on LOST every device of that link is lost."""

    def device_state(self, device: str, present: bool, reason: str) -> None:
        """A device that is absent, or back, on a link that may be up; told once for each transition."""


# Point names that control reads. A profile may define more; these have a meaning of their own.
POWER_W: Final = "power_w"
VOLTAGE_V: Final = "voltage_v"
FREQUENCY_HZ: Final = "frequency_hz"
SOC: Final = "soc"
CHARGING_STATE: Final = "charging_state"
ENERGY_IMPORT_WH: Final = "energy_import_wh"
ENERGY_EXPORT_WH: Final = "energy_export_wh"
SESSION_ENERGY_WH: Final = "session_energy_wh"
CURRENT_A_BY_PHASE: Final = ("current_l1_a", "current_l2_a", "current_l3_a")
SETPOINT_READBACK_W: Final = "setpoint_readback_w"
MAX_CHARGE_W: Final = "max_charge_w"
MAX_DISCHARGE_W: Final = "max_discharge_w"
HEARTBEAT: Final = "heartbeat"

# What a layer below says of itself: its offer for the present interval, the state of its compliance, and what its
# parent's driver has noticed of others who command it.
OFFER_CURVE: Final = "offer_curve"
"""Text: a JSON array of [price per kWh, net power in W], prices ascending, power not rising."""
OFFER_LOWER_W: Final = "offer_lower_w"
OFFER_UPPER_W: Final = "offer_upper_w"
OFFER_RESPONSE_S: Final = "offer_response_s"
ENERGY_UP_WH: Final = "energy_up_wh"
ENERGY_DOWN_WH: Final = "energy_down_wh"
COMPLIANCE: Final = "compliance"
AUTHORITY: Final = "authority"
AUTHORITY_HELD: Final = "held"
"""The value of the point `authority` while the layer takes our dispatches."""
BYPASS: Final = "bypass"
"""Text: who else commands it, as far as is known; empty: nobody."""

"""One connector of a charger: a device to Lamina, with what it pushes, what it is told, and its transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from ocpp.v16.enums import ChargePointStatus

from config.vocabulary import Quality, Sample
from drivers.commands import current_a, resolved_power_w
from drivers.encoding import EncodeError
from drivers.ocpp.charging_profile import AMPERES, WATTS, Limit
from drivers.ocpp.meter_values import Metering, value_at
from drivers.pushed import PushedDevice
from drivers.reading import TypedCodec
from drivers.writer import DeviceWriter, Encoded

if TYPE_CHECKING:
    from config.profile import OcppAddress
    from config.site import OcppConnector
    from config.vocabulary import Clock, FieldSink
    from drivers.binding import DeviceBinding
    from drivers.commands import Command
    from drivers.driver import LinkStats

# Section 4.9: in these nothing is supplied. Faulted isn't among them: nobody knows what a fault supplies.
_IDLE: Final = frozenset(
    {
        ChargePointStatus.available.value,
        ChargePointStatus.preparing.value,
        ChargePointStatus.suspended_ev.value,
        ChargePointStatus.suspended_evse.value,
        ChargePointStatus.finishing.value,
        ChargePointStatus.reserved.value,
        ChargePointStatus.unavailable.value,
    }
)
_JUST_DONE: Final = ("clear_limit", "remote_start", "remote_stop")
_REGISTER: Final = "Energy.Active.Import.Register"


class Point(NamedTuple):
    """One point of the profile."""

    name: str
    address: OcppAddress
    codec: TypedCodec


class Transaction(NamedTuple):
    """A transaction; `meter_start_wh` is None where it began before we knew."""

    number: int
    meter_start_wh: float | None


class Capability(NamedTuple):
    """What a charger says of its smart charging (section 9.4): whether it takes amperes, and its highest level."""

    amperes: bool = True
    stack_level: int = 1


class Connector:
    """What is known of one connector, across the connections of its charger.

    Status points stand until the next StatusNotification, and are renewed by each sign of life. Measured points have
    the time of their measurement. While the status says that nothing is supplied and no meter values come, those with
    `while_idle` have that value, with each sign of life.
    """

    def __init__(
        self, binding: DeviceBinding, address: OcppConnector, sink: FieldSink, stats: LinkStats, clock: Clock
    ) -> None:
        self.binding = binding
        self.address = address
        self.number = address.connector
        self.points = [
            Point(name, point.ocpp, TypedCodec(point, text=point.ocpp.status))
            for name, point in binding.profile.points.items()
            if point.ocpp is not None
        ]
        held = [point.name for point in self.points if point.address.status]
        self.pushed = PushedDevice(binding, sink, stats, clock, held)
        self.writer = DeviceWriter(binding, sink, stats, clock, self.encoded)
        self.transaction: Transaction | None = None
        self.is_due = False
        self.has_fallback = self.safe_limit(Capability()) is not None
        self.sample_interval_s = max(round(binding.profile.pace.publishing_interval_s), 1)
        self._by_name = {point.name: point for point in self.points}
        self._clock = clock
        self._stats = stats
        self._status = ""
        self._metered_s = float("-inf")
        self._ended: int | None = None

    @property
    def measurands(self) -> list[str]:
        """What the charger has to sample, in the profile's order."""
        named = [point.address.measurand for point in self.points if point.address.measurand is not None]
        energy = [_REGISTER] if any(point.address.transaction_energy for point in self.points) else []
        return list(dict.fromkeys([*named, *energy]))

    def encoded(self, command: Command) -> Encoded:
        """What is sent for a command; raises EncodeError."""
        point = self._by_name[command.point]
        if point.address.command is None:
            raise EncodeError(f"{command.point} is no command")
        if point.address.command in _JUST_DONE and command.value != 1:
            raise EncodeError(f"{command.point} is done by 1, not by {command.value:g}")
        return Encoded(command.point, point.codec.encode(command.value))

    def command_of(self, point: str) -> str:
        """The command behind a point."""
        return self._by_name[point].address.command or ""

    # What the charger says

    def lives(self, fresh: Mapping[str, Sample]) -> None:
        """Something came from the charger, with these samples in it."""
        now = self._clock()
        told = dict(fresh)
        if self._status in _IDLE and now - self._metered_s > 2 * self.sample_interval_s:
            for point in self.points:
                if point.address.while_idle is not None and point.name not in told:
                    told[point.name] = _sample(point.codec.decode(point.address.while_idle), now)
        if self.pushed.update(told, alive=True):
            self.writer.repeat()

    def has_status(self, status: str) -> dict[str, Sample]:
        """A StatusNotification."""
        self._status = status
        if status == ChargePointStatus.available.value:
            self.ends(None)
        now = self._clock()
        profiles = self.binding.profile.points
        fresh = {}
        for point in self.points:
            if point.address.status:
                meanings = profiles[point.name].values
                known = meanings is None or status in meanings
                fresh[point.name] = _sample(point.codec.decode(status) if known else None, now)
        return fresh

    def has_measured(self, metering: Metering) -> dict[str, Sample]:
        """Meter values: the points that are among them, bad where a value is no number or out of range."""
        measured_s = self._clock() - metering.age_s
        fresh: dict[str, Sample] = {}
        for point in self.points:
            if point.address.measurand is not None:
                found, raw = value_at(point.address, metering.readings)
            elif point.address.transaction_energy:
                found, raw = self._transaction_energy(point.address, metering)
            else:
                continue
            if found:
                sample = fresh[point.name] = _sample(None if raw is None else point.codec.decode(raw), measured_s)
                self._stats.good += sample.quality is not Quality.BAD
                self._stats.rejected += sample.quality is Quality.BAD
        if fresh:
            self._metered_s = measured_s
        return fresh

    def begins(self, number: int, meter_start_wh: float | None) -> None:
        """A transaction runs; its limit goes out anew, for itself."""
        if number == self._ended or (self.transaction is not None and self.transaction.number == number):
            return
        self.transaction = Transaction(number, meter_start_wh)
        self.is_due = True

    def ends(self, number: int | None) -> None:
        """The transaction has ended (None: whichever it is), and its charging profile with it."""
        if self.transaction is not None and number in (None, self.transaction.number):
            self._ended = self.transaction.number
            self.transaction = None
            self.is_due = True

    def is_answered(self) -> None:
        """What the charger said has been answered: a setpoint that it has made due may go out, and not before."""
        if self.is_due:
            self.is_due = False
            self.writer.repeat()

    def forgets(self) -> None:
        """The connection is gone: what the charger said may have changed before it comes back."""
        self._status = ""
        self._metered_s = float("-inf")

    def _transaction_energy(self, address: OcppAddress, metering: Metering) -> tuple[bool, float | None]:
        register = address.model_copy(update={"measurand": _REGISTER})
        found, now_wh = value_at(register, metering.readings)
        start_wh = self.transaction.meter_start_wh if self.transaction is not None else None
        if not found or self.transaction is None:
            return False, None
        return True, None if now_wh is None or start_wh is None else now_wh - start_wh

    # What the charger is told

    def safe_limit(self, capability: Capability) -> Limit | None:
        """What the charger is to fall back to by itself: its profile's value on silence, as its current."""
        control, silence = self.binding.profile.control, self.binding.profile.on_silence
        if control is None or not self.binding.writable or silence.behaviour != "value" or silence.value_w is None:
            return None
        power_w = resolved_power_w(control, silence.value_w, self.binding.rating_w)
        if capability.amperes:
            return Limit(AMPERES, current_a(control, power_w, self.binding), self.binding.phases)
        return Limit(WATTS, max(power_w, 0.0), self.binding.phases)


def _sample(value: float | str | None, measured_s: float) -> Sample:
    return Sample(value, Quality.BAD if value is None else Quality.GOOD, measured_s)

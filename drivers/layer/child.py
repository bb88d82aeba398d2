"""One layer below: what it says becomes samples, what it is told goes through its dispatches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from pydantic import ValidationError

from config.messages import MAX_PAYLOAD_BYTES, Acknowledgement, Heartbeat, Offer, Telemetry, Up
from config.vocabulary import AUTHORITY_HELD, Quality, Sample, SampleValue
from drivers.layer.dispatches import Dispatches
from drivers.layer.offers import OfferBook, OfferRefused, curve_text
from drivers.layer.stamps import StampClock
from drivers.pushed import PushedDevice

if TYPE_CHECKING:
    from config.profile import LayerAddress
    from config.site import ChildLayer
    from config.vocabulary import Clock, FieldSink, UtcClock
    from drivers.binding import DeviceBinding
    from drivers.driver import LinkStats

ECHO_LATE_S: Final = 2.0
"""Telemetry of this long after an accepted dispatch must repeat it: it comes each second."""

_QUALITY: Final = {"good": Quality.GOOD, "uncertain": Quality.UNCERTAIN, "bad": Quality.BAD}
_LONGEST_TEXT: Final = 200


class Child:
    """One layer of a link. Points are what the profile names; a message that can't be used is counted as rejected.

    A telemetry message newer than the last is the sign of life, and renews what is offered for now: an offer that has
    expired, or an interval that has ended, leaves bad samples in its place.
    """

    def __init__(
        self,
        binding: DeviceBinding,
        address: ChildLayer,
        epoch: int,
        sink: FieldSink,
        stats: LinkStats,
        clock: Clock,
        utc: UtcClock,
    ) -> None:
        self.address = address
        self.pushed = PushedDevice(binding, sink, stats, clock, ())
        timeout_s = binding.profile.pace.timeout_s
        self.dispatches = Dispatches(binding.name, address.source, epoch, timeout_s, sink, stats, clock, utc)
        self._points = {name: point.layer for name, point in binding.profile.points.items() if point.layer is not None}
        self._ranges = {name: point.range for name, point in binding.profile.points.items() if point.range is not None}
        self._stats, self._clock, self._utc = stats, clock, utc
        self._stamps = StampClock(clock)
        self._offers = OfferBook()
        self._issued_at: datetime | None = None
        self._beat: int | None = None
        self._bypass = ""
        self._log = structlog.get_logger("drivers.layer").bind(layer=address.layer, device=binding.name)

    def link_lost(self, reason: str) -> None:
        """The connection is gone, and what was heard over it."""
        self._forget()
        self.pushed.link_lost(reason)

    def take(self, kind: Up, payload: bytes) -> None:
        """One message of the layer's; never raises for what it holds."""
        if kind is Up.OFFER:
            self._take_offer(payload)
            return
        schemas: Mapping[Up, type[Telemetry] | type[Acknowledgement] | type[Heartbeat]] = {
            Up.TELEMETRY: Telemetry,
            Up.ACKNOWLEDGEMENT: Acknowledgement,
            Up.HEARTBEAT: Heartbeat,
        }
        try:
            if len(payload) > MAX_PAYLOAD_BYTES:
                raise ValueError(f"{len(payload)} bytes")
            message = schemas[kind].model_validate_json(payload)
        except (ValidationError, ValueError) as error:
            self._reject(kind, str(error).splitlines()[0])
            return
        if isinstance(message, Telemetry):
            self._take_telemetry(message)
        elif isinstance(message, Acknowledgement):
            before = self.dispatches.authority
            self.dispatches.acknowledged(message)
            if self.dispatches.authority != before:
                self._tell_authority()
        else:
            self._take_heartbeat(message)

    def offered(self) -> Offer | None:
        """The offer that has an interval for now, while authority is held and the layer is heard."""
        found = self._offers.now(self._now())
        held = self.dispatches.authority == AUTHORITY_HELD and self.pushed.present
        return found[0] if found is not None and held else None

    def reject_retained(self, kind: Up) -> None:
        """Nothing of the interface may be kept by a broker."""
        self._reject(kind, "retained")

    def _take_offer(self, payload: bytes) -> None:
        held_since = self.dispatches.held_since
        try:
            if held_since is None or self.dispatches.authority != AUTHORITY_HELD:
                raise OfferRefused(f"made in an earlier epoch: authority is {self.dispatches.authority}")
            # The layer stamps both with the same clock, and offers anew when it has taken our authority.
            self._offers.take(payload, self._now(), held_since - timedelta(milliseconds=1))
        except OfferRefused as refusal:
            self._reject(Up.OFFER, str(refusal))
            return
        self._stats.good += 1
        if self.pushed.present:
            self.pushed.update(self._samples_of_offer(), alive=False)

    def _tell_authority(self) -> None:
        """At once: without it nothing is shared with the layer, and a lost one must not be counted on."""
        text = self.dispatches.authority[:_LONGEST_TEXT]
        found = {
            name: Sample(text, Quality.GOOD, self._clock())
            for name, address in self._points.items()
            if address.message == "authority"
        }
        if self.pushed.present:
            self.pushed.update(found, alive=False)

    def _take_heartbeat(self, beat: Heartbeat) -> None:
        """A sequence that fell: the layer has restarted. It is given its dispatch again."""
        before, self._beat = self._beat, beat.sequence
        if before is not None and beat.sequence < before:
            self._forget()
            self.pushed.gone("it has restarted")

    def _take_telemetry(self, message: Telemetry) -> None:
        if not self.pushed.present:
            # Its clock may have been set meanwhile.
            self._stamps.forget()
            self._issued_at = None
        if self._issued_at is not None and message.issued_at <= self._issued_at:
            self._reject(Up.TELEMETRY, "not newer than the one before it")
            return
        self._issued_at = message.issued_at
        self._stats.good += 1
        self._stamps.heard(message.issued_at)
        self._look_for_strangers(message)
        samples = self._samples_of_telemetry(message)
        samples |= self._samples_of_offer()
        self.pushed.update(samples, alive=True)

    def _samples_of_telemetry(self, message: Telemetry) -> dict[str, Sample]:
        issued_s = self._stamps.monotonic_s(message.issued_at)
        measured_s = issued_s if message.measured_at is None else self._stamps.monotonic_s(message.measured_at)
        found: dict[str, Sample] = {}
        for name, address in self._points.items():
            if address.message == "telemetry":
                value = _field(message, address)
                quality = Quality.GOOD if isinstance(value, str) else _QUALITY[message.quality]
                found[name] = self._sample(name, value, quality, measured_s)
            elif address.message == "dispatch":
                echo = message.dispatch_id
                asked_w = None if echo is None else self.dispatches.asked_w(echo)
                found[name] = self._sample(name, asked_w, Quality.GOOD, issued_s)
            elif address.message == "authority":
                found[name] = Sample(self.dispatches.authority[:_LONGEST_TEXT], Quality.GOOD, issued_s)
            elif address.message == "bypass":
                found[name] = Sample(self._bypass, Quality.GOOD, issued_s)
        return found

    def _samples_of_offer(self) -> dict[str, Sample]:
        now_s = self._clock()
        found = self._offers.now(self._now())
        held = found is not None and self.dispatches.authority == AUTHORITY_HELD
        self.dispatches.offer = found[0] if found is not None and held else None
        samples = {}
        for name, address in self._points.items():
            if address.message != "offer":
                continue
            value: SampleValue = None
            if found is not None and held:
                offer, interval = found
                if address.field == "curve":
                    value = curve_text(interval)
                elif address.field == "response_s":
                    value = offer.response_s
                else:
                    value = getattr(interval, address.field, None)
            samples[name] = self._sample(name, value, Quality.GOOD, now_s)
        return samples

    def _sample(self, name: str, value: SampleValue, quality: Quality, measured_s: float) -> Sample:
        if isinstance(value, float | int):
            low, high = self._ranges.get(name, (float("-inf"), float("inf")))
            value = float(value) if low <= value <= high else None
        return Sample(value, Quality.BAD if value is None else quality, measured_s)

    def _look_for_strangers(self, message: Telemetry) -> None:
        """Whether another dispatch than ours is in force, or was given under our name."""
        bypass = self.dispatches.stranger
        if self.dispatches.authority not in (AUTHORITY_HELD, "") and self.dispatches.authority.startswith("refused"):
            bypass = bypass or f"somebody else dispatches it; {self.dispatches.authority}"
        accepted = self.dispatches.accepted
        if not bypass and accepted is not None and message.issued_at > accepted[1] + timedelta(seconds=ECHO_LATE_S):
            echo = message.dispatch_id
            if echo is None:
                bypass = f"it no longer follows {accepted[0]}, nor another dispatch of ours"
            elif self.dispatches.asked_w(echo) is None:
                bypass = f"it follows {echo}, which this gateway did not give"
        if bypass != self._bypass:
            self._bypass = bypass[:_LONGEST_TEXT]
            if bypass:
                self._log.warning("commanded by another", reason=bypass)
            else:
                self._log.info("commanded by us alone again")

    def _forget(self) -> None:
        self._stamps.forget()
        self._offers.forget()
        self._issued_at, self._beat = None, None

    def _reject(self, kind: Up, reason: str) -> None:
        self._stats.rejected += 1
        self._log.warning("message refused", kind=kind.value, reason=reason[:_LONGEST_TEXT])

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._utc(), UTC)


def _field(message: Telemetry, address: LayerAddress) -> SampleValue:
    if address.field == "compliance":
        return message.compliance.state
    value: object = getattr(message, address.field, None)
    return value if isinstance(value, float | str) else None

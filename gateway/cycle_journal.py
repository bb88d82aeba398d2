"""What the cycles leave behind: rows of power and energy, changed bounds and modes, each decision if asked for."""

from __future__ import annotations

from pathlib import Path

import structlog

from config.vocabulary import UtcClock
from gateway.control.decision import Decision
from gateway.control.model import SiteModel
from gateway.cycle import CycleReport
from gateway.energy_record import EnergyRecord
from gateway.image import Image
from gateway.journal import Journal
from gateway.power_record import PowerRecord
from gateway.recording import Recorder, header
from gateway.recording_file import RecordingFile


class CycleJournal:
    """Takes each cycle's report once. `trace`: a row for every cycle; `recording`: where whole decisions are kept."""

    def __init__(
        self, journal: Journal, model: SiteModel, utc: UtcClock, *, trace: bool, recording: Path | None
    ) -> None:
        self._journal, self._model, self._utc, self._trace = journal, model, utc, trace
        self._power = PowerRecord()
        self._energy = EnergyRecord(model)
        self._path = recording
        self._recorder = None if recording is None else Recorder()
        self._recording: RecordingFile | None = None
        self._envelope: tuple[object, ...] = ()
        self._unmet: tuple[str, ...] = ()
        self._notices: tuple[str, ...] = ()
        self._mode = ""
        self._log = structlog.get_logger()

    def open(self) -> None:
        """Begin the recording, where one is asked for; OSError if it cannot be written."""
        if self._path is not None:
            self._recording = RecordingFile(self._path)
            self._recording.put(header(self._model))

    async def close(self) -> None:
        if self._recording is not None:
            await self._recording.close()

    def take(self, report: CycleReport, image: Image | None) -> None:
        """What of this cycle is worth a row."""
        decision = report.decision
        if self._recording is not None and self._recorder is not None and image is not None:
            self._recording.put(self._recorder.take(image, report.orders, decision))
        row = self._power.take(decision, report.orders)
        if row is not None:
            self._journal.record("power", **row)
        interval = self._energy.take(self._utc(), decision, image, report.orders)
        if interval is not None:
            self._journal.record("interval", **interval)
        self._changed_bounds(decision)
        self._changed_mode(report.orders.fallback_reason)
        self._changed_texts(decision)
        if self._trace:
            self._every_cycle(report)

    def last_interval(self, image: Image | None) -> None:
        """The begun interval of energy, when the gateway stops."""
        interval = self._energy.close(self._utc(), image)
        if interval is not None:
            self._journal.record("interval", **interval)

    def _changed_bounds(self, decision: Decision) -> None:
        envelope = decision.envelope
        target = envelope.target
        bounds = (envelope.lower, envelope.upper, target)
        if bounds == self._envelope:
            return
        self._envelope = bounds
        self._journal.record(
            "envelope",
            lower_w=envelope.lower.value_w,
            lower_source=envelope.lower.source,
            upper_w=envelope.upper.value_w,
            upper_source=envelope.upper.source,
            target_w=None if target is None else target.value_w,
            target_source=None if target is None else target.source,
        )

    def _changed_mode(self, reason: str) -> None:
        mode = "fallback" if reason else "normal"
        if mode != self._mode:
            self._mode = mode
            self._log.info("mode", mode=mode, reason=reason)
            self._journal.record("mode", state=mode, reason=reason)

    def _changed_texts(self, decision: Decision) -> None:
        """What cannot be met and what is to be known. The figures behind a colon change with every cycle."""
        unmet = tuple(text.split(":")[0] for text in decision.unmet)
        if unmet != self._unmet:
            self._unmet = unmet
            self._journal.record("unmet", reasons=decision.unmet)
        notices = tuple(text.split(":")[0] for text in decision.notices)
        if notices != self._notices:
            self._notices = notices
            self._journal.record("notices", notices=decision.notices)

    def _every_cycle(self, report: CycleReport) -> None:
        decision = report.decision
        self._journal.record(
            "cycle",
            net_w=decision.net_w,
            cycle_ms=round(report.duration_ms, 3),
            start_jitter_ms=None if report.jitter_ms is None else round(report.jitter_ms, 3),
            binding=decision.binding,
            setpoints={item.device: round(item.power_w, 1) for item in decision.setpoints},
            causes={item.device: item.cause for item in decision.setpoints},
        )

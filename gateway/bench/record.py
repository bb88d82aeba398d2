"""Records what a site's Modbus devices say: its drivers read as in the field, and every register seen goes to a file.

Nothing is written to any device. `sim_devices.recording` has the format.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Final

from config.profile import Profile
from config.site import Address, ModbusAddress, Site
from config.vocabulary import Clock, FieldSink, LinkState, Sample, WriteResult
from drivers.cancellation import ended
from drivers.driver import Driver
from drivers.heard import HeardRead
from gateway.composition import build_recorders, link_name
from sim_devices.recording import FORMAT, VERSION

WRITE_INTERVAL_S: Final = 0.5
HEADER_LINES: Final = 1
MOST_WAITING: Final = 50_000
"""Lines that wait for a disk that stands; beyond it the recording ends, rather than leaving any out."""


class RecordingFailedError(Exception):
    """Nothing can be recorded, or not any more; the text is for the user."""


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """What to record, and where to. `duration_s` None: until told to end."""

    site: Site
    profiles: Mapping[str, Profile]
    addresses: Mapping[str, Address]
    out: Path
    duration_s: float | None = None


@dataclass(slots=True)
class RecordSummary:
    """What has come of it, by device."""

    reads: dict[str, int] = field(default_factory=dict)
    exceptions: dict[str, int] = field(default_factory=dict)
    unanswered: dict[str, int] = field(default_factory=dict)

    @property
    def never_heard(self) -> list[str]:
        """Devices that have not given one register."""
        return [name for name, count in self.reads.items() if not count]


class _Nobody:
    """A sink that keeps nothing: what counts goes over the wire."""

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None: ...
    def write_result(self, result: WriteResult) -> None: ...
    def link_state(self, link: str, state: LinkState, reason: str) -> None: ...
    def device_state(self, device: str, present: bool, reason: str) -> None: ...


class _Lines:
    """Lines of JSON on their way to the file; a thread writes them, a portion at a time."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.written = 0
        """Lines in the file."""
        self._path = path
        self._file = file
        self._waiting: list[str] = []

    def put(self, line: Mapping[str, Any]) -> None:
        self._waiting.append(json.dumps(line, separators=(",", ":")) + "\n")

    async def write(self) -> None:
        """Write what waits, all of it or nothing. Raises RecordingFailedError."""
        waiting, self._waiting = self._waiting, []
        if len(waiting) > MOST_WAITING:
            raise RecordingFailedError("the disk is too slow; the recording ends here")
        try:
            await asyncio.to_thread(self._write, "".join(waiting).encode())
        except OSError as error:
            raise RecordingFailedError(f"{self._path}: {error.strerror}; the recording ends here") from error
        self.written += len(waiting)

    def _write(self, content: bytes) -> None:
        whole = self._file.tell()
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            # A line that is cut off would have the whole recording refused.
            self._file.truncate(whole)
            raise


class _Scribe:
    """Turns reads on the wire into lines, under the name of the device that the link and the unit belong to."""

    def __init__(self, addresses: Mapping[str, ModbusAddress], lines: _Lines, summary: RecordSummary) -> None:
        # Of several devices behind one unit, the first gives its name.
        backwards = list(addresses.items())[::-1]
        self._by_unit = {(link_name(at), at.unit): name for name, at in backwards}
        self._by_link = {link_name(at): name for name, at in backwards}
        self._lines = lines
        self._summary = summary
        self._began_s = 0.0
        self._began_utc_s = 0.0
        self.ended = False

    def begin(self, site: str, began_s: float, began_utc_s: float) -> None:
        """The first line."""
        self._began_s, self._began_utc_s = began_s, began_utc_s
        began = {"began_monotonic_s": began_s, "began_utc": _utc(began_utc_s)}
        self._lines.put({"recording": FORMAT, "version": VERSION, "site": site, **began})

    def heard(self, link: str, read: HeardRead) -> None:
        """One read, with whatever answer."""
        if self.ended:
            return
        device = self._by_unit.get((link, read.unit)) or self._by_link[link]
        line: dict[str, Any] = {
            "monotonic_s": round(read.at_s, 6),
            "utc": _utc(self._began_utc_s + read.at_s - self._began_s),
            "device": device,
            "unit": read.unit,
            "table": read.table,
            "first": read.first,
        }
        if read.words is not None:
            counts = self._summary.reads
            line["words"] = [int.from_bytes(read.words[at : at + 2], "big") for at in range(0, len(read.words), 2)]
        elif read.exception is not None:
            counts = self._summary.exceptions
            line |= {"count": read.count, "exception": read.exception}
        else:
            counts = self._summary.unanswered
            line |= {"count": read.count, "answered": False}
        counts[device] = counts.get(device, 0) + 1
        self._lines.put(line)


async def record(
    request: RecordRequest,
    stop: asyncio.Event,
    *,
    sink: FieldSink | None = None,
    clock: Clock = time.monotonic,
    utc: Clock = time.time,
) -> RecordSummary:
    """Record until the duration is over or `stop` is set; raises RecordingFailedError.

    The file must not be there yet: a recording is not made twice. One that ends by a failure is whole up to there; one
    without a single read is not left behind. `sink` is given what the drivers make of it.
    """
    addresses = {name: at for name, at in request.addresses.items() if isinstance(at, ModbusAddress)}
    if not addresses:
        raise RecordingFailedError(f"{request.site.site} has no Modbus device")
    summary = RecordSummary(reads=dict.fromkeys(addresses, 0))
    try:
        file = FileIO(request.out, "x")
    except FileExistsError:
        raise RecordingFailedError(f"{request.out}: is there already") from None
    except OSError as error:
        raise RecordingFailedError(f"{request.out}: {error.strerror}") from error
    lines = _Lines(request.out, file)
    try:
        scribe = _Scribe(addresses, lines, summary)
        scribe.begin(request.site.site, clock(), utc())
        drivers = build_recorders(
            request.site, request.profiles, sink or _Nobody(), clock, request.addresses, scribe.heard
        )
        await _read_all(request, drivers, scribe, lines, stop)
        await lines.write()
    finally:
        file.close()
        if lines.written <= HEADER_LINES:
            request.out.unlink(missing_ok=True)
    return summary


async def _read_all(
    request: RecordRequest, drivers: Sequence[Driver], scribe: _Scribe, lines: _Lines, stop: asyncio.Event
) -> None:
    tasks = [asyncio.create_task(driver.run(), name=f"link {driver.name}") for driver in drivers]
    period_s = request.site.control.period_ms / 1000.0
    loop = asyncio.get_running_loop()
    began_s = write_s = loop.time()
    try:
        while request.duration_s is None or loop.time() - began_s < request.duration_s:
            for task, driver in zip(tasks, drivers, strict=True):
                if task.done():
                    # A driver that ends by itself is a defect, and silence would look like the device's.
                    task.result()
                driver.poll()
            if loop.time() >= write_s:
                await lines.write()
                write_s = loop.time() + WRITE_INTERVAL_S
            # A missed poll is skipped, not queued.
            until_next_s = period_s - (loop.time() - began_s) % period_s
            if await _is_set(stop, until_next_s):
                return
    finally:
        # What is under way when it ends is no silence of the device.
        scribe.ended = True
        await ended(tasks)


async def _is_set(stop: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await stop.wait()
    except TimeoutError:
        return False
    return True


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

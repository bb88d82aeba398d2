"""The bench's own measurement: what the physics did at each step, as a CSV file."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Final

from sim_devices.models import BatteryModel
from sim_devices.physics import SitePhysics

WRITE_INTERVAL_S: Final = 1.0
ROWS_AT_ONCE: Final = 1000
MAX_WAITING_ROWS: Final = 60_000
"""Ten minutes at 100 rows a second, should the disk stop; rows beyond are dropped and counted."""


class Trace:
    """One row per physics step: `monotonic_s,net_w,load_w,voltage_v,<device>_w...,<battery>_soc...`.

    `monotonic_s` is the clock of the step, shared by all processes of the host; `net_w` the power at the connection
    point (import positive), `voltage_v` the mean of its phases. Rows are written by a thread, or without `own_thread`
    by `add`, many at once. Raises OSError when the file can't be made; an error of the thread ends the writing and is
    kept in `error`.
    """

    def __init__(self, path: Path, physics: SitePhysics, *, own_thread: bool = True) -> None:
        self.error: OSError | None = None
        self.dropped = 0
        self._physics = physics
        self._devices = (*physics.devices.values(), *physics.real.values())
        self._batteries = tuple(model for model in physics.devices.values() if isinstance(model, BatteryModel))
        self._rows: deque[tuple[float, ...]] = deque()
        self._stop = threading.Event()
        columns = ["monotonic_s", "net_w", "load_w", "voltage_v"]
        columns += [f"{device.name}_w" for device in self._devices]
        columns += [f"{battery.name}_soc" for battery in self._batteries]
        self._format = ",".join(["%.4f", "%.2f", "%.2f", "%.3f"] + ["%.2f"] * len(self._devices))
        self._format += ",%.8f" * len(self._batteries) + "\n"
        self._file = path.open("w", encoding="ascii")
        self._file.write(",".join(columns) + "\n")
        self._thread = threading.Thread(target=self._write_forever, name=f"trace {path.name}") if own_thread else None
        if self._thread is not None:
            self._thread.start()

    def add(self) -> None:
        """Take down the state after a step."""
        if self._thread is None:
            if len(self._rows) >= ROWS_AT_ONCE:
                self._write_waiting()
        elif len(self._rows) >= MAX_WAITING_ROWS or self.error is not None:
            self.dropped += 1
            return
        physics = self._physics
        row = [physics.now_s, physics.net_w, physics.load_w, sum(physics.voltage_v_by_phase) / 3.0]
        row += [device.power_w for device in self._devices]
        row += [battery.soc for battery in self._batteries]
        self._rows.append(tuple(row))

    def close(self) -> None:
        """Write what is left and close the file; waits for the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        else:
            self._write_forever()

    def _write_forever(self) -> None:
        try:
            with self._file:
                while not self._stop.wait(WRITE_INTERVAL_S):
                    self._write_waiting()
                self._write_waiting()
        except OSError as error:
            self.error = error

    def _write_waiting(self) -> None:
        while self._rows:
            self._file.write(self._format % self._rows.popleft())
        self._file.flush()

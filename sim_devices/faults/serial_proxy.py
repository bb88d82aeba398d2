"""The fault proxy on a serial line: a pseudo-terminal for the driver in front of the line that the devices are on."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import termios
import tty
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sim_devices.faults.fault_set import FaultSet
from sim_devices.faults.line import Payload
from sim_devices.faults.registry import MODBUS_RTU, Direction
from sim_devices.faults.running import RunningLine
from sim_devices.faults.speech import Understanding
from sim_devices.modbus.pseudo_terminal import PseudoTerminal

_CHUNK: Final = 4096
_PSEUDO_TERMINALS: Final = range(136, 144)
"""Major device numbers of the Unix 98 slaves (Linux, Documentation/admin-guide/devices.txt), which refuse a parity."""

# Without parity a second stop bit keeps the character at eleven bits (MODBUS over Serial Line V1.02, 2.5.1).
_PARITY_BITS: Final = {
    "none": termios.CSTOPB,
    "even": termios.PARENB,
    "odd": termios.PARENB | termios.PARODD,
}

_LOOK_AGAIN_S: Final = 0.1
"""How long until a line that has vanished is looked for again."""


@dataclass(slots=True)
class SerialCounts:
    """What a proxy has seen since its start. `hang_ups`: times at which the devices' line has vanished."""

    hang_ups: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0


class SerialFaultProxy:
    """Forwards between the terminal at `link` and the serial line `target`, and lets faults happen to what passes.

    Without `link` the terminal is where it happens to be; `understanding` says what frames mean. `baud` and `parity`
    (none, even, odd) are for a target that is a real line; a pseudo-terminal needs none. Raises OSError when the target
    or the terminal can't be had, ValueError for a speed that there isn't.
    """

    def __init__(
        self,
        target: str,
        link: Path | None = None,
        *,
        baud: int | None = None,
        parity: str = "even",
        seed: int | str = 0,
        understanding: Understanding | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.target = target
        self.faults = FaultSet(MODBUS_RTU, self._loop.time, seed)
        if understanding is not None:
            self.faults.struck = understanding.struck
            self.faults.understood = True
        self.counts = SerialCounts()
        self._device = _Device(target, baud, parity, self._replied, self._hung_up)
        try:
            self._terminal = PseudoTerminal(self._asked, link)
        except BaseException:
            self._device.close()
            raise
        speech = None if understanding is None else understanding.speech()
        self._line = RunningLine(self.faults, self._deliver, lambda: None, speech)
        self._timer: asyncio.TimerHandle | None = None
        self.faults.listeners.append(self._changed)

    @property
    def endpoint(self) -> dict[str, Any]:
        """Where a driver finds the devices behind this proxy."""
        return {"device": self._terminal.path}

    async def close(self) -> None:
        """Take the terminal away and let the line go."""
        self.faults.listeners.remove(self._changed)
        if self._timer is not None:
            self._timer.cancel()
        self._line.close()
        self._terminal.close()
        self._device.close()

    def state(self) -> dict[str, Any]:
        """What it does and has seen."""
        return {"plugged": self._terminal.plugged, **asdict(self.counts), "faults": self.faults.as_json()}

    def _asked(self, data: bytes) -> None:
        self.counts.request_bytes += len(data)
        self._line.feed(Direction.REQUEST, data)

    def _replied(self, data: bytes) -> None:
        self.counts.reply_bytes += len(data)
        self._line.feed(Direction.REPLY, data)

    def _hung_up(self) -> None:
        self.counts.hang_ups += 1

    def _deliver(self, direction: Direction, what: Payload) -> None:
        if isinstance(what, bytes):
            (self._device if direction is Direction.REQUEST else self._terminal).write(what)
        elif direction is Direction.REPLY:
            # A break is noticed by the driver alone: the devices' side of a line knows nothing of connections.
            self._line.restart()
            self._terminal.unplug()
            self._plug()

    def _changed(self) -> None:
        self._line.changed()
        self._plug()

    def _plug(self) -> None:
        """Have the terminal there unless it is refused, and look again when that ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = self._loop.time()
        if not self.faults.refusing(now_s):
            self._terminal.plug()
            return
        self._terminal.unplug()
        end_s = self.faults.next_end_s(now_s)
        if end_s < math.inf:
            self._timer = self._loop.call_at(end_s + 0.001, self._plug)


class _Device:
    """The line to the devices: opened raw, and opened again when it has vanished."""

    def __init__(
        self,
        path: str,
        baud: int | None,
        parity: str,
        received: Callable[[bytes], None],
        hung_up: Callable[[], None],
    ) -> None:
        self._path = path
        self._baud = baud
        self._parity = parity
        self._received = received
        self._hung_up = hung_up
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._descriptor = -1
        self._open()

    def write(self, data: bytes) -> None:
        """Send; bytes that the line doesn't take are lost."""
        if self._descriptor >= 0:
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._descriptor, data)

    def close(self) -> None:
        """Let the line go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(descriptor)
            if self._baud is not None:
                _set_speed(descriptor, self._baud, self._parity)
            termios.tcflush(descriptor, termios.TCIOFLUSH)
        except termios.error as error:
            os.close(descriptor)
            raise OSError(error.args[0], f"not a serial line: {self._path}") from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received(data)
        else:
            self._hung_up()
            self.close()
            self._timer = self._loop.call_later(_LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        try:
            self._open()
        except OSError:
            self._timer = self._loop.call_later(_LOOK_AGAIN_S, self._look_again)


def _set_speed(descriptor: int, baud: int, parity: str) -> None:
    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        raise ValueError(f"{baud} baud is not among the speeds of serial lines")
    attributes = termios.tcgetattr(descriptor)
    if os.major(os.fstat(descriptor).st_rdev) not in _PSEUDO_TERMINALS:
        control = attributes[2] & ~(termios.PARENB | termios.PARODD | termios.CSTOPB | termios.CSIZE)
        attributes[2] = control | _PARITY_BITS[parity] | termios.CS8 | termios.CLOCAL | termios.CREAD
    attributes[4] = attributes[5] = speed
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)

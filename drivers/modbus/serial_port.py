"""A serial port as a transport of the event loop: pyserial opens and sets it, the loop reads and writes it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Final

import serial

from config.site import ModbusRtuAddress
from drivers.modbus.link import Connector
from drivers.modbus.port_refusals import port_refusal

_CHUNK: Final = 4096
# Major device numbers of the Unix 98 slaves: Linux, Documentation/admin-guide/devices.txt.
_PSEUDO_TERMINALS: Final = range(136, 144)
_PARITIES: Final = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


def serial_connector(address: ModbusRtuAddress) -> Connector:
    """Opens the port and sets it as the address says; `OSError` where it can't be had, or is somebody else's."""

    async def connect(factory: Callable[[], asyncio.Protocol]) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        # Opening and setting can take tens of milliseconds on a USB adapter.
        opening = asyncio.ensure_future(asyncio.to_thread(_open, address))
        try:
            port = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        protocol = factory()
        transport = SerialTransport(port, protocol)
        return transport, protocol

    return connect


def _open(address: ModbusRtuAddress) -> serial.Serial:
    try:
        return _set(address)
    except (OSError, ValueError, termios.error) as error:
        number = error.args[0] if isinstance(error, termios.error) else getattr(error, "errno", None)
        if number is None or number in (errno.EINVAL, errno.ENOTTY):
            raise OSError(_not_settable(address)) from None
        raise OSError(port_refusal(number, address.device)) from None


def _set(address: ModbusRtuAddress) -> serial.Serial:
    # A pseudo-terminal has no parity, and refuses settings of which it can take nothing.
    parity = "none" if os.major(Path(address.device).stat().st_rdev) in _PSEUDO_TERMINALS else address.parity
    return serial.Serial(
        address.device,
        address.baud,
        parity=_PARITIES[parity],
        stopbits=address.stop_bits,
        timeout=0,
        # Makes a read that finds nothing differ from the end of the port.
        inter_byte_timeout=0,
        exclusive=True,
    )


def _not_settable(address: ModbusRtuAddress) -> str:
    setting = f"{address.baud} baud, {address.parity} parity, {address.stop_bits} stop bits"
    return f"{address.device} is no serial port, or cannot be set to {setting}"


def _close_unwanted(opening: asyncio.Future[serial.Serial]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class SerialTransport(asyncio.Transport):
    """Reads and writes an open port whenever it is ready; what the port doesn't take at once waits."""

    def __init__(self, port: serial.Serial, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._fd: int = port.fileno()
        self._protocol = protocol
        self._unsent = b""
        self._closing = False
        os.set_blocking(self._fd, False)
        protocol.connection_made(self)
        self._loop.add_reader(self._fd, self._read)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep until the port takes it."""
        if self._closing:
            return
        if self._unsent:
            self._unsent += bytes(data)
            return
        self._unsent = bytes(data)
        self._write()
        if self._unsent and not self._closing:
            self._loop.add_writer(self._fd, self._write)

    def is_closing(self) -> bool:
        """Whether the port is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Close the port; what has not gone out is dropped."""
        self._lose(None)

    def abort(self) -> None:
        """The same as `close`."""
        self._lose(None)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._lose(OSError(errno.ENODEV, "the serial port is gone"))

    def _write(self) -> None:
        try:
            sent = os.write(self._fd, self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def _lose(self, error: OSError | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        # A close would wait for up to 30 s, in the kernel, for bytes that a stuck port does not send.
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self._fd, termios.TCIOFLUSH)
        with contextlib.suppress(OSError):
            self._port.close()
        self._loop.call_soon(self._protocol.connection_lost, error)

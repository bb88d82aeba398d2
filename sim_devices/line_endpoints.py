"""The serial lines of a site's twins: one for each that the site file names, with every unit that is on it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from config.site import ModbusRtuAddress, ModbusRtuTcpAddress
from sim_devices.modbus import ModbusServer, Unit
from sim_devices.modbus.rtu_bus import LineTiming
from sim_devices.modbus.rtu_line import RtuLine, RtuTcpServer, add_line_unit

LOOPBACK: Final = "127.0.0.1"


class LineEndpoints:
    """Serves units on pseudo-terminals, and on serial device servers; `stack` takes them away.

    With `declared` a pseudo-terminal is reached by the declared path, a device server at the declared address; else by
    names and ports that are free. `new_server` makes what answers on a line.
    """

    def __init__(
        self, stack: AsyncExitStack, *, declared: bool, new_server: Callable[[], ModbusServer] = ModbusServer
    ) -> None:
        self._stack = stack
        self._new_server = new_server
        self._declared = declared
        self._lines: dict[str, RtuLine] = {}
        self._servers: dict[tuple[str, int], RtuTcpServer] = {}
        self._ports: dict[tuple[str, int], tuple[str, int]] = {}

    async def serve(self, unit: Unit, address: ModbusRtuAddress | ModbusRtuTcpAddress) -> dict[str, Any]:
        """Serve a unit where its address says; the address that a driver is given.

        Raises OSError when the place can't be had, ValueError for a unit id that is taken.
        """
        if isinstance(address, ModbusRtuAddress):
            line = self._line(address)
            add_line_unit(line.server, address.unit, unit)
            return address.model_dump() | {"device": line.path}
        declared = (address.host, address.port)
        if declared not in self._servers:
            await self._listen(declared)
        add_line_unit(self._servers[declared].server, address.unit, unit)
        host, port = self._ports[declared]
        return address.model_dump() | {"host": host, "port": port}

    def server_of(self, address: ModbusRtuAddress | ModbusRtuTcpAddress) -> ModbusServer:
        """What answers where an address says; it is served already."""
        if isinstance(address, ModbusRtuAddress):
            return self._lines[posixpath.normpath(address.device)].server
        return self._servers[address.host, address.port].server

    def _line(self, address: ModbusRtuAddress) -> RtuLine:
        device = posixpath.normpath(address.device)
        if device not in self._lines:
            bits = 1 + 8 + (address.parity != "none") + address.stop_bits
            link = Path(device) if self._declared else None
            line = RtuLine(self._new_server(), LineTiming(address.baud, bits), link)
            self._stack.callback(line.close)
            self._lines[device] = line
        return self._lines[device]

    async def _listen(self, declared: tuple[str, int]) -> None:
        # Only the device server knows the speed of the line behind it; the standard's default stands for it.
        server = RtuTcpServer(self._new_server(), LineTiming())
        host, port = declared if self._declared else (LOOPBACK, 0)
        self._ports[declared] = (host, await server.listen(host, port))
        self._stack.push_async_callback(server.close)
        self._servers[declared] = server

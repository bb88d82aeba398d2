"""Why the other side can't be reached, in the words of whoever stands before it and has to put it right."""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import Final

_SEVERAL: Final = re.compile(r"\[Errno (-?\d+)\]")
_UNKNOWN_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY})
_CONNECTING: Final = {
    errno.ECONNREFUSED: "Connection refused: {host} is there, but nothing listens on port {port}",
    errno.EHOSTUNREACH: "{host} does not answer on its network: is it switched on, and is the address right?",
    errno.EHOSTDOWN: "{host} does not answer on its network: is it switched on, and is the address right?",
    errno.ENETUNREACH: "this machine has no route to {host}: are its own cable and address right?",
    errno.ENETDOWN: "this machine has no route to {host}: are its own cable and address right?",
    errno.ETIMEDOUT: "nobody answers at {host}, port {port}",
    errno.EADDRNOTAVAIL: "{host} is no address that can be connected to",
    errno.EACCES: "this machine does not allow a connection to {host}, port {port}",
    errno.EPERM: "this machine does not allow a connection to {host}, port {port}",
    errno.EMFILE: "this machine has too many files and connections open",
    errno.ENFILE: "this machine has too many files and connections open",
}
_ENDING: Final = {
    errno.ECONNRESET: "the other side reset it",
    errno.ECONNABORTED: "the other side reset it",
    errno.EPIPE: "the other side had closed it",
    errno.ETIMEDOUT: "the other side no longer acknowledges",
    errno.EHOSTUNREACH: "the other side is no longer on the network",
    errno.ENETUNREACH: "this machine's own network is gone",
    errno.ENETDOWN: "this machine's own network is gone",
    errno.ENODEV: "the serial port is gone: is its adapter still plugged in?",
    errno.ENXIO: "the serial port is gone: is its adapter still plugged in?",
    errno.EIO: "the serial port is gone: is its adapter still plugged in?",
}


def unreached(error: OSError | UnicodeError, host: str, port: int | None) -> str:
    """Why no connection to a host was made."""
    if isinstance(error, UnicodeError):
        return f"{host} can be no host name"
    if isinstance(error, socket.gaierror):
        return _unresolved(error, host)
    # asyncio tries each address of a name, and tells of several failures in one text.
    numbers = [error.errno] if error.errno is not None else map(int, _SEVERAL.findall(str(error)))
    told = [_told(number, host, port) for number in numbers]
    return "; ".join(dict.fromkeys(told)) or str(error) or type(error).__name__


def ended(error: OSError) -> str:
    """Why a connection or port that was there is no more."""
    return str(error) or type(error).__name__ if error.errno is None else _words(error.errno, _ENDING)


def _told(number: int, host: str, port: int | None) -> str:
    if number < 0:
        return _unresolved(socket.gaierror(number, "the name service fails"), host)
    return _words(number, _CONNECTING).format(host=host, port=port)


def _unresolved(error: socket.gaierror, host: str) -> str:
    if error.errno in _UNKNOWN_NAME:
        return f"the name {host} is not known: nothing has an address for it"
    if error.errno == socket.EAI_AGAIN:
        return f"the name {host} is not resolved: the name server does not answer"
    return f"the name {host} is not resolved: {error.strerror}"


def _words(number: int, known: dict[int, str]) -> str:
    return known.get(number) or os.strerror(number)

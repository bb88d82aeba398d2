"""Who holds a TCP port of this host, for a message about one that is taken."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
LISTENING: Final = "0A"
"""TCP_LISTEN as /proc/net/tcp writes it: proc_net_tcp, Linux kernel documentation."""


def reason(error: OSError, port: int) -> str:
    """Why a port can't be had; for one that is taken with the program that holds it, as far as we may see that."""
    text = os.strerror(error.errno) if error.errno else str(error)
    holder = port_holder(port) if error.errno == errno.EADDRINUSE else ""
    return f"{text}, held by {holder}" if holder else text


def port_holder(port: int) -> str:
    """The program that listens at a port, with its pid; empty where there is none or it isn't ours to see."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return ""
    for process in PROC.iterdir():
        if process.name.isdecimal() and sockets.intersection(_open_files(process)):
            with suppress(OSError):
                return f"{(process / 'comm').read_text(encoding='utf-8').strip()} (pid {process.name})"
    return ""


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen at a port."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _open_files(process: Path) -> Iterator[str]:
    # Processes come and go while they are looked at, and others' files are not ours to see.
    with suppress(OSError):
        for entry in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(entry.readlink())

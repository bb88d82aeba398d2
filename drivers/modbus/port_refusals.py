"""Why a serial port can't be had, in the words of whoever has to put it right."""

from __future__ import annotations

import errno
import grp
import os
from pathlib import Path
from typing import Final

_BY_ID: Final = Path("/dev/serial/by-id")
_LOCKS: Final = Path("/proc/locks")
_GROUP_MAY: Final = 0o060


def port_refusal(number: int, device: str) -> str:
    """What stands in the way of opening `device`, by the error's number."""
    match number:
        case errno.ENOENT:
            return f"no such port: {device}; {_plugged_in()}"
        case errno.EACCES | errno.EPERM:
            return f"no permission for {device}: {_who_may(Path(device))}"
        case errno.EBUSY | errno.EAGAIN:
            return f"{device} is busy: {_holder(Path(device))} has this port open"
        case errno.ENXIO | errno.ENODEV | errno.EIO:
            return f"nothing is plugged in at {device}"
    return f"{device}: {os.strerror(number)}"


def _plugged_in() -> str:
    try:
        there = sorted(str(path) for path in _BY_ID.iterdir())
    except OSError:
        there = []
    return f"plugged in: {', '.join(there)}" if there else "no USB adapter is plugged in"


def _who_may(device: Path) -> str:
    try:
        of = device.stat()
        group = grp.getgrgid(of.st_gid).gr_name
    except (OSError, KeyError):
        return "this user may not open it"
    if of.st_mode & _GROUP_MAY == _GROUP_MAY:
        return f"who may is in group {group}; put this user into it (usermod -a -G {group}), and log in again"
    return f"its mode is {of.st_mode & 0o777:03o}, which lets its owner alone"


def _holder(device: Path) -> str:
    """Who has it, as far as the kernel tells: /proc/locks has process and inode of each lock (proc(5))."""
    try:
        inode = device.stat().st_ino
        rows = [line.split() for line in _LOCKS.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return "another program"
    for row in rows:
        if len(row) >= 6 and row[1] == "FLOCK" and row[5].endswith(f":{inode}"):
            return f"{_program(row[4])} (process {row[4]})"
    return "another program"


def _program(process: str) -> str:
    try:
        return Path("/proc", process, "comm").read_text(encoding="utf-8", errors="replace").strip() or "another program"
    except OSError:
        return "another program"

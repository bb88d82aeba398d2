"""A pseudo-terminal as the far end of a serial line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CHUNK: Final = 4096


class PseudoTerminal:
    """What is written to `path` comes to `received`; `write` is what a reader of `path` gets.

    With `link` the terminal is reached by a symbolic link of that name, which stays the same when it is plugged in
    again; else by its own name. Bytes that nobody takes are lost, as on a line. Raises OSError when no terminal can be
    had, or when `link` is there and doesn't lead to a pseudo-terminal.
    """

    def __init__(self, received: Callable[[bytes], None], link: Path | None = None) -> None:
        self.link = link
        self.lost_bytes = 0
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._master = self._slave = -1
        self._name = ""
        self.plug()

    @property
    def path(self) -> str:
        """What a driver opens."""
        return self._name if self.link is None else str(self.link)

    @property
    def plugged(self) -> bool:
        """Whether there is a terminal at `path`."""
        return self._master >= 0

    def plug(self) -> None:
        """Make the terminal appear; nothing to do when it is there."""
        if self.plugged:
            return
        # The near end stays open here, so that the far end is no end of file whenever nobody has it open.
        master, slave = os.openpty()
        try:
            tty.setraw(slave)
            os.set_blocking(master, False)
            name = os.ttyname(slave)
            if self.link is not None:
                _point(self.link, name)
        except BaseException:
            os.close(master)
            os.close(slave)
            raise
        self._master, self._slave, self._name = master, slave, name
        self._loop.add_reader(master, self._read)

    def unplug(self) -> None:
        """Make it vanish under whoever has it open, as a serial adapter that is pulled out."""
        if not self.plugged:
            return
        self._loop.remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1
        if self.link is not None and _leads_to(self.link, self._name):
            self.link.unlink()

    close = unplug

    def write(self, data: bytes) -> None:
        """Give bytes to whoever reads; what its buffer doesn't take is lost and counted."""
        taken = 0
        if self.plugged:
            with contextlib.suppress(BlockingIOError):
                taken = os.write(self._master, data)
        self.lost_bytes += len(data) - taken

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._received(os.read(self._master, _CHUNK))


def _point(link: Path, name: str) -> None:
    """Make `link` lead to `name`, in place of what is left of another pseudo-terminal; never of a real port."""
    if link.is_symlink() and link.readlink().parent == Path(name).parent:
        link.unlink()
    link.symlink_to(name)


def _leads_to(link: Path, name: str) -> bool:
    return link.is_symlink() and str(link.readlink()) == name

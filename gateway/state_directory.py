"""The state directory of a site: its lock, its journal, its local socket. One gateway at a time holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "control.sock"
LONGEST_SOCKET_PATH: Final = 107
"""Bytes in the path of a Unix socket, unix(7): sun_path has 108 with its end."""


class SiteHeldError(Exception):
    """Another gateway holds the site, or its directory cannot be used; the text is for the user."""


def default_state_directory(site: str) -> Path:
    """`$LAMINA_STATE`, else `$XDG_STATE_HOME/lamina`, else `~/.local/state/lamina`; below it one folder a site."""
    base = os.environ.get("LAMINA_STATE")
    if base:
        return Path(base) / site
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "lamina" / site


@contextmanager
def held_state_directory(path: Path) -> Iterator[Path]:
    """Hold the directory's lock while the context lasts; raises SiteHeldError.

    The lock is the kernel's and dies with the process, so that a killed gateway leaves none behind.
    """
    if len(os.fsencode(path / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
        most = LONGEST_SOCKET_PATH - len(SOCKET_NAME) - 1
        raise SiteHeldError(f"{path}: too long for a local socket; at most {most} bytes are allowed")
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise SiteHeldError(f"{path}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise SiteHeldError(f"{path}: another gateway (process {holder}) holds this site") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield path

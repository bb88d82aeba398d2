"""The planner's process: `python -m gateway.planning.process STATE_DIRECTORY`, started and ended by control.

It connects to control's socket, answers each state with a plan, and ends with the connection or its standard input:
whatever happens to it, control starts it again.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from config.strict import Strict

SOCKET_NAME: Final = "planner.sock"
NICENESS: Final = 10
ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
"""Read when the libraries are loaded: the solver takes one core at most."""

_DONE: Final = object()


def main() -> int:
    """Serve; the exit code: 2 for a wrong call or a missing library, 1 where nobody listens."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m gateway.planning.process STATE_DIRECTORY\n")
        return 2
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    os.nice(NICENESS)
    threading.Thread(target=_end_with_our_parent, name="stdin", daemon=True).start()
    directory = Path(sys.argv[1])
    if find_spec("cvxpy") is None:
        sys.stderr.write("the planner needs cvxpy, which the extra `planning` of lamina-gateway brings\n")
        return 2
    # The solver's import takes seconds; a request that is sent before it is done would be answered late.
    from gateway.planning.planner import Planner

    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(directory / SOCKET_NAME))
    except OSError as error:
        sys.stderr.write(f"{directory / SOCKET_NAME}: {error.strerror}\n")
        return 1
    with connection:
        _serve(connection, Planner(directory))
    return 0


def _serve(connection: socket.socket, planner: object) -> None:
    """Answer each state with a plan at once; while none waits, work on the offers, one solution at a time."""
    from gateway.planning.messages import RefusedMessageError, StateMessage, decode, encode
    from gateway.planning.planner import Planner

    assert isinstance(planner, Planner)
    with connection.makefile("rb") as lines, suppress(BrokenPipeError, ConnectionResetError):
        while True:
            while not _waits(connection):
                work = next(planner.offers(), _DONE)
                if work is _DONE:
                    break
                if isinstance(work, Strict):
                    connection.sendall(encode(work))
            # Control asks once, and again when it has its answer: nothing is left in the buffer of `lines`.
            line = lines.readline()
            if not line:
                return
            try:
                state = decode(line, StateMessage)
            except RefusedMessageError as error:
                sys.stderr.write(f"{error}\n")
                continue
            connection.sendall(encode(planner.plan(state)))


def _waits(connection: socket.socket) -> bool:
    """Whether something has come, or the other side is gone."""
    readable, _, _ = select.select([connection], [], [], 0.0)
    return bool(readable)


def _end_with_our_parent() -> None:
    """Its death, however it comes, closes our standard input."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

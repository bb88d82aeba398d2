"""A port that is taken is named with what holds it."""

from __future__ import annotations

import errno
import os
import socket

from sim_devices.port_holders import port_holder, reason


def test_a_taken_port_is_named_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_holder(port).endswith(f"(pid {os.getpid()})")
        said = reason(OSError(errno.EADDRINUSE, "taken"), port)
        assert said.startswith("Address already in use, held by ")
    assert port_holder(port) == ""


def test_other_reasons_name_nobody() -> None:
    assert reason(OSError(errno.EACCES, "no"), 80) == "Permission denied"

"""What the core asks of something that understands what is said on a connection."""

from __future__ import annotations

import math
from typing import Final, Protocol

from sim_devices.faults.effects import Passage
from sim_devices.faults.fault_set import ActiveFault
from sim_devices.faults.frames import Frame
from sim_devices.faults.registry import Direction

OWN_TIMEOUT_S: Final = 1.0
"""A request of the proxy's own that has no answer by then has none."""


class Speech:
    """One connection, understood. This one understands nothing; each protocol has its own.

    The core calls `hear` for each whole frame in the order in which they pass, before faults act on it, and `act` for
    each fault that it can't do by itself.
    """

    def hear(self, direction: Direction, frame: Frame, now_s: float) -> bool:
        """Take note of a frame; True for an answer to the proxy's own request, which nobody else may hear."""
        return False

    def act(self, active: ActiveFault, passage: Passage, now_s: float) -> bool:
        """Let a fault act on a frame that it is about; whether it has changed anything."""
        return False

    def copied(self, passage: Passage) -> None:
        """A frame goes out more than once."""

    def pass_on(self, direction: Direction, raw: bytes) -> bytes:
        """The last look at bytes that go out, for what runs through a whole connection."""
        return raw

    def said(self, now_s: float) -> list[tuple[Direction, bytes]]:
        """What is to be said now, and once, that nobody else has said."""
        return []

    def own_request(self, now_s: float) -> bytes | None:
        """The next request of the proxy's own, if it can go out now."""
        return None

    @property
    def has_own(self) -> bool:
        """Whether a request of the proxy's own waits to go out or for its answer; the driver's wait meanwhile."""
        return False

    @property
    def own_due_s(self) -> float:
        """When an answer to the proxy's own request is given up."""
        return math.inf

    def give_up(self, now_s: float) -> None:
        """Give up what is due."""


class Understanding(Protocol):
    """What is understood of a link, over its connections."""

    def speech(self) -> Speech:
        """For a new connection."""
        ...

    def struck(self, active: ActiveFault) -> None:
        """A fault was set."""
        ...

"""What a gateway finds around itself: in the field a process of its own, sockets and brokers; on a bench what replaces
them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from drivers.transports import Transports


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The defaults are the field's.

    `own_process` false: the process is shared with others, so nothing is said of it, no thread and no local socket are
    made, and the journal is written without fsync. `transports` are those of the drivers, `mqtt_client` is called as
    `aiomqtt.Client` is, `rng` makes the source of pauses of whatever it is given the name of, and `new_id` makes the
    ids of offers.
    """

    own_process: bool = True
    transports: Transports | None = None
    mqtt_client: Callable[..., Any] | None = None
    rng: Callable[[str], random.Random] = lambda _: random.Random()
    new_id: Callable[[], str] = lambda: uuid4().hex


FIELD = Surroundings()

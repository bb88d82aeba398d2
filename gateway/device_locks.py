"""One gateway writes to a device: a second one on this machine is refused, whatever its site or state directory.

The locks are names in the kernel's abstract socket namespace (unix(7), Linux), which die with the process.
"""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from config.site import Address
from gateway.composition import link_name
from gateway.state_directory import SiteHeldError


@contextmanager
def held_devices(addresses: Mapping[str, Address]) -> Iterator[None]:
    """Hold the devices that will be written, by name; raises SiteHeldError naming one that another gateway holds."""
    with ExitStack() as stack:
        if sys.platform == "linux":
            # Two parts of a hybrid are one unit.
            for mark, (name, address) in {_lock_name(each): (name, each) for name, each in addresses.items()}.items():
                lock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                try:
                    lock.bind(mark)
                except OSError:
                    place = link_name(address)
                    raise SiteHeldError(f"{name}: another gateway on this machine writes to it, at {place}") from None
        yield


def _lock_name(address: Address) -> bytes:
    """The device and how it is reached; a device behind a broker or a bus is one of many there."""
    within = address.model_dump(include={"unit", "parameters", "charge_point", "connector", "layer"})
    # One machine by either name.
    place = link_name(address).replace("//localhost:", "//127.0.0.1:").replace("@localhost:", "@127.0.0.1:")
    mark = hashlib.sha256(f"{place} {sorted(within.items())}".encode()).hexdigest()[:32]
    return f"\0lamina-device-{mark}".encode()

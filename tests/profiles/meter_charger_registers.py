"""A profile's registers without a device: decoding a table of words, and the requests that a setpoint becomes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from config.loading import load_profile
from config.profile import PollGroup, Profile
from config.site import ModbusTcpAddress
from config.vocabulary import LinkState, Sample, Setpoint, WriteResult
from drivers.binding import DeviceBinding
from drivers.driver import LinkStats
from drivers.modbus.connection import Connection
from drivers.modbus.plan import Places, plan_blocks, register_places
from drivers.modbus.request import Request
from drivers.modbus.setpoint_writer import SetpointWriter

NO_WORDS: Mapping[int, str] = MappingProxyType({})


def requests(profile: Profile) -> dict[PollGroup, list[tuple[str, int, int]]]:
    """Table, first register and count of each request, by poll group."""
    planned = plan_blocks(profile, Places(register_places(profile)))
    return {group: [(block.table, block.first, block.count) for block in blocks] for group, blocks in planned.items()}


def decoded(profile: Profile, words: Mapping[int, str] = NO_WORDS) -> dict[str, Sample]:
    """Every point as it is decoded from the replies of a device whose registers hold these words, and else 0.

    `words`: hexadecimal words, separated by spaces, by the address of the first of them.
    """
    registers = {first + at: word for first, text in words.items() for at, word in enumerate(text.split())}
    samples: dict[str, Sample] = {}
    for blocks in plan_blocks(profile, Places(register_places(profile))).values():
        for block in blocks:
            span = range(block.first, block.first + block.count)
            data = bytes.fromhex("".join(registers.get(at, "0000") for at in span))
            samples |= block.decode(bytes((3, 2 * block.count)) + data, 1.0)
    return samples


class _Silence:
    """A sink that keeps results alone."""

    def __init__(self) -> None:
        self.results: list[WriteResult] = []

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None: ...

    def link_state(self, link: str, state: LinkState, reason: str) -> None: ...

    def device_state(self, device: str, present: bool, reason: str) -> None: ...

    def write_result(self, result: WriteResult) -> None:
        self.results.append(result)


class ObedientLine:
    """In place of a connection: every request is taken at once, kept, and acknowledged as a device would."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def submit(self, request: Request) -> None:
        if request.before_send():
            self.sent.append(request.pdu.data.hex())
            request.succeeded(request.pdu.reply_prefix)

    submit_next = submit


class Charger:
    """The driver's writer of one charger on an obedient line."""

    def __init__(self, profile: str, rating_w: float = 22_080.0, phases: int = 3) -> None:
        loaded = load_profile(profile)
        assert loaded.control is not None
        address = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1", port=502, unit=1)
        reversion_s = loaded.control.reversion_s
        binding = DeviceBinding("charger", loaded, address, rating_w, phases=phases, reversion_s=reversion_s)
        self.line = ObedientLine()
        self.sink = _Silence()
        self.writer = SetpointWriter(binding, 1, self.sink, LinkStats(), time.monotonic)
        self.writer.begin(cast(Connection, self.line), register_places(loaded))
        self._sequence = 0

    def ask(self, power_w: float) -> list[str]:
        """The requests (PDUs in hexadecimal, in order) that a setpoint becomes."""
        del self.line.sent[:]
        self._sequence += 1
        self.writer.put(Setpoint("charger", power_w, "test", time.monotonic() + 60.0, self._sequence))
        return list(self.line.sent)

    def rest(self) -> list[str]:
        """The requests of the rest state."""
        del self.line.sent[:]
        self.writer.rest()
        return list(self.line.sent)

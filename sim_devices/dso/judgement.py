"""What the DSO twin remembers of a layer's answers, to judge them: plain bookkeeping without clock or connection."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sim_devices.dso.log import JsonLines


class Checks:
    """Every check made, logged as it is made."""

    def __init__(self, log: JsonLines) -> None:
        self._log = log
        self.passed = 0
        self.failed: list[str] = []

    def record(self, name: str, passed: bool, detail: str = "") -> None:
        """One check and its result."""
        if passed:
            self.passed += 1
        else:
            self.failed.append(name)
        self._log.write("check", {"name": name, "passed": passed, "detail": detail})


class Answer(NamedTuple):
    """What an acknowledgement said."""

    status: str
    reason: str


@dataclass(eq=False)
class AwaitedAnswer:
    """The acknowledgements of one order: the first one, and what became of an accepted one."""

    kind: str
    order_id: str | None
    expected_id: Literal["own", "empty", "either"] = "own"
    first: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    final: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def _names(self, order_id: str) -> bool:
        if order_id == "":
            return self.expected_id != "own"
        return order_id == self.order_id and self.expected_id != "empty"

    def take(self, message: Mapping[str, Any]) -> bool:
        """Whether the acknowledgement was this order's; then it is remembered."""
        if message["kind"] != self.kind or not self._names(message["order_id"]):
            return False
        answer = Answer(message["status"], message.get("reason", ""))
        if answer.status in ("accepted", "rejected"):
            waiting = self.first
        elif self.first.done() and not self.first.cancelled() and self.first.result().status == "accepted":
            waiting = self.final
        else:
            return False
        if waiting.done():
            return False
        waiting.set_result(answer)
        return True


class Acknowledgements:
    """Matches acknowledgements with orders, in the order of sending where several share an id."""

    def __init__(self) -> None:
        self._awaited: list[AwaitedAnswer] = []

    def await_answer(self, awaited: AwaitedAnswer) -> None:
        """Expect an answer from now on."""
        self._awaited.append(awaited)

    def forget(self, awaited: AwaitedAnswer) -> None:
        """Stop expecting it."""
        self._awaited.remove(awaited)

    def take(self, message: Mapping[str, Any]) -> bool:
        """Hand an acknowledgement to the order it belongs to; False when it belongs to none that is awaited."""
        return any(awaited.take(message) for awaited in self._awaited)


class LayerWatch:
    """What the layer has said so far; times are monotonic seconds of receipt."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.invalid = 0
        self.longest_gap_s = 0.0
        self.fallback_seen_s = -math.inf
        self.normal_seen_s = -math.inf
        self._telemetry_s: float | None = None
        self._echo_awaited: dict[int, float] = {}
        self._echo_delays_s: list[float] = []

    def heard(self, kind: str, message: Mapping[str, Any], at_s: float) -> None:
        """A valid message arrived."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == "telemetry":
            self._telemetry(message, at_s)

    def connection_lost(self) -> None:
        """Nothing can arrive now, so no gap is counted."""
        self._telemetry_s = None

    def silent_for(self, at_s: float) -> float:
        """The longest time without telemetry until `at_s`."""
        since_s = 0.0 if self._telemetry_s is None else at_s - self._telemetry_s
        return max(self.longest_gap_s, since_s)

    def signal_sent(self, sequence: int, at_s: float) -> None:
        """A regulation signal went out and is to be echoed."""
        self._echo_awaited[sequence] = at_s

    def take_echoes(self, within_s: float) -> tuple[int, int, float]:
        """How many signals were echoed in time, how many not, and the longest delay; then begin anew."""
        late = sum(delay_s > within_s for delay_s in self._echo_delays_s)
        missing = len(self._echo_awaited) + late
        echoed = len(self._echo_delays_s) - late
        longest_s = max(self._echo_delays_s, default=0.0)
        self._echo_awaited, self._echo_delays_s = {}, []
        return echoed, missing, longest_s

    def _telemetry(self, message: Mapping[str, Any], at_s: float) -> None:
        if self._telemetry_s is not None:
            self.longest_gap_s = max(self.longest_gap_s, at_s - self._telemetry_s)
        self._telemetry_s = at_s
        if message["compliance"]["state"] == "fallback":
            self.fallback_seen_s = at_s
        else:
            self.normal_seen_s = at_s
        echo = message.get("regulation_sequence")
        if echo is not None:
            self._echoed(echo, at_s)

    def _echoed(self, sequence: int, at_s: float) -> None:
        # The newest signal wins, so an echo stands for those before it; one of the future stands for none.
        if sequence in self._echo_awaited:
            for earlier in [waiting for waiting in self._echo_awaited if waiting <= sequence]:
                self._echo_delays_s.append(at_s - self._echo_awaited.pop(earlier))

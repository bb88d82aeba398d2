"""The planner's process beside control: started, asked, watched and started again; control never waits for it."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from drivers.backoff import Backoff
from gateway.planning.desk import ANSWER_SLACK_S, PlanDesk
from gateway.planning.messages import LONGEST_LINE, encode
from gateway.planning.process import SOCKET_NAME

LOG_NAME: Final = "planner.log"
CONNECTS_WITHIN_S: Final = 120.0
"""Loading the solver takes 2 to 4 s on an idle machine, at a low priority on a busy one a multiple."""

STALLED_S: Final = 5.0
"""A planner that owes an answer for so much longer than it may take is ended and started again."""

MOST_REFUSED: Final = 8
"""A planner that says so much nonsense on one connection is ended."""

LOOK_S: Final = 0.5
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


@dataclass(slots=True)
class PlannerLink:
    """`run` keeps one planner alive. One connection at a time is served."""

    desk: PlanDesk
    directory: Path
    starts: int = 0
    pid: int | None = None
    _connected: bool = False
    _backoff: Backoff = field(default_factory=lambda: Backoff(random.Random("planner"), FIRST_PAUSE_S, LONGEST_PAUSE_S))

    async def run(self) -> None:
        """Serve until cancelled."""
        path = self.directory / SOCKET_NAME
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, str(path), limit=LONGEST_LINE)
        os.chmod(path, 0o600)  # noqa: PTH101 (one system call, not worth a thread)
        try:
            while True:
                await self._one_life()
                await asyncio.sleep(self._backoff.pause_s())
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _one_life(self) -> None:
        """Start a process and watch it until it ends or has to be ended."""
        taken = self.desk.taken
        process = await self._start()
        why = "ended"
        try:
            why = await self._watch(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
            if process.stdin is not None:
                process.stdin.close()
            self.pid = None
        said = await asyncio.to_thread(self._last_words)
        why = f"{why}: {said}" if said else why
        structlog.get_logger().warning("planner ended, starting it again", reason=why, code=code)
        self.desk.record("plan", state="planner ended", reason=why, code=code)
        if self.desk.taken > taken:
            self._backoff.reset()

    def _last_words(self) -> str:
        """The last line that it wrote."""
        try:
            lines = (self.directory / LOG_NAME).read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:300] if lines else ""

    async def _start(self) -> asyncio.subprocess.Process:
        with (self.directory / LOG_NAME).open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.planning.process",
                str(self.directory),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        self.starts += 1
        self.pid = process.pid
        self.desk.record("plan", state="planner started", pid=process.pid)
        return process

    async def _watch(self, process: asyncio.subprocess.Process) -> str:
        """Why it has to be started again."""
        clock = self.desk.clock
        most_s = self.desk.planning.time_limit_s + ANSWER_SLACK_S + STALLED_S
        heard_s = clock()
        while process.returncode is None:
            await asyncio.sleep(LOOK_S)
            if self._connected:
                heard_s = clock()
            waits_s = self.desk.waits_s
            if waits_s is not None and waits_s > most_s:
                self.desk.refuse(f"no answer for {waits_s:.0f} s")
                self.desk.drop_request()
                return "stalled"
            if clock() - heard_s > CONNECTS_WITHIN_S:
                return "never connected"
        return f"ended with {process.returncode}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: ask in its rhythm, take what comes."""
        if self._connected:
            self.desk.refuse("a second planner")
            writer.close()
            return
        self._connected = True
        asking = asyncio.create_task(self._ask(writer), name="planner requests")
        try:
            # Streams report a cancelled handler as an error; only our own end cancels one, so it ends quietly.
            with suppress(ConnectionError, asyncio.CancelledError):
                await self._listen(reader)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            self._connected = False
            self.desk.drop_request()
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Until it ends, or has said too much that can't be taken."""
        before = self.desk.refused
        while self.desk.refused - before < MOST_REFUSED:
            try:
                line = await reader.readline()
            except ValueError:
                self.desk.refuse(f"a line of more than {LONGEST_LINE} bytes")
                return
            if not line:
                return
            if not line.endswith(b"\n"):
                self.desk.refuse("a torn message")
                return
            self.desk.take(line)
            # What is buffered is read without a pause, and the cycle comes first.
            await asyncio.sleep(0)

    async def _ask(self, writer: asyncio.StreamWriter) -> None:
        """A request in every interval, but none while one is open: its answer would be an old one."""
        since_s = float("-inf")
        with suppress(ConnectionError):
            while True:
                state = self.desk.request(since_s) if self.desk.waits_s is None else None
                if state is None:
                    await asyncio.sleep(LOOK_S)
                    continue
                if state.measured:
                    since_s = state.measured[-1].begin_utc_s
                writer.write(encode(state))
                await writer.drain()
                await asyncio.sleep(self.desk.planning.replan_s)

"""Child processes of a bench: ready by one JSON line, ended with their parent, stopped cleanly."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

READY_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 8.0


class ChildFailedError(Exception):
    """A process did not come up or ended when it should not; the text is for the user."""


class Child:
    """One process of a bench, in a session of its own so that Ctrl-C reaches only us, and we end it.

    It holds our pipe as its standard input: when we die, however we die, it reads the end and ends too.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], log: Path, *, append: bool = False) -> Child:
        """Run `python -m ARGUMENTS`; its standard error goes to `log`, with `append` behind what is there."""
        with log.open("ab" if append else "wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ready(self, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """The child's first line, a JSON object; raises ChildFailedError with the child's last words."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise ChildFailedError(f"{self.name} was not ready within {timeout_s:g} s{self.last_words()}") from None
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            await self.stop()
            raise ChildFailedError(f"{self.name} did not start{self.last_words()}")
        return message

    async def wait(self) -> int:
        """The exit code."""
        return await self.process.wait()

    async def kill(self) -> int:
        """SIGKILL, as whatever ends a process without a word; the exit code."""
        with suppress(ProcessLookupError):
            self.process.kill()
        code = await self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        return code

    async def stop(self) -> int:
        """SIGTERM, then after `STOP_TIMEOUT_S` SIGKILL; the exit code."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                code = await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            code = await self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        return code

    def last_words(self) -> str:
        """The end of what it wrote to its log, to stand behind a message; empty if it wrote nothing."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return ":\n  " + "\n  ".join(lines[-5:]) if lines else ""

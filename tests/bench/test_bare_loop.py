"""The bare loop in a process of its own: it ends by time, by signal and with its parent, and always writes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest


async def bare_loop(out: Path, seconds: float, period_ms: float = 5.0) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.bench.bare_loop"),
        *("--period-ms", str(period_ms), "--seconds", str(seconds), "--out", str(out)),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def figures(out: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(out.read_text())
    assert set(found) == {"p50", "p99", "max"}
    return found


async def test_it_ends_after_its_time(tmp_path: Path) -> None:
    process = await bare_loop(tmp_path / "jitter.json", seconds=0.3)
    async with asyncio.timeout(20):
        # `communicate` would close its standard input, and with that end it early.
        assert process.stderr is not None
        errors = await process.stderr.read()
        await process.wait()
    assert (process.returncode, errors) == (0, b"")
    found = figures(tmp_path / "jitter.json")
    assert 0.0 <= found["p50"] <= found["p99"] <= found["max"]


async def test_it_ends_when_its_parent_does(tmp_path: Path) -> None:
    process = await bare_loop(tmp_path / "jitter.json", seconds=3600.0)
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(20):
        assert await process.wait() == 0
    figures(tmp_path / "jitter.json")


async def test_it_ends_at_sigterm(tmp_path: Path) -> None:
    process = await bare_loop(tmp_path / "jitter.json", seconds=3600.0)
    assert process.stdin is not None
    async with asyncio.timeout(20):
        while not _handles_sigterm(process.pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    figures(tmp_path / "jitter.json")


def _handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
async def test_bad_arguments_are_exit_code_2(tmp_path: Path, seconds: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.bench.bare_loop"),
        *("--period-ms", "10", "--seconds", seconds, "--out", str(tmp_path / "jitter.json")),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"Traceback" not in errors

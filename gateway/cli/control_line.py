"""One line to a control port on loopback, of twins or of fault proxies, and its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.cli.sites import end, loaded, site_path

ANSWER_S: Final = 5.0
LONGEST_ANSWER: Final = 1 << 24


def endpoint(target: str) -> tuple[str, int] | None:
    """HOST:PORT; None for the name or the file of a site."""
    host, _, port = target.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() and not site_path(target).exists() else None


def announced(target: str, state: Path | None, file: str, key: str, absent: str) -> tuple[str, int]:
    """The control port of what runs for a site, which its announcement has under `key`; or the end, and why.

    `absent`: what to say where nothing runs, before what starts it.
    """
    at = endpoint(target)
    if at is not None:
        return at
    from gateway.state_directory import default_state_directory

    _, model, _ = loaded(target)
    path = (state or default_state_directory(model.site)) / file
    try:
        said = json.loads(path.read_text(encoding="utf-8"))[key]
        return str(said["host"]), int(said["port"])
    except FileNotFoundError:
        end(f"{target}: {absent.format(path=path, target=target)}")
    except OSError as error:
        end(f"{path}: {error.strerror}")
    except (ValueError, LookupError, TypeError):
        end(f"{path}: does not say where a control port is")


def ask(target: str, at: tuple[str, int], what: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one line; where there is none, or it is a refusal, the end. `what`: who is asked."""
    try:
        answer = asyncio.run(_asked(*at, line))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        end(f"{target}: no {what} at {at[0]}:{at[1]}: {reason}")
    if "error" in answer:
        end(str(answer["error"]))
    return answer


async def _asked(host: str, port: int, line: Mapping[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_connection(host, port, limit=LONGEST_ANSWER)
        try:
            writer.write(json.dumps(line).encode() + b"\n")
            answer = json.loads(await reader.readline())
        finally:
            writer.close()
    if not isinstance(answer, dict):
        raise ValueError("what answers is no control port")
    return answer

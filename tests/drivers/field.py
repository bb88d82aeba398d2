"""Both ends of a driver, for tests: a sink that keeps what it is told and can be waited for, and a line to cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping

from config.vocabulary import LinkState, Quality, Sample, WriteResult


class Field:
    """The sink: what the driver told, and a way to wait for it."""

    def __init__(self) -> None:
        self.points: dict[str, dict[str, Sample]] = {}
        self.results: list[WriteResult] = []
        self.links: list[tuple[LinkState, str]] = []
        self.present: list[tuple[str, bool, str]] = []
        self._told = asyncio.Event()

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        self.points.setdefault(device, {}).update(samples)
        self._told.set()

    def write_result(self, result: WriteResult) -> None:
        self.results.append(result)
        self._told.set()

    def link_state(self, link: str, state: LinkState, reason: str) -> None:
        self.links.append((state, reason))
        self._told.set()

    def device_state(self, device: str, present: bool, reason: str) -> None:
        self.present.append((device, present, reason))
        self._told.set()

    def sample(self, device: str, point: str) -> Sample:
        return self.points.get(device, {}).get(point, Sample(None, Quality.BAD, 0.0))

    def is_lost(self) -> bool:
        return bool(self.links) and self.links[-1][0] is LinkState.LOST

    async def until(self, condition: Callable[[], bool], within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                self._told.clear()
                await self._told.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Wire:
    """A TCP relay that can go dark: bytes are taken and not passed on, as on a line that is cut far away."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self._dark = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def go_dark(self) -> None:
        self._dark = True

    def go_light(self) -> None:
        self._dark = False

    def inject(self, data: bytes) -> None:
        self._clients[-1].write(data)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.append(writer)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as group:
                ways = [group.create_task(self._copy(reader, there)), group.create_task(self._copy(back, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        except OSError:
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()
            self._tasks.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self._dark:
                    writer.write(data)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

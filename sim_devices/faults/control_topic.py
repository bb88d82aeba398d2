"""The way into running fault proxies by MQTT: the lines of the control port as messages.

`lamina-bench/SITE/faults/set` takes them, `lamina-bench/SITE/faults/answer` has the answers. A retained one is refused:
it would set its fault again at every reconnection.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import aiomqtt

from sim_devices.faults.board import FaultBoard
from sim_devices.faults.control import MAX_LINE, answer

_PAUSE_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
_MOST_WAITING: Final = 100


def control_topics(site: str) -> tuple[str, str]:
    """Where commands for the faults of a site are published, and where their answers."""
    return f"lamina-bench/{site}/faults/set", f"lamina-bench/{site}/faults/answer"


class ControlTopic:
    """Listens at a broker, itself without a proxy; `listening` is set while it does."""

    def __init__(self, board: FaultBoard, site: str, broker: tuple[str, int]) -> None:
        self.listening = asyncio.Event()
        self._board = board
        self._set, self._answer = control_topics(site)
        self._broker = broker

    async def run(self) -> None:
        """Serve until cancelled; a broker that is away is tried again."""
        while True:
            try:
                await self._serve()
            except aiomqtt.MqttError:
                # A disconnection that fails while being cancelled must not turn the cancellation into another attempt.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError from None
            finally:
                self.listening.clear()
            await asyncio.sleep(_PAUSE_S)

    async def _serve(self) -> None:
        client = aiomqtt.Client(*self._broker, timeout=_TIMEOUT_S, max_queued_incoming_messages=_MOST_WAITING)
        async with client:
            # A connection that breaks while this end is leaving is nobody's news, and would be logged as an exception.
            client._disconnected.add_done_callback(lambda future: future.cancelled() or future.exception())
            await client.subscribe(self._set, qos=1)
            self.listening.set()
            async for message in client.messages:
                said = self._answered(message)
                await client.publish(self._answer, json.dumps(said), qos=1, timeout=_TIMEOUT_S)

    def _answered(self, message: aiomqtt.Message) -> dict[str, Any]:
        if message.retain:
            return {"error": "retained: a command would come back at each reconnection"}
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
        if len(payload) > MAX_LINE:
            return {"error": f"a message is longer than {MAX_LINE} bytes"}
        return answer(self._board, payload)

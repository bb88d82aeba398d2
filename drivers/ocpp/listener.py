"""The port at which chargers call: WebSocket handshakes let in by charge point, password and subprotocol.

OCPP-J 1.6, sections 3.1 and 3.2: the charger is named by the end of the address that it calls; one that is not known
gets 404; without a common subprotocol the handshake is done and the connection closed. Section 6 and the security
whitepaper's profiles 1 and 2: basic authentication, with the charger's identity as the user, plain or over TLS.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.protocol import State

from drivers.cancellation import heeded
from drivers.ocpp.messages import LARGEST_MESSAGE, SUBPROTOCOL
from drivers.tls import load_pair
from drivers.writer import ConnectionBroken

if TYPE_CHECKING:
    import structlog
    from websockets.http11 import Request, Response
    from websockets.typing import Subprotocol

    from config.site import ListenerTls
    from drivers.driver import LinkStats

_HANDSHAKE_S: Final = 5.0
_CLOSING_S: Final = 1.0
_FRAMES_AHEAD: Final = 16
_MOST_NAMED: Final = 64
_LONGEST_NAME: Final = 60


class Listener:
    """One listening port; `accepted` is given each connection that was let in, with its charge point.

    `passwords` has an entry for each known charge point: the name of the environment variable, or None for no password.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ListenerTls | None,
        passwords: Mapping[str, str | None],
        ping_s: float,
        accepted: Callable[[str, ServerConnection], Awaitable[None]],
        stats: LinkStats,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.port = port
        self._stats = stats
        self._host = host
        self._tls = tls
        self._passwords = passwords
        self._ping_s = ping_s
        self._accepted = accepted
        self._log = log
        self._named: set[str] = set()
        self._server: Server | None = None

    async def open(self) -> None:
        """Listen; `ConnectionBroken` says why that can't be."""
        context = None
        try:
            if self._tls is not None:
                context = await heeded(asyncio.to_thread(_tls_context, self._tls))
            self._server = await serve(
                self._handle,
                self._host,
                self.port,
                ssl=context,
                process_request=self._judge,
                select_subprotocol=_common_subprotocol,
                compression=None,
                logger=_quiet_logger(),
                open_timeout=_HANDSHAKE_S,
                close_timeout=_CLOSING_S,
                ping_interval=self._ping_s,
                ping_timeout=self._ping_s,
                max_size=LARGEST_MESSAGE,
                max_queue=_FRAMES_AHEAD,
                server_header=None,
            )
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConnectionBroken(f"cannot listen at {self._host}:{self.port}: {words}") from None
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        """End every connection and give the port back."""
        if self._server is None:
            return
        for connection in list(self._server.handlers):
            if connection.state is State.CONNECTING:
                # It would be waited for, until its handshake times out.
                connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def _refuse(self, event: str, name: str) -> None:
        """Count a caller that isn't let in; logged the first time for each name, for a bounded number of names."""
        self._stats.refused += 1
        key = f"{event} {name}"
        if key not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add(key)
            self._log.warning(event, charge_point=name)

    async def _handle(self, connection: ServerConnection) -> None:
        identity = _identity(connection.request.path) if connection.request is not None else ""
        if connection.subprotocol != SUBPROTOCOL:
            self._refuse("charger refused: it does not offer ocpp1.6", identity)
            return
        await self._accepted(identity, connection)

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        identity = _identity(request.path)
        if identity not in self._passwords:
            self._refuse("charger refused: it is not in the site file", identity)
            return connection.respond(HTTPStatus.NOT_FOUND, "unknown charge point\n")
        variable = self._passwords[identity]
        if variable is None:
            return None
        password = os.environ.get(variable)
        if password is None:
            self._refuse(f"charger refused: the environment variable {variable} is not set", identity)
        elif _knows(request.headers.get_all("Authorization"), identity, password):
            return None
        else:
            self._refuse("charger refused: wrong password", identity)
        response = connection.respond(HTTPStatus.UNAUTHORIZED, "wrong password\n")
        response.headers["WWW-Authenticate"] = 'Basic realm="OCPP"'
        return response


def _identity(path: str) -> str:
    last = unquote(path.split("?", 1)[0].rstrip("/").rpartition("/")[2], errors="replace")
    return "".join(c if c.isprintable() else "?" for c in last[:_LONGEST_NAME])


def _knows(headers: Sequence[str], identity: str, password: str) -> bool:
    scheme, _, encoded = (headers[0] if len(headers) == 1 else "").partition(" ")
    try:
        given = base64.b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return False
    wanted = [password.encode()]
    # A key that was set as hexadecimal digits is sent as the bytes they stand for (whitepaper, AuthorizationKey).
    try:
        wanted.append(bytes.fromhex(password))
    except ValueError:
        pass
    return any(hmac.compare_digest(given, identity.encode() + b":" + word) for word in wanted)


def _common_subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((name for name in offered if name == SUBPROTOCOL), None)


def _tls_context(tls: ListenerTls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_pair(context, tls.cert_file, tls.key_file)
    return context


def _quiet_logger() -> logging.Logger:
    """Failed handshakes are told once, by name; websockets would add a traceback for each."""
    logger = logging.getLogger("drivers.ocpp.websockets")
    logger.setLevel(logging.CRITICAL + 1)
    return logger

"""TLS as a client: what a site file says of it, as a context, and why a handshake has failed, in words."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from config.security_checks import password_is_plain
from drivers.cancellation import heeded

if TYPE_CHECKING:
    from config.site import MqttBroker, Tls


class _NamedContext(ssl.SSLContext):
    """Looks for a name of its own in the server's certificate, whatever the library that connects asks for."""

    server_name: str | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **(options | self._named(options)))

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **(options | self._named(options)))

    def _named(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"server_hostname": self.server_name or options.get("server_hostname")}


def client_context(tls: Tls) -> ssl.SSLContext:
    """The context for a connection; reads files. OSError and ValueError name the file that is of no use."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.server_name = tls.server_name
    context.check_hostname = tls.check_host
    try:
        context.load_verify_locations(tls.ca_file)
    except OSError as error:
        raise ValueError(f"ca_file {tls.ca_file}: {_words(error)}") from None
    if tls.cert_file is not None:
        load_pair(context, tls.cert_file, tls.key_file)
    return context


def load_pair(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    """Load our certificate and its key; ValueError names the files where they are of no use."""
    try:
        # Without a password of our own, a key that has one would be asked for on the terminal.
        context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as error:
        raise ValueError(f"cert_file {cert_file}, key_file {key_file}: {_words(error)}") from None


async def broker_context(broker: MqttBroker, timeout_s: float) -> ssl.SSLContext | None:
    """The context for a broker whose certificate is good, None for a plain one; OSError and ValueError say why not.

    A password goes to nobody before this is done.
    """
    if password_is_plain(broker):
        raise ValueError("the password is not sent: the connection has no `tls`")
    if broker.tls is None:
        return None
    context = await heeded(asyncio.to_thread(client_context, broker.tls))
    # paho would leave the socket of a failed handshake open.
    _, writer = await _connected(broker, context, timeout_s)
    writer.transport.abort()
    return context


async def refused_certificate(broker: MqttBroker, timeout_s: float) -> str | None:
    """What the broker has against our certificate, or that we show none; None if nothing is heard of that in time.

    For a connection that has failed: with TLS 1.3 the client's handshake is done before the server has looked at the
    client's certificate (RFC 8446, 4.4.2.4 and 6), so that its refusal looks like a lost connection.
    """
    if broker.tls is None:
        return None
    try:
        context = await heeded(asyncio.to_thread(client_context, broker.tls))
        reader, writer = await _connected(broker, context, timeout_s)
    except (OSError, ValueError):
        return None
    try:
        async with asyncio.timeout(timeout_s):
            await reader.read(1)
    except ssl.SSLError as error:
        ours = "it refuses our certificate" if broker.tls.cert_file is not None else "it asks for a client certificate"
        return f"{ours}: {_words(error)}"
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return None


async def _connected(
    broker: MqttBroker, context: ssl.SSLContext, timeout_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.open_connection(broker.host, broker.port, ssl=context)
    except ssl.SSLError as error:
        raise ValueError(f"TLS: {_words(error)}") from None


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)

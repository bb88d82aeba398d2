"""One connection to an OPC UA server, from hello to close, over asyncua's client services.

asyncua's own supervisor, watchdog and reconnection stay off: they hold back requests made while the connection is away
and send them seconds later. A connection here is used once; whoever owns it makes a new one. Service and type names
follow OPC 10000-4.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from asyncua import Client, ua
from asyncua.client.ua_client import UaClientState
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from drivers.cancellation import heeded
from drivers.certificates import CertificateError
from drivers.opcua.refusals import CHANNEL, CLOSED, CONNECT, LOGIN, in_words, without_status
from drivers.opcua.security import choose_token, identity_of, read_login, refusal, secure
from drivers.writer import ConnectionBroken

if TYPE_CHECKING:
    from datetime import datetime

    from config.profile import OpcUaAddress
    from config.site import OpcUaSecurity, OpcUaServer
    from drivers.opcua.security import Login, ServerIdentity

_T = TypeVar("_T")

# What asyncua raises for a peer that is gone, refuses, or sends bytes that are not OPC UA. RuntimeError: uvloop's, for
# a transport that has just been closed.
_FAILURES: Final = (
    OSError,
    TimeoutError,
    ua.UaError,
    struct.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    InvalidSignature,
    UnsupportedAlgorithm,
)
_KEEP_ALIVE_COUNT: Final = 3
_NODES_PER_REQUEST: Final = 100
_SESSION_LIFE_MS: Final = 30_000
_CHANNEL_LIFE_MS: Final = 3_600_000
_RENEW_AT: Final = 0.75  # of the security token's lifetime: OPC 10000-4, 5.6.2
_ABORT_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_NAMESPACE_ARRAY: Final = ua.NodeId(ua.ObjectIds.Server_NamespaceArray)
_OBJECTS: Final = ua.NodeId(ua.ObjectIds.ObjectsFolder)
_HIERARCHICAL: Final = ua.NodeId(ua.ObjectIds.HierarchicalReferences)


class Publication(NamedTuple):
    """What the server has published since the last look: the newest value of each changed node, by its index."""

    changes: dict[int, Any]
    published: datetime


class _Refused(ConnectionBroken):
    """The server answers with a status code that is bad; the connection itself is as good as before."""


@dataclass(slots=True)
class KeptSession:
    """What a connection that broke leaves to the next one: a session that the server may still have.

    `subscription`: the one to be deleted in it. Good for one attempt. A session in which something fell silent is not
    left: it may be the session itself that is stuck.
    """

    token: Any = None
    nonce: bytes | None = None
    policies: Any = None
    subscription: int | None = None
    ends_s: float = 0.0

    def take(self, now_s: float) -> KeptSession | None:
        """The session, once; None where there is none, or its time at the server is over."""
        taken = replace(self)
        self.token = None
        return taken if taken.token is not None and now_s < taken.ends_s else None


class OpcUaConnection:
    """One session on one server. Every call but `close` raises `ConnectionBroken` when no sense can be had from it.

    With `kept`, a session that the last connection has left is activated on the new channel before one is created
    (OPC 10000-4, 5.7.3 and 6.7), so that a link that flaps does not fill the server with sessions.
    """

    def __init__(self, address: OpcUaServer, timeout_s: float, kept: KeptSession | None = None) -> None:
        _quieten_asyncua()
        self._address = address
        self._timeout_s = timeout_s
        self._client = _new_client(address, timeout_s)
        self._kept = kept
        self._subscription: int | None = None
        self._is_worth_keeping = False
        self._changes: dict[int, Any] = {}
        self._published: datetime | None = None
        self._fault = ""
        self._arrived = asyncio.Event()
        self.silence_s = 0.0

    async def open(self) -> None:
        """Connect, open the channel, and activate the session that was left, or create one and activate that.

        With security, the server is asked who it is over a connection of its own before.
        """
        client, security = self._client, self._address.security
        login = await read_login(self._address)
        if security is not None:
            await secure(client, security, await self._endpoints())
        await self._sense(client.connect_socket(), CONNECT)
        await self._sense(client.send_hello(), "no hello")
        await self._sense(client.open_secure_channel(), CHANNEL)
        client.user_private_key = login.key
        if not await self._resumed(login):
            created = await self._sense(client.create_session(), "no session")
            if security is not None:
                self._is_who_it_was(created.ServerEndpoints, security)
            await self._activate(login)
        self._is_worth_keeping = True

    async def _resumed(self, login: Login) -> bool:
        """Whether the server still had the last connection's session, which is ours again."""
        client = self._client
        left = None if self._kept is None else self._kept.take(asyncio.get_running_loop().time())
        if left is None:
            return False
        client.uaclient.session.restore_authentication_token(left.token)
        client._server_nonce, client._policy_ids = left.nonce, left.policies
        try:
            await self._activate(login)
        except _Refused:
            client.uaclient.session.reset_authentication_token()
            client._server_nonce = None
            return False
        if left.subscription is not None:
            # What it published would be taken for the next subscription's.
            with suppress(_Refused):
                await self._sense(client.uaclient.delete_subscriptions([left.subscription]), "not deleted")
        return True

    async def _activate(self, login: Login) -> None:
        choose_token(self._client, login, plain_is_accepted=self._address.acknowledged_plain_password)
        activating = self._client.activate_session(login.username, login.password, login.certificate)
        await self._sense(activating, LOGIN)

    async def identity(self) -> ServerIdentity:
        """Who the server says it is at the endpoint of the address, whether it is trusted or not."""
        assert self._address.security is not None
        try:
            return identity_of(self._address.security, await self._endpoints())
        except CertificateError as error:
            raise ConnectionBroken(str(error)) from None

    async def keep(self) -> None:
        """Renew the channel before its token runs out, until cancelled."""
        while True:
            await asyncio.sleep(self._client.secure_channel_timeout / 1000 * _RENEW_AT)
            await self._sense(self._client.open_secure_channel(renew=True), "the channel was not renewed")
            self._client.uaclient.revolve_security_token()

    async def lost(self) -> None:
        """Wait until the transport is gone; then raise."""
        async with self._client.uaclient.subscribe_state() as states:
            await states.wait_for_state(UaClientState.DISCONNECTED)
        raise ConnectionBroken(CLOSED)

    async def resolve(self, addresses: Sequence[OpcUaAddress]) -> list[Any]:
        """The node id of each address by the server's present namespaces; a text saying why not where there is none."""
        values = await self.read([_NAMESPACE_ARRAY])
        uris = list(values[0].Value.Value or ()) if values[0].StatusCode.is_good() else []
        found: list[Any] = [_node_id(address, uris) for address in addresses]
        by_path = [at for at, node in enumerate(found) if isinstance(node, ua.BrowsePath)]
        if by_path:
            call = self._client.uaclient.translate_browsepaths_to_nodeids([found[at] for at in by_path])
            results = await self._sense(call, "no browse paths")
            _same_length(results, by_path)
            for at, result in zip(by_path, results, strict=True):
                found[at] = result.Targets[0].TargetId if result.Targets else result.StatusCode.name
        return found

    async def subscribe(self, nodes: Sequence[Any], interval_s: float) -> list[bool]:
        """Have changes of `nodes` published; tells which of them the server monitors."""
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = interval_s * 1000
        parameters.RequestedMaxKeepAliveCount = _KEEP_ALIVE_COUNT
        parameters.RequestedLifetimeCount = 100 * _KEEP_ALIVE_COUNT
        parameters.PublishingEnabled = True
        call = self._client.uaclient.create_subscription(parameters, self._take)
        created = await self._sense(call, "no subscription")
        self._subscription = created.SubscriptionId
        keep_alive_s = created.RevisedPublishingInterval / 1000 * max(created.RevisedMaxKeepAliveCount, 1)
        self.silence_s = 3 * keep_alive_s + self._timeout_s
        request = ua.CreateMonitoredItemsParameters()
        request.SubscriptionId = created.SubscriptionId
        request.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.ItemsToCreate = [_monitored(at, node, interval_s) for at, node in enumerate(nodes)]
        results = await self._sense(self._client.uaclient.create_monitored_items(request), "nothing is monitored")
        _same_length(results, nodes)
        return [bool(result.StatusCode.is_good()) for result in results]

    async def publication(self) -> Publication:
        """What came since the last call: changes, or nothing but a sign that there are none (keep-alive)."""
        try:
            async with asyncio.timeout(self.silence_s):
                await self._arrived.wait()
        except TimeoutError:
            self._is_worth_keeping = False
            words = f"the subscription was silent for {self.silence_s:.1f} s"
            raise ConnectionBroken(words, timed_out=True) from None
        self._arrived.clear()
        if self._fault:
            self._is_worth_keeping = False
            raise ConnectionBroken(f"the subscription ended: {self._fault}")
        assert self._published is not None
        changes, self._changes = self._changes, {}
        return Publication(changes, self._published)

    async def read(self, nodes: Sequence[Any]) -> list[Any]:
        """The data value of each node's value attribute."""
        values: list[Any] = []
        for at in range(0, len(nodes), _NODES_PER_REQUEST):
            some = list(nodes[at : at + _NODES_PER_REQUEST])
            answer = await self._sense(self._client.uaclient.read_attributes(some, ua.AttributeIds.Value), "no read")
            _same_length(answer, some)
            values.extend(answer)
        return values

    async def write(self, nodes: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """Write variants in one request; the status code of each."""
        # No timestamps: a server that can't set them refuses the whole value (Bad_WriteNotSupported).
        data = [ua.DataValue(value) for value in values]
        answer = await self._sense(self._client.uaclient.write_attributes(list(nodes), data), "no answer to a write")
        _same_length(answer, nodes)
        return list(answer)

    async def close(self, *, orderly: bool) -> None:
        """End the connection; unless `orderly`, reset it so that nothing sent can still arrive."""
        uaclient = self._client.uaclient
        # The session's own task: asyncua cancels it, but doesn't wait for its end.
        publishing: asyncio.Task[None] | None = uaclient.session._publish_task
        if not orderly and self._is_worth_keeping:
            self._leave_session()
        try:
            async with asyncio.timeout(self._timeout_s):
                if orderly and uaclient.state is UaClientState.CONNECTED:
                    await uaclient.close_session(True)
                    await uaclient.close_secure_channel()
        except _FAILURES:
            pass
        finally:
            if publishing is not None:
                publishing.cancel()
            self._drop_transport()
            uaclient.disconnect_socket()
            ending = [self._until_closed(), *([publishing] if publishing is not None else [])]
            await asyncio.gather(*ending, return_exceptions=True)

    def _leave_session(self) -> None:
        """Let the next connection try the session of this one."""
        kept, client = self._kept, self._client
        if kept is None:
            return
        kept.token, kept.nonce = client.uaclient.session.authentication_token, client._server_nonce
        kept.policies, kept.subscription = client._policy_ids, self._subscription
        kept.ends_s = asyncio.get_running_loop().time() + client.session_timeout / 1000

    async def _endpoints(self) -> list[Any]:
        """The endpoints of the server, asked over an unsecured connection that ends with the answer."""
        asking = OpcUaConnection(self._address, self._timeout_s)
        client = asking._client
        try:
            await self._sense(client.connect_socket(), CONNECT)
            await self._sense(client.send_hello(), "no hello")
            await self._sense(client.open_secure_channel(), "no channel to ask who the server is")
            return list(await self._sense(client.get_endpoints(), "the server does not say who it is") or ())
        finally:
            await asking.close(orderly=False)

    def _is_who_it_was(self, endpoints: Sequence[Any] | None, security: OpcUaSecurity) -> None:
        """Hold what the server said before the channel was secure against what it says within."""
        try:
            reason = refusal(identity_of(security, endpoints or ()), security)
        except CertificateError as error:
            reason = str(error)
        if reason is not None:
            raise ConnectionBroken(f"the server is refused: {reason}")

    def _drop_transport(self) -> None:
        protocol = self._client.uaclient.protocol
        transport = protocol.transport if protocol is not None else None
        if transport is None:
            return
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)
        transport.abort()

    async def _until_closed(self) -> None:
        # A transport that was aborted closes its socket in the next turn of the loop.
        await asyncio.sleep(0)

    def _take(self, result: Any) -> None:
        message = result.NotificationMessage
        for notification in message.NotificationData or ():
            if isinstance(notification, ua.DataChangeNotification):
                self._changes.update((item.ClientHandle, item.Value) for item in notification.MonitoredItems or ())
            elif isinstance(notification, ua.StatusChangeNotification):
                self._fault = str(notification.Status.name)
        self._published = message.PublishTime
        self._arrived.set()

    async def _sense(self, call: Awaitable[_T], what: str) -> _T:
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return await heeded(call)
        except ua.UaStatusCodeError as error:
            status = ua.StatusCode(error.code).name
            raise _Refused(f"{what}: {in_words(status, self._address, what)}") from None
        except TimeoutError:
            self._is_worth_keeping = False
            raise ConnectionBroken(f"{what}: no answer within {self._timeout_s:g} s", timed_out=True) from None
        except _FAILURES as error:
            raise ConnectionBroken(f"{what}: {without_status(error, self._address, what)}") from None


def _new_client(address: OpcUaServer, timeout_s: float) -> Client:
    client = Client(address.url, timeout=timeout_s)
    client.session_timeout = _SESSION_LIFE_MS
    client.secure_channel_timeout = _CHANNEL_LIFE_MS
    client.name = client.description = "Lamina"
    client.application_uri = "urn:lamina:gateway"
    return client


def _node_id(address: OpcUaAddress, uris: Sequence[str]) -> Any:
    if address.namespace not in uris:
        return f"namespace {address.namespace} is not on the server"
    index = list(uris).index(address.namespace)
    if address.path is not None:
        return _browse_path(address.path, index)
    try:
        return ua.NodeId.from_string(f"ns={index};{address.identifier}")
    except (ua.UaError, ValueError):
        return f"{address.identifier} is no identifier"


def _browse_path(path: Sequence[str], index: int) -> Any:
    elements = []
    for step in path:
        element = ua.RelativePathElement()
        element.ReferenceTypeId = _HIERARCHICAL
        element.IsInverse = False
        element.IncludeSubtypes = True
        element.TargetName = ua.QualifiedName(step, index)
        elements.append(element)
    browse_path = ua.BrowsePath()
    browse_path.StartingNode = _OBJECTS
    browse_path.RelativePath.Elements = elements
    return browse_path


def _monitored(handle: int, node: Any, interval_s: float) -> Any:
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = node
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    request.RequestedParameters.ClientHandle = handle
    request.RequestedParameters.SamplingInterval = interval_s * 1000
    request.RequestedParameters.QueueSize = 1
    request.RequestedParameters.DiscardOldest = True
    return request


def _same_length(answer: Sequence[Any] | None, asked: Sequence[Any]) -> None:
    if len(answer or ()) != len(asked):
        raise ConnectionBroken(f"{len(answer or ())} results for {len(asked)} items")


def _quieten_asyncua() -> None:
    """Each failure is told once by the driver, with its reason; asyncua would add a traceback for each."""
    logging.getLogger("asyncua").setLevel(logging.WARNING)
    for name in (
        "asyncua.client.client",
        "asyncua.client.ua_client",
        "asyncua.client.ua_session",
        "asyncua.uaprotocol",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)

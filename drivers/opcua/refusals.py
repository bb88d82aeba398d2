"""What a server's refusal means to whoever connects to it (codes: OPC 10000-6, annex A.2; use: OPC 10000-4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature

from drivers.reach import ended, unreached

if TYPE_CHECKING:
    from config.site import OpcUaServer

CONNECT: Final = "cannot connect"
CHANNEL: Final = "no secure channel"
LOGIN: Final = "login refused"
CLOSED: Final = "the server closed the connection"

_TRUST_US: Final = "trust {certificate} there, often by moving it out of the server's list of rejected ones"
_UNSAID: Final = "the server refuses us and does not say why; mostly it does not trust our certificate: " + _TRUST_US
_DISTRUSTED: Final = "where it does not trust our certificate: " + _TRUST_US
_FULL: Final = "the server takes no more sessions: others are connected, or it still holds some that have broken"
_ENDED: Final = "the server has ended our session"
_NO_POLICY: Final = "the server does not take {security} here"
_NO_ENDPOINT: Final = "the server has no endpoint for {security}: give `security` as the server has it"
_LIBRARY_FOUND_NONE: Final = "No matching endpoints"
"""What asyncua says, in an error of no class of its own, when it looks through a server's endpoints."""

_STOPPING: Final = "the server is shutting down"
_CONNECTING: Final = {
    "BadCertificateUntrusted": "the server does not trust our certificate: " + _TRUST_US,
    "BadCertificateChainIncomplete": "the server does not trust our certificate: " + _TRUST_US,
    # OPC 10000-4, 6.1.3: what exactly is wrong with a certificate is not told over the wire.
    "BadSecurityChecksFailed": _UNSAID,
    "BadCertificateInvalid": "the server can make nothing of our certificate {certificate}",
    "BadCertificateTimeInvalid": "by the server's clock our certificate is not valid now: compare the clocks",
    "BadCertificateUriInvalid": "the application URI in our certificate is not the one that the server expects",
    "BadCertificateHostNameInvalid": "the server does not find this machine's name in our certificate",
    "BadCertificateUseNotAllowed": "our certificate lacks a key usage that the server asks for",
    "BadCertificatePolicyCheckFailed": "the server asks for a longer key, or another hash, in our certificate",
    "BadCertificateRevoked": "the server has our certificate on a revocation list",
    "BadSecurityPolicyRejected": _NO_POLICY,
    "BadSecurityModeRejected": _NO_POLICY,
    "BadTooManySessions": _FULL,
    "BadMaxConnectionsReached": _FULL,
    "BadTcpServerTooBusy": _FULL,
    "BadTcpNotEnoughResources": _FULL,
    "BadTcpEndpointUrlInvalid": "the server knows no endpoint {url}",
    "BadShutdown": _STOPPING,
    "BadServerHalted": _STOPPING,
    "BadSessionClosed": _ENDED,
    "BadSessionIdInvalid": _ENDED,
    "BadSecureChannelClosed": _ENDED,
    "BadSecureChannelIdInvalid": _ENDED,
}
_BY_NAME: Final = "wrong user or password"
_BY_CERTIFICATE: Final = "the server does not let the holder of {user} in: trust that certificate among its users"
_ANONYMOUS: Final = "the server lets nobody in without a login: give `username` and `password_env`"
_LOGIN: Final = frozenset(
    {"BadUserAccessDenied", "BadIdentityTokenRejected", "BadIdentityTokenInvalid", "BadUserSignatureInvalid"}
)


def in_words(status: str, address: OpcUaServer, stage: str) -> str:
    """A status by its name in the standard, with what to do about it where that is known.

    `stage`: what was under way; the same code says one thing of a login and another of a node.
    """
    words = _login_words(address) if stage == LOGIN and status in _LOGIN else _CONNECTING.get(status)
    return status if words is None else f"{_filled(words, address)} ({status})"


def without_status(error: Exception, address: OpcUaServer, stage: str) -> str:
    """A failure that the server has not told a status for."""
    if stage == CONNECT and isinstance(error, OSError | UnicodeError):
        there = urlsplit(address.url)
        return unreached(error, there.hostname or "", there.port)
    if isinstance(error, OSError) and error.errno is not None:
        return ended(error)
    if str(error).startswith(_LIBRARY_FOUND_NONE):
        return _filled(_NO_ENDPOINT, address)
    if isinstance(error, OSError | RuntimeError):
        distrusted = stage == CHANNEL and address.security is not None
        return f"{CLOSED}; {_filled(_DISTRUSTED, address)}" if distrusted else CLOSED
    if isinstance(error, InvalidSignature):
        return "what the server sends is not signed with the key of its certificate"
    return f"what the server sends makes no sense as OPC UA ({type(error).__name__})"


def _filled(words: str, address: OpcUaServer) -> str:
    security = address.security
    return words.format(
        certificate="the gateway's certificate" if security is None else security.cert_file,
        security="a connection without `security`" if security is None else f"{security.policy} with {security.mode}",
        user=address.user_cert_file,
        url=address.url,
    )


def _login_words(address: OpcUaServer) -> str:
    if address.username is not None:
        return _BY_NAME
    return _ANONYMOUS if address.user_cert_file is None else _BY_CERTIFICATE

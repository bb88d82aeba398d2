"""Who an OPC UA server is and who we are there: trusted certificates, security policies, logins.

The server's certificate is asked for without security (GetEndpoints, as OPC 10000-4, 5.5.4, foresees it) and counts for
nothing until it is found in the trust folder; that the server has its key shows when the channel is opened with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.crypto import security_policies as policies

from config.security_checks import password_is_plain
from drivers.authorities import names_host, read_trust
from drivers.cancellation import heeded
from drivers.certificates import (
    Certificate,
    CertificateError,
    chain_from,
    load_pair,
    utc_now,
)
from drivers.writer import ConnectionBroken

if TYPE_CHECKING:
    from asyncua import Client

    from config.site import OpcUaSecurity, OpcUaServer

POLICIES: Final = {
    "Basic256Sha256": policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": policies.SecurityPolicyAes256Sha256RsaPss,
}
MODES: Final = {
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_ENCRYPTING: Final = frozenset(policy.URI for policy in POLICIES.values())
_TOKENS: Final = {
    ua.UserTokenType.Anonymous: "nobody without a login",
    ua.UserTokenType.UserName: "no login by name and password",
    ua.UserTokenType.Certificate: "no login by certificate",
}


class Login(NamedTuple):
    """Who we are to the server; anonymous with nothing in it."""

    username: str | None = None
    password: str | None = None
    certificate: Any = None
    key: Any = None

    @property
    def token(self) -> Any:
        """The kind of user identity token."""
        if self.username is not None:
            return ua.UserTokenType.UserName
        return ua.UserTokenType.Anonymous if self.certificate is None else ua.UserTokenType.Certificate


class ServerIdentity(NamedTuple):
    """What a server says it is, as found in one of its endpoints; `issuers` came with the certificate."""

    application_uri: str
    certificate: Certificate
    issuers: tuple[Certificate, ...] = ()


async def read_login(address: OpcUaServer) -> Login:
    """Name and password, or certificate and key; `ConnectionBroken` where they can't be had or must not be sent."""
    password = None
    if address.password_env is not None:
        password = os.environ.get(address.password_env)
        if password is None:
            raise ConnectionBroken(f"the environment variable {address.password_env} is not set")
    if password_is_plain(address):
        raise ConnectionBroken("the password is not sent: the connection has no `security`")
    if address.user_cert_file is None or address.user_key_file is None:
        return Login(address.username, password)
    certificate, key = await _pair(address.user_cert_file, address.user_key_file)
    return Login(certificate=certificate.x509, key=key)


async def secure(client: Client, security: OpcUaSecurity, endpoints: Sequence[Any]) -> ServerIdentity:
    """Make the next channel of a client a secure one; `ConnectionBroken` says why the server is refused."""
    host = urlsplit(client.server_url.geturl()).hostname or ""
    try:
        server = identity_of(security, endpoints)
        reason = await heeded(asyncio.to_thread(distrust, server, security, host))
    except CertificateError as error:
        raise ConnectionBroken(str(error)) from None
    reason = reason or refusal(server, security)
    if reason is not None:
        raise ConnectionBroken(f"the server is refused: {reason}")
    ours, key = await _pair(security.cert_file, security.key_file)
    if ours.application_uri is None:
        raise ConnectionBroken(f"{security.cert_file} names no application URI")
    client.application_uri = ours.application_uri
    policy = POLICIES[security.policy](server.certificate.x509, ours.x509, key, MODES[security.mode])
    client.security_policy = policy
    client.uaclient.set_security(policy)
    return server


def identity_of(security: OpcUaSecurity, endpoints: Sequence[Any]) -> ServerIdentity:
    """Who the server says it is at the endpoint that is meant; CertificateError where there is none."""
    wanted = (POLICIES[security.policy].URI, MODES[security.mode])
    for endpoint in endpoints:
        if (endpoint.SecurityPolicyUri, endpoint.SecurityMode) == wanted:
            certificate, *issuers = chain_from(endpoint.ServerCertificate or b"", "the server's endpoint")
            return ServerIdentity(str(endpoint.Server.ApplicationUri), certificate, tuple(issuers))
    words = f"the server does not offer {security.policy} with {security.mode}"
    raise CertificateError(f"{words}; it offers {_offered(endpoints) or 'nothing'}")


def distrust(server: ServerIdentity, security: OpcUaSecurity, host: str) -> str | None:
    """Why a server's certificate is not trusted; None if it is. Reads the trust folder; CertificateError without one.

    Trusted is a certificate that is in the folder, or that an authority in there vouches for (OPC 10000-4, 6.1.3). An
    authority may vouch for many machines, so that the one that is meant has to be told by its URI or host.
    """
    trust = read_trust(Path(security.trust_dir))
    certificate, now = server.certificate, utc_now()
    if certificate.sha256 in trust.own and not certificate.is_authority:
        return None
    named = _named(certificate)
    if not trust.authorities:
        return f"{named} is not in {security.trust_dir}; compare it, then put it there by `gateway certificate trust`"
    objection = certificate.objection(now) or trust.refusal(certificate, server.issuers, now)
    if objection is not None:
        return f"{named} is not in {security.trust_dir}, and {objection}"
    if security.server_uri is None and not names_host(certificate, host):
        return f"{named} is not for the host {host}, and the site file does not say which `server_uri` is meant"
    return None


def refusal(server: ServerIdentity, security: OpcUaSecurity) -> str | None:
    """Why a server must not be talked to even if its certificate is trusted; None if it may."""
    certificate = server.certificate
    named = _named(certificate)
    objection = certificate.objection(utc_now())
    if objection is not None:
        return f"{named} {objection}"
    if certificate.application_uri != server.application_uri:
        return f"{named} is of {certificate.application_uri}, and the server says it is {server.application_uri}"
    if security.server_uri not in (None, server.application_uri):
        return f"it is {server.application_uri}, and {security.server_uri} is asked for"
    return None


def _named(certificate: Certificate) -> str:
    return f"its certificate {certificate.thumbprint} ({certificate.subject})"


def choose_token(client: Client, login: Login, *, plain_is_accepted: bool) -> None:
    """Keep the way to log in that is used, of those the server offers; `ConnectionBroken` where none will do.

    A password goes out in an encrypted channel, or encrypted for the server's certificate (OPC 10000-4, 7.40.4); the
    server alone would say which, and a false one would say neither.
    """
    kind = login.token
    offered = [policy for policy in client._policy_ids or () if policy.TokenType == kind]
    if not offered:
        raise ConnectionBroken(f"login refused: the server takes {_TOKENS[kind]}")
    channel = client.security_policy
    if kind == ua.UserTokenType.UserName and channel.Mode != ua.MessageSecurityMode.SignAndEncrypt:
        encrypting = [each for each in offered if (each.SecurityPolicyUri or channel.URI) in _ENCRYPTING]
        if not encrypting and not plain_is_accepted:
            raise ConnectionBroken("the password is not sent: the server asks for it unencrypted")
        offered = encrypting or offered
    client._policy_ids = offered


async def _pair(cert_file: str, key_file: str) -> tuple[Certificate, Any]:
    try:
        certificate, key = await heeded(asyncio.to_thread(load_pair, Path(cert_file), Path(key_file)))
    except CertificateError as error:
        raise ConnectionBroken(str(error)) from None
    objection = certificate.objection(utc_now())
    if objection is not None:
        raise ConnectionBroken(f"our certificate {cert_file} {objection}")
    return certificate, key


def _offered(endpoints: Sequence[Any]) -> str:
    modes = {mode: name for name, mode in MODES.items()}
    found = {
        f"{str(each.SecurityPolicyUri).rpartition('#')[2]} with {modes[each.SecurityMode]}"
        for each in endpoints
        if each.SecurityMode in modes
    }
    return ", ".join(sorted(found))

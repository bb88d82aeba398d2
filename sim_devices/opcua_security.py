"""How a twin's OPC UA server is secured: its certificate, who may connect, and who may log in."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from cryptography.hazmat.primitives.serialization import Encoding

MODES: Final = {"sign": "Sign", "sign_and_encrypt": "SignAndEncrypt"}


@dataclass(frozen=True, slots=True)
class TwinSecurity:
    """`certificate` is DER and `key` PEM; `modes` are keys of `MODES`, or none, and `policy` as OPC 10000-7 names it.

    `clients` are the client certificates (DER) that are let in, None for all. `users` are names with their passwords,
    `user_certificates` (DER) log in by themselves, and without `anonymous` nobody else does.
    """

    application_uri: str
    certificate: bytes
    key: bytes = field(repr=False)
    modes: tuple[str, ...] = ("sign_and_encrypt",)
    policy: str = "Basic256Sha256"
    clients: frozenset[bytes] | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    user_certificates: frozenset[bytes] = frozenset()
    anonymous: bool = True

    async def apply(self, server: Server) -> None:
        """Secure a server that has not started yet."""
        await server.set_application_uri(self.application_uri)
        await server.load_certificate(self.certificate, "der")
        await server.load_private_key(self.key, format="pem")
        server.set_security_policy([self._policy_type(mode) for mode in self.modes])
        tokens: list[Any] = [ua.AnonymousIdentityToken] if self.anonymous else []
        tokens += [ua.UserNameIdentityToken] if self.users else []
        tokens += [ua.X509IdentityToken] if self.user_certificates else []
        server.set_identity_tokens(tokens)
        server.iserver.user_manager = _Users(self)
        server.iserver.certificate_validator = self._judge

    def _policy_type(self, mode: str) -> Any:
        if mode == "none":
            return ua.SecurityPolicyType.NoSecurity
        return ua.SecurityPolicyType[f"{self.policy.replace('_', '')}_{MODES[mode]}"]

    async def _judge(self, certificate: Any, _: Any) -> None:
        if self.clients is not None and certificate.public_bytes(Encoding.DER) not in self.clients:
            raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)


class _Users:
    """Asked at each login; the library gives the channel's certificate where nobody logs in with one."""

    def __init__(self, security: TwinSecurity) -> None:
        self._security = security

    def get_user(
        self, _: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        if username is not None:
            wanted = self._security.users.get(username)
            known = wanted is not None and hmac.compare_digest(wanted.encode(), (password or "").encode())
        else:
            known = self._security.anonymous or certificate in self._security.user_certificates
        return User(role=UserRole.User, name=username) if known else None

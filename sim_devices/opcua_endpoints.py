"""How a twin's OPC UA server is secured as the site file says, and the address that a driver is given for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.site import OpcUaSecurity, OpcUaServer
from sim_devices.opcua_security import TwinSecurity
from sim_devices.twin_certificates import certificate_der, make_pair


@dataclass(frozen=True, slots=True)
class SecuredEndpoint:
    """What the server is given, and what of the address is to be told beside `driver` and `url`."""

    security: TwinSecurity | None = None
    told: dict[str, Any] = field(default_factory=dict)


def secured_endpoint(name: str, address: OpcUaServer, folder: Path, *, host: str, declared: bool) -> SecuredEndpoint:
    """Certificates for a twin at `host`, in a folder that lasts as long as the server; plain without `security`.

    The server's certificate is made anew and is in the trust folder that is told. With `declared` the driver will be
    the site's own, and its certificates are those of the site file; else they are made as well. Raises OSError, and
    ValueError naming what of the site file is of no use.
    """
    security = address.security
    if security is None:
        return SecuredEndpoint()
    trusted = folder / "trusted"
    trusted.mkdir()
    uri = security.server_uri or f"urn:lamina:twin:{name}"
    server = make_pair(folder, name, uri, host)
    (trusted / f"{name}.der").write_bytes(server.der)
    ours, client = _client(security, folder, host, declared=declared)
    login, users, user_certificates = _login(address, folder, host, declared=declared)
    judge = TwinSecurity(
        uri,
        server.der,
        server.key_file.read_bytes(),
        modes=(security.mode,),
        policy=security.policy,
        clients=frozenset({client}),
        users=users,
        user_certificates=user_certificates,
        anonymous=not login,
    )
    section = security.model_dump(exclude_none=True) | ours | {"trust_dir": str(trusted)}
    return SecuredEndpoint(judge, {"security": section, **login})


def _client(security: OpcUaSecurity, folder: Path, host: str, *, declared: bool) -> tuple[dict[str, str], bytes]:
    """The driver's certificate and key, as the section of the address names them, and the certificate itself."""
    if declared:
        try:
            der = certificate_der(Path(security.cert_file))
        except ValueError as error:
            raise ValueError(f"address.security.cert_file: {error}") from None
        return {}, der
    pair = make_pair(folder, "gateway", "urn:lamina:gateway:bench", host)
    return {"cert_file": str(pair.cert_file), "key_file": str(pair.key_file)}, pair.der


def _login(
    address: OpcUaServer, folder: Path, host: str, *, declared: bool
) -> tuple[dict[str, Any], dict[str, str], frozenset[bytes]]:
    """Who logs in: as the address says it, names with passwords, and certificates."""
    if address.username is not None:
        password = os.environ.get(address.password_env) if address.password_env is not None else ""
        if password is None:
            words = f"the environment variable {address.password_env} is not set"
            raise ValueError(f"address.password_env: {words}")
        told = {"username": address.username, "password_env": address.password_env}
        return told, {address.username: password}, frozenset()
    if address.user_cert_file is None:
        return {}, {}, frozenset()
    if declared:
        try:
            der = certificate_der(Path(address.user_cert_file))
        except ValueError as error:
            raise ValueError(f"address.user_cert_file: {error}") from None
        return {"user_cert_file": address.user_cert_file, "user_key_file": address.user_key_file}, {}, frozenset({der})
    pair = make_pair(folder, "user", "urn:lamina:user:bench", host)
    told = {"user_cert_file": str(pair.cert_file), "user_key_file": str(pair.key_file)}
    return told, {}, frozenset({pair.der})

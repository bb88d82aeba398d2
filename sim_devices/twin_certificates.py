"""Certificates that are made for one run of twins, and what of the site file's own is used instead.

Fields of what is made: OPC 10000-6, 6.2.2, table "Application Instance Certificate".
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_KEY_BITS: Final = 2048
_LIFE: Final = timedelta(days=400)
_EARLIER: Final = timedelta(hours=1)
_OWNER: Final = 0o600


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key as files in PEM; `der` is the certificate."""

    cert_file: Path
    key_file: Path
    der: bytes


def make_pair(folder: Path, name: str, application_uri: str, host: str) -> Pair:
    """A self-signed certificate for a client or a server at `host`, and its key; raises OSError."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _LIFE)
        .add_extension(_names(application_uri, host), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key.pem", certificate.public_bytes(Encoding.DER))
    pair.cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    pair.key_file.touch(_OWNER)
    pair.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair


def certificate_der(path: Path) -> bytes:
    """The certificate in a file, PEM or DER, as DER; ValueError where there is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; `gateway certificate make` makes one") from None
    with suppress(ValueError):
        pem = b"-----BEGIN" in data
        found = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        return found.public_bytes(Encoding.DER)
    raise ValueError(f"{path} holds no certificate")


def _names(application_uri: str, host: str) -> x509.SubjectAlternativeName:
    try:
        named: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        named = x509.DNSName(host)
    here = x509.DNSName(socket.gethostname())
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(application_uri), named, here])

"""Application instance certificates (OPC 10000-6, 6.2.2) and folders of trusted ones, as files."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY_BITS: Final = (2048, 3072, 4096)
"""Lengths that every security policy for RSA takes (OPC 10000-7, policies Basic256Sha256 and Aes*_Sha256_*)."""

_PEM: Final = b"-----BEGIN"
_LARGEST_FILE: Final = 256 * 1024
_LONGEST_CHAIN: Final = 8
_EARLIER: Final = timedelta(hours=1)  # clocks of devices are wrong, and some by a time zone
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_READERS: Final = 0o644
_OWNER: Final = 0o600


class CertificateError(ValueError):
    """A file that holds no certificate or key that can be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate with what people compare; times are UTC."""

    x509: x509.Certificate
    der: bytes

    @property
    def thumbprint(self) -> str:
        """SHA-1 of the DER form in upper-case hexadecimal, as OPC 10000-4, 7.3, defines it and servers show it."""
        return hashlib.sha1(self.der, usedforsecurity=False).hexdigest().upper()

    @property
    def sha256(self) -> str:
        """SHA-256 of the DER form in upper-case hexadecimal."""
        return hashlib.sha256(self.der).hexdigest().upper()

    @property
    def subject(self) -> str:
        """The distinguished name, as RFC 4514 writes it."""
        return self.x509.subject.rfc4514_string()

    @property
    def issuer(self) -> str:
        """The distinguished name of who signed it."""
        return self.x509.issuer.rfc4514_string()

    @property
    def is_authority(self) -> bool:
        """Whether it may sign others (RFC 5280, 4.2.1.3 and 4.2.1.9), and is no application's own."""
        extensions = self.x509.extensions
        try:
            signs = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            usage = extensions.get_extension_for_class(x509.KeyUsage).value
        except (x509.ExtensionNotFound, ValueError):
            return False
        return signs and usage.key_cert_sign and self.application_uri is None

    @property
    def application_uri(self) -> str | None:
        """The URI among its alternative names; None where there is none, or more than one."""
        try:
            names = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return None
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        return uris[0] if len(uris) == 1 else None

    @property
    def not_before(self) -> datetime:
        """The first instant of its validity."""
        return self.x509.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """The last instant of its validity."""
        return self.x509.not_valid_after_utc

    def objection(self, now: datetime) -> str | None:
        """Why it can't be used now, whoever has it; None if it can."""
        if now > self.not_after:
            return f"expired on {self.not_after:%Y-%m-%d}"
        if now < self.not_before:
            return f"is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC"
        key = self.x509.public_key()
        if self.is_authority:
            return None
        if not isinstance(key, rsa.RSAPublicKey) or not KEY_BITS[0] <= key.key_size <= KEY_BITS[-1]:
            return f"has no RSA key of {KEY_BITS[0]} to {KEY_BITS[-1]} bits"
        return None


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a self-signed application instance certificate is to say."""

    name: str
    application_uri: str
    hosts: Sequence[str]
    organization: str = "Lamina"
    days: int = 1825
    key_bits: int = KEY_BITS[0]


def certificate_from(data: bytes, where: str) -> Certificate:
    """A certificate in DER or PEM, of a chain the first; raises CertificateError that names `where`."""
    try:
        found = x509.load_pem_x509_certificate(data) if _PEM in data else x509.load_der_x509_certificate(_first(data))
        return Certificate(found, found.public_bytes(serialization.Encoding.DER))
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{where} holds no certificate") from None


def chain_from(data: bytes, where: str) -> tuple[Certificate, ...]:
    """Certificates in DER that follow each other, the application's own first (OPC 10000-6, 6.2.6).

    Raises CertificateError where there is none, or something else behind them.
    """
    found: list[Certificate] = []
    while data and len(found) < _LONGEST_CHAIN:
        first = _first(data)
        found.append(certificate_from(first, where))
        data = data[len(first) :]
    return tuple(found) or (certificate_from(b"", where),)


def load_certificate(path: Path) -> Certificate:
    """A certificate from a file; raises CertificateError."""
    return certificate_from(file_content(path), str(path))


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """An RSA key without a password from a file in PEM or DER; raises CertificateError."""
    data = file_content(path)
    try:
        if _PEM in data:
            key = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_der_private_key(data, None)
    except TypeError:
        raise CertificateError(f"{path}: the key has a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{path} holds no key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CertificateError(f"{path}: the key is not RSA")
    return key


def load_pair(cert_file: Path, key_file: Path) -> tuple[Certificate, rsa.RSAPrivateKey]:
    """A certificate and its key; raises CertificateError, also where they don't belong together."""
    certificate, key = load_certificate(cert_file), load_key(key_file)
    if key.public_key() != certificate.x509.public_key():
        raise CertificateError(f"{key_file} is not the key of {cert_file}")
    return certificate, key


def trusted_certificates(folder: Path) -> Iterator[tuple[Path, Certificate]]:
    """The certificates in a trust folder by file name, without what is none; CertificateError without a folder."""
    for path in folder_files(folder):
        with suppress(CertificateError):
            yield path, load_certificate(path)


def folder_files(folder: Path) -> list[Path]:
    """The files in a trust folder by name; CertificateError without a folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise CertificateError(f"{folder}: {error.strerror}") from None


def trust(folder: Path, certificate: Certificate) -> Path:
    """Put a certificate into a trust folder, which is made where it isn't there; the file. Raises CertificateError."""
    names = certificate.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = _NOT_IN_A_NAME.sub("-", str(names[0].value) if names else "").strip(".-")[:60] or "server"
    path = folder / f"{name}.{certificate.thumbprint[:16]}.der"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, certificate.der, _READERS)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None
    return path


def make_certificate(request: CertificateRequest, now: datetime) -> tuple[Certificate, bytes]:
    """A self-signed certificate for a client and a server, and its key in PEM; raises CertificateError.

    Fields by OPC 10000-6, 6.2.2, table "Application Instance Certificate".
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=request.key_bits)
    public = key.public_key()
    try:
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, request.name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, request.organization),
            ]
        )
        alternative = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(request.application_uri), *map(_host_name, request.hosts)]
        )
    except ValueError as error:
        raise CertificateError(str(error)) from None
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        # It has signed itself.
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=request.days))
        .add_extension(alternative, critical=False)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(signed, signed.public_bytes(serialization.Encoding.DER)), pem


def write_pair(cert_file: Path, key_file: Path, certificate: Certificate, key_pem: bytes) -> None:
    """Write a certificate and its key, which nobody but its owner can read, in place of what is there; OSError."""
    write_file(key_file, key_pem, _OWNER)
    write_file(cert_file, certificate.der, _READERS)


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Write a whole file or none, with these permissions from the start; raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def own_hosts() -> list[str]:
    """What this machine is called."""
    return list(dict.fromkeys([socket.gethostname(), "localhost"]))


def utc_now() -> datetime:
    """The wall clock, which certificates are valid by."""
    return datetime.now(UTC)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def file_content(path: Path) -> bytes:
    """What a file holds, up to the size of the largest that makes sense; raises CertificateError."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None


def _first(chain: bytes) -> bytes:
    """The first of certificates that follow each other in DER, whose length is in the bytes behind the first tag."""
    if len(chain) < 4 or chain[:2] != b"\x30\x82":
        return chain
    return chain[: 4 + int.from_bytes(chain[2:4], "big")]

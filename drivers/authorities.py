"""Trust by certificate authorities: what a trust folder holds, and whether somebody in it vouches for a certificate.

The steps of OPC 10000-4, 6.1.3, for certificates that are not in the trust list: chain, validity, revocation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

from drivers.certificates import Certificate, CertificateError, certificate_from, file_content, folder_files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

_PEM_LIST: Final = b"-----BEGIN X509 CRL"
_MOST_ISSUERS: Final = 4


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What an authority has taken back (RFC 5280, section 5), and the file it is in."""

    crl: x509.CertificateRevocationList
    file: Path


@dataclass(frozen=True, slots=True)
class TrustList:
    """What a trust folder holds.

    An authority is a certificate that may sign others and is no application's own: one that names an application URI
    vouches for itself alone, whatever else it says of itself.
    """

    own: frozenset[str] = frozenset()
    authorities: tuple[Certificate, ...] = ()
    lists: tuple[RevocationList, ...] = field(default=())

    def refusal(self, certificate: Certificate, issuers: Sequence[Certificate], now: datetime) -> str | None:
        """Why nobody in the list vouches for a certificate that is valid itself; None where somebody does.

        `issuers`: what else came with it, to be found between it and an authority.
        """
        unsaid = f"is signed by {certificate.issuer}, which"
        named = [authority for authority in self.authorities if authority.subject == certificate.issuer]
        if not named and not any(issuer.subject == certificate.issuer for issuer in issuers):
            return f"{unsaid} is not among the trusted authorities"
        for authority in named:
            objection = authority.objection(now)
            if objection is not None:
                return f"{unsaid} {objection}"
        try:
            chain = self._chain(certificate, issuers, now)
        except VerificationError:
            return f"says that it is signed by {certificate.issuer}; that does not hold for any trusted authority"
        for signed, issuer in pairwise(chain):
            revoked = self._revoked(signed, issuer, now)
            if revoked is not None:
                return revoked
        return None

    def _chain(self, certificate: Certificate, issuers: Sequence[Certificate], now: datetime) -> list[x509.Certificate]:
        valid = [authority.x509 for authority in self.authorities if authority.objection(now) is None]
        if not valid:
            raise VerificationError
        builder = PolicyBuilder().store(Store(valid)).time(now).max_chain_depth(_MOST_ISSUERS)
        # Nothing of the web's rules for names: an application is known by its URI.
        verifier = builder.extension_policies(ca_policy=_ISSUER, ee_policy=_APPLICATION).build_client_verifier()
        return verifier.verify(certificate.x509, [issuer.x509 for issuer in issuers[:_MOST_ISSUERS]]).chain

    def _revoked(self, signed: x509.Certificate, issuer: x509.Certificate, now: datetime) -> str | None:
        of_issuer = [each for each in self.lists if each.crl.issuer == issuer.subject]
        if not of_issuer:
            return None
        genuine = [each for each in of_issuer if _is_signed_by(each.crl, issuer.public_key())]
        if not genuine:
            return f"can't be looked up: {of_issuer[0].file} is not signed by {issuer.subject.rfc4514_string()}"
        newest = max(genuine, key=lambda each: each.crl.last_update_utc)
        if any(extension.critical for extension in newest.crl.extensions):
            return f"can't be looked up: {newest.file} is a part of a revocation list"
        ends = newest.crl.next_update_utc
        if ends is not None and now > ends:
            return f"can't be looked up: {newest.file} was to be renewed by {ends:%Y-%m-%d %H:%M} UTC"
        entry = newest.crl.get_revoked_certificate_by_serial_number(signed.serial_number)
        if entry is None:
            return None
        return f"was revoked on {entry.revocation_date_utc:%Y-%m-%d}, says {newest.file}"


def read_trust(folder: Path) -> TrustList:
    """What a trust folder holds; what is neither certificate nor revocation list is left out. CertificateError."""
    own: set[str] = set()
    authorities: list[Certificate] = []
    lists: list[RevocationList] = []
    for path in folder_files(folder):
        try:
            data = file_content(path)
        except CertificateError:
            continue
        found = _revocation_list(data)
        if found is not None:
            lists.append(RevocationList(found, path))
            continue
        try:
            certificate = certificate_from(data, str(path))
        except CertificateError:
            continue
        own.add(certificate.sha256)
        if certificate.is_authority:
            authorities.append(certificate)
    return TrustList(frozenset(own), tuple(authorities), tuple(lists))


def names_host(certificate: Certificate, host: str) -> bool:
    """Whether a certificate is for a host, by name or address."""
    try:
        names = certificate.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        return host.lower() in [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _revocation_list(data: bytes) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_pem_x509_crl(data) if _PEM_LIST in data else x509.load_der_x509_crl(data)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _is_signed_by(crl: x509.CertificateRevocationList, key: object) -> bool:
    try:
        return crl.is_signature_valid(cast("CertificateIssuerPublicKeyTypes", key))
    except (UnsupportedAlgorithm, TypeError, ValueError):
        return False


def _may_sign(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("not an authority")


def _is_to_sign(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its key is not for signing certificates")


def _is_for_servers(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise ValueError("not for servers")


_ISSUER: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _may_sign)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _is_to_sign)
)
_APPLICATION: Final = ExtensionPolicy.permit_all().may_be_present(
    x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_servers
)

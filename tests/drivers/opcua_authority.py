"""An authority that signs the certificates of OPC UA servers, and takes them back, for the tests of trust."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from drivers.certificates import Certificate

DAY = timedelta(days=1)
DER = serialization.Encoding.DER


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@dataclass
class PlantAuthority:
    """Signs for `key` what others bring; a second one with the same name has another key."""

    name: str = "Plant authority"
    parent: PlantAuthority | None = None
    path_length: int | None = None
    valid: timedelta = 10 * DAY
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: Certificate = field(init=False)

    def __post_init__(self) -> None:
        signer = self.parent or self
        basic = x509.BasicConstraints(ca=True, path_length=self.path_length)
        builder = _builder(named(self.name), named(signer.name), self.valid).public_key(self.key.public_key())
        builder = builder.add_extension(basic, critical=True).add_extension(_signing(), critical=True)
        self.certificate = _certificate(builder.sign(signer.key, hashes.SHA256()))

    def sign(self, key: rsa.RSAPrivateKey, uri: str, host: str = "localhost", valid: timedelta = DAY) -> Certificate:
        """An application's certificate."""
        alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(host)])
        builder = _builder(named("Battery"), named(self.name), valid).public_key(key.public_key())
        builder = builder.add_extension(alternative, critical=False)
        return _certificate(builder.sign(self.key, hashes.SHA256()))

    def revocations(self, *revoked: Certificate, renewed_in: timedelta = DAY) -> bytes:
        """A revocation list in DER."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(named(self.name))
        builder = builder.last_update(now - 2 * DAY).next_update(now + renewed_in)
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.x509.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - DAY).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(DER)

    def put(self, folder: Path) -> Path:
        """The authority's certificate as a file in a trust folder."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.name}.der"
        path.write_bytes(self.certificate.der)
        return path


def _certificate(signed: x509.Certificate) -> Certificate:
    return Certificate(signed, signed.public_bytes(DER))


def _builder(subject: x509.Name, issuer: x509.Name, valid: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - 5 * DAY).not_valid_after(now + valid)


def _signing() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )

"""Servers whose certificate an authority of the plant has signed: who is let in, and why the others are not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from config.twin import DeviceTwin
from config.vocabulary import LinkState
from drivers.authorities import TrustList, names_host, read_trust
from drivers.certificates import Certificate, CertificateError, certificate_from, chain_from, load_key, trust
from sim_devices.models import BatteryModel
from sim_devices.opcua_battery import OpcUaBattery
from sim_devices.opcua_security import TwinSecurity
from tests.drivers.field import Field
from tests.drivers.opcua_authority import DAY, PlantAuthority
from tests.drivers.opcua_field import SERVER_URI, SecuredSite, claims, running, told_by

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Plant:
    """A plant's authority, and a battery whose server shows a certificate of its."""

    authority: PlantAuthority
    site: SecuredSite
    key: rsa.RSAPrivateKey
    certificate: Certificate
    twin: OpcUaBattery
    folder: Path

    def trust(self, *files: bytes, authority: PlantAuthority | None = None) -> str:
        """A trust folder of its own with the authority, and further files."""
        folder = self.folder / f"trusted_{time.monotonic_ns()}"
        (authority or self.authority).put(folder)
        for at, data in enumerate(files):
            (folder / f"more_{at}").write_bytes(data)
        return str(folder)

    async def told(self, trust_dir: str, certificate: Certificate | None = None, **security: str) -> str:
        """Why the server is refused that shows this certificate."""
        with claims(self.twin, certificate=(certificate or self.certificate).der):
            return await told_by(self.site.address(self.url, trust_dir=trust_dir, **security))

    async def lets_in(self, trust_dir: str, **security: str) -> bool:
        """Whether the link comes up."""
        field = Field()
        async with running(field, self.site.address(self.url, trust_dir=trust_dir, **security)):
            await field.until(lambda: len(field.links) > 1)
        return field.links[1][0] is LinkState.UP

    @property
    def url(self) -> str:
        return self.twin.url.replace("127.0.0.1", "localhost")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    site, authority = SecuredSite(folder, others=False), PlantAuthority()
    key = load_key(site.server.key_file)
    certificate = authority.sign(key, SERVER_URI)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    security = TwinSecurity(SERVER_URI, certificate.der, pem)
    model = BatteryModel("battery", 30_000.0, DeviceTwin(soc=0.4), capacity_wh=60_000.0)
    async with OpcUaBattery(model, time.monotonic, security=security) as twin:
        yield Plant(authority, site, key, certificate, twin, folder)


@ONE_LOOP
async def test_a_server_whose_authority_is_trusted_is_let_in(plant: Plant) -> None:
    assert await plant.lets_in(plant.trust())
    assert await plant.lets_in(plant.trust(plant.authority.revocations()))
    pem = plant.authority.certificate.x509.public_bytes(serialization.Encoding.PEM)
    folder = plant.folder / "pem"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(pem)
    assert await plant.lets_in(str(folder))


@ONE_LOOP
async def test_a_server_that_is_revoked_is_refused(plant: Plant) -> None:
    told = await plant.told(plant.trust(plant.authority.revocations(plant.certificate)))
    assert plant.certificate.thumbprint in told
    assert "was revoked on " in told


@ONE_LOOP
async def test_a_revocation_list_that_says_nothing_certain_lets_nobody_in(plant: Plant) -> None:
    late = plant.authority.revocations(renewed_in=-DAY)
    assert "was to be renewed by" in await plant.told(plant.trust(late))
    assert "is not signed by CN=Plant authority" in await plant.told(plant.trust(PlantAuthority().revocations()))
    # Another authority's list is of no concern.
    assert await plant.lets_in(plant.trust(PlantAuthority("Other").revocations(plant.certificate)))


@ONE_LOOP
async def test_a_server_that_somebody_else_has_signed_is_refused(plant: Plant) -> None:
    told = await plant.told(plant.trust(authority=PlantAuthority("Other")))
    assert told.endswith("is signed by CN=Plant authority, which is not among the trusted authorities")
    told = await plant.told(plant.trust(authority=PlantAuthority()))
    assert "says that it is signed by CN=Plant authority; that does not hold" in told


@ONE_LOOP
async def test_what_is_not_valid_now_is_refused(plant: Plant) -> None:
    expired = plant.authority.sign(plant.key, SERVER_URI, valid=-DAY)
    assert "expired on" in await plant.told(plant.trust(), expired)
    old = PlantAuthority(valid=-DAY, key=plant.authority.key)
    assert "is signed by CN=Plant authority, which expired on" in await plant.told(plant.trust(authority=old))


@ONE_LOOP
async def test_the_machine_that_is_meant_is_told_by_its_host_or_its_uri(plant: Plant) -> None:
    """The authority signs for every machine of the plant."""
    elsewhere = plant.authority.sign(plant.key, SERVER_URI, host="pump.example")
    told = await plant.told(plant.trust(), elsewhere)
    assert "is not for the host localhost, and the site file does not say which `server_uri` is meant" in told
    assert "it is urn:twin:battery, and urn:another is asked for" in await plant.told(
        plant.trust(), server_uri="urn:another"
    )
    assert await plant.lets_in(plant.trust(), server_uri=SERVER_URI)


@ONE_LOOP
async def test_a_server_that_shows_its_authority_as_well_is_let_in(plant: Plant) -> None:
    with claims(plant.twin, certificate=plant.certificate.der + plant.authority.certificate.der):
        assert await plant.lets_in(plant.trust())
        told = await told_by(plant.site.address(plant.url, trust_dir=plant.trust(authority=PlantAuthority("Other"))))
    assert "does not hold for any trusted authority" in told


@ONE_LOOP
async def test_a_certificate_is_still_trusted_by_itself_beside_an_authority(plant: Plant) -> None:
    folder = plant.folder / "both"
    PlantAuthority("Other").put(folder)
    trust(folder, plant.certificate)
    assert await plant.lets_in(str(folder))


# Chains, without a wire


def judged(plant: Plant, trusted: PlantAuthority, certificate: Certificate, *issuers: PlantAuthority) -> str | None:
    listed = TrustList(authorities=(trusted.certificate,))
    return listed.refusal(certificate, [issuer.certificate for issuer in issuers], datetime.now(UTC))


@ONE_LOOP
async def test_an_authority_between_is_found_among_what_the_server_shows(plant: Plant) -> None:
    between = PlantAuthority("Hall 3", parent=plant.authority)
    certificate = between.sign(plant.key, SERVER_URI)
    assert judged(plant, plant.authority, certificate, between) is None
    assert "not among the trusted" in (judged(plant, plant.authority, certificate) or "")
    assert chain_from(certificate.der + between.certificate.der, "it") == (certificate, between.certificate)


@ONE_LOOP
async def test_who_may_not_sign_vouches_for_nobody(plant: Plant) -> None:
    narrow = PlantAuthority("Narrow", path_length=0)
    between = PlantAuthority("Hall 3", parent=narrow)
    certificate = between.sign(plant.key, SERVER_URI)
    assert "does not hold" in (judged(plant, narrow, certificate, between) or "")
    # A battery whose own certificate is trusted can't sign for another.
    assert not plant.certificate.is_authority
    assert not plant.site.server.certificate.is_authority, "key_cert_sign alone makes no authority"
    assert plant.authority.certificate.is_authority


def test_a_trust_folder_holds_what_it_holds(tmp_path: Path) -> None:
    authority = PlantAuthority()
    authority.put(tmp_path)
    (tmp_path / "list.crl").write_bytes(authority.revocations())
    (tmp_path / "notes.txt").write_text("not a certificate")
    found = read_trust(tmp_path)
    assert [each.subject for each in found.authorities] == ["CN=Plant authority"]
    assert [each.file.name for each in found.lists] == ["list.crl"]
    with pytest.raises(CertificateError, match="No such file"):
        read_trust(tmp_path / "absent")


@ONE_LOOP
async def test_a_certificate_is_for_the_hosts_that_it_names(plant: Plant) -> None:
    own = plant.site.server.certificate
    assert names_host(own, "LOCALHOST")
    assert names_host(own, "127.0.0.1")
    assert not names_host(own, "127.0.0.2")
    assert not names_host(own, "battery.example")


@given(st.binary(max_size=300))
def test_whatever_is_shown_is_a_chain_or_a_refusal(data: bytes) -> None:
    try:
        chain_from(data, "it")
        certificate_from(data, "it")
    except CertificateError as error:
        assert str(error) == "it holds no certificate"

"""`gateway certificate trust --ca`: an authority's certificate from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drivers.certificates import trusted_certificates
from tests.drivers.opcua_authority import DAY, PlantAuthority
from tests.drivers.opcua_field import SecuredSite
from tests.gateway.test_certificates import battery_name, gateway, log_as_before, site_file

__all__ = ["log_as_before"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    security = {"cert_file": "pki/ours.der", "key_file": "pki/ours.key", "trust_dir": "pki/trusted"}
    return site_file(tmp_path, {"url": "opc.tcp://battery.example:4840/", "security": security})


def test_an_authority_is_shown_asked_for_and_stored(site: Path, tmp_path: Path) -> None:
    authority, folder = PlantAuthority(), tmp_path / "pki" / "trusted"
    file = authority.put(tmp_path)
    declined = gateway("certificate", "trust", site, battery_name(site), "--ca", file, typed="n\n")
    assert (declined.exit_code, folder.exists()) == (1, False)
    assert authority.certificate.thumbprint in declined.output
    done = gateway("certificate", "trust", site, battery_name(site), "--ca", file, typed="y\n")
    assert done.exit_code == 0, done.output
    ((stored, found),) = trusted_certificates(folder)
    assert found == authority.certificate
    again = json.loads(
        gateway("certificate", "trust", site, battery_name(site), "--ca", file, "--yes", "--json").stdout
    )
    assert (again["state"], again["file"]) == ("already_trusted", str(stored))
    (listed,) = [
        row for row in json.loads(gateway("certificate", "list", site, "--json").stdout) if row["use"] == "trusted"
    ]
    assert (listed["subject"], listed["objection"]) == ("CN=Plant authority", None)


def test_what_is_no_authority_or_no_longer_one_is_refused(site: Path, tmp_path: Path) -> None:
    own = SecuredSite(tmp_path / "other", others=False).server.cert_file
    old = PlantAuthority("Old", valid=-DAY).put(tmp_path)
    notes = tmp_path / "notes.txt"
    notes.write_text("no certificate")
    for file, code, words in (
        (own, 1, "it is no authority's"),
        (old, 1, "expired on"),
        (notes, 2, "holds no certificate"),
        (tmp_path / "absent.pem", 2, "No such file"),
    ):
        result = gateway("certificate", "trust", site, battery_name(site), "--ca", file, "--yes")
        assert result.exit_code == code, result.output
        assert words in result.output
        assert not (tmp_path / "pki" / "trusted").exists()

"""Stories of `gateway certificate` and of what `gateway check` says of certificates, keys and passwords."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
import yaml
from cryptography import x509
from typer.testing import CliRunner

from drivers.certificates import load_certificate, load_key, load_pair, trusted_certificates
from gateway.cli.main import app
from sim_devices.opcua_battery import OpcUaBattery
from tests.drivers.opcua_field import SERVER_URI, SecuredSite, claims
from tests.drivers.tls_field import Authority

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command sets up the log of its process, which here is everybody's."""
    yield
    structlog.reset_defaults()


def gateway(*arguments: str | Path, typed: str = "") -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)


async def beside(*arguments: str | Path, typed: str = "") -> Any:
    """The command in a thread, while a server runs here."""
    return await asyncio.to_thread(gateway, *arguments, typed=typed)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> SecuredSite:
    return SecuredSite(tmp_path_factory.mktemp("pki"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twin(secured: SecuredSite) -> AsyncIterator[OpcUaBattery]:
    async with secured.twin() as battery:
        yield battery


def site_file(folder: Path, address: dict[str, Any] | None = None, **more: Any) -> Path:
    """The demo site, with another address for its battery over OPC UA, and more devices or parents."""
    raw: dict[str, Any] = yaml.safe_load(Path("config/sites/demo.yaml").read_text())
    name = next(name for name, device in raw["devices"].items() if device["profile"] == "opcua_battery")
    if address is not None:
        raw["devices"][name]["address"] |= address
    raw["devices"] |= more.get("devices", {})
    raw["parents"] += more.get("parents", [])
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def battery_name(site: Path) -> str:
    devices = yaml.safe_load(site.read_text())["devices"]
    return next(name for name, device in devices.items() if device["profile"] == "opcua_battery")


def findings(site: Path) -> list[dict[str, Any]]:
    """What is said of the site file itself."""
    found: list[dict[str, Any]] = json.loads(gateway("check", site, "--json").stdout)
    return [item for item in found if item["file"] == str(site)]


def told(site: Path) -> str:
    return "\n".join(f"{item['severity']} {item['line']} {item['path']}: {item['message']}" for item in findings(site))


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's environment has the password; that one is missing is a finding of its own."""
    monkeypatch.setenv("WORD", "secret")


def test_a_pair_is_made_as_the_standard_asks_and_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    made = json.loads(
        gateway("certificate", "make", "--out", folder, "--host", "box.example", "--host", "192.0.2.7", "--json").stdout
    )
    certificate, _ = load_pair(Path(made["cert_file"]), Path(made["key_file"]))
    assert made["thumbprint"] == certificate.thumbprint
    assert made["application_uri"] == certificate.application_uri == "urn:box.example:lamina:gateway"
    names = certificate.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["box.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    usage = certificate.x509.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.content_commitment
    assert usage.key_encipherment
    assert usage.data_encipherment
    key_file = Path(made["key_file"])
    assert key_file.stat().st_mode & 0o777 == 0o600

    before = key_file.read_bytes()
    again = gateway("certificate", "make", "--out", folder)
    assert again.exit_code == 2
    assert "--force" in again.output
    assert key_file.read_bytes() == before
    assert gateway("certificate", "make", "--out", folder, "--force").exit_code == 0
    assert key_file.read_bytes() != before
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["gateway.cert.der", "gateway.key.pem", "trusted"]


def test_a_pair_that_makes_no_sense_is_refused_with_a_reason(tmp_path: Path) -> None:
    for arguments, words in (
        (("--name", "../gateway"), "--name"),
        (("--uri", "no uri"), "--uri"),
        (("--bits", "1024"), "2048, 3072, 4096"),
        (("--host", "ümlaut"), ""),
    ):
        result = gateway("certificate", "make", "--out", tmp_path / "pki", *arguments)
        assert result.exit_code == 2, result.output
        assert words in result.output
        assert not (tmp_path / "pki").exists()
    (tmp_path / "file").write_text("")
    result = gateway("certificate", "make", "--out", tmp_path / "file" / "pki")
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@ONE_LOOP
async def test_a_server_is_trusted_after_a_look_at_its_certificate(
    secured: SecuredSite, twin: OpcUaBattery, tmp_path: Path
) -> None:
    files = {"cert_file": str(secured.ours.cert_file), "key_file": str(secured.ours.key_file)}
    site = site_file(tmp_path, {"url": twin.url, "security": files | {"trust_dir": "pki/trusted"}})
    device, folder = battery_name(site), tmp_path / "pki" / "trusted"
    certificate = secured.server.certificate

    asked = await beside("certificate", "trust", site, device, typed="n\n")
    assert asked.exit_code == 1
    assert certificate.thumbprint in asked.output
    assert SERVER_URI in asked.output
    assert "trust it? [y/N]" in asked.output
    assert not folder.exists()
    assert (await beside("certificate", "trust", site, device, "--json")).exit_code == 2

    done = await beside("certificate", "trust", site, device, typed="y\n")
    assert done.exit_code == 0, done.output
    ((file, found),) = trusted_certificates(folder)
    assert found == certificate
    again = json.loads((await beside("certificate", "trust", site, device, "--yes", "--json")).stdout)
    assert (again["state"], again["file"]) == ("already_trusted", str(file))

    listed = json.loads(gateway("certificate", "list", site, "--json").stdout)
    assert [(row["use"], row["thumbprint"], row["devices"]) for row in listed] == [
        ("own", secured.ours.certificate.thumbprint, [device]),
        ("trusted", certificate.thumbprint, [device]),
    ]
    assert certificate.thumbprint in gateway("certificate", "list", tmp_path / "pki").stdout


@ONE_LOOP
async def test_a_server_that_would_be_refused_is_not_trusted(
    secured: SecuredSite, twin: OpcUaBattery, tmp_path: Path
) -> None:
    files = {"cert_file": str(secured.ours.cert_file), "key_file": str(secured.ours.key_file)}
    site = site_file(tmp_path, {"url": twin.url, "security": files | {"trust_dir": "trusted"}})
    device = battery_name(site)
    with claims(twin, certificate=secured.expired.certificate.der):
        result = await beside("certificate", "trust", site, device, "--yes")
        assert (result.exit_code, "expired on" in result.output) == (1, True)
    with claims(twin, uri="urn:somebody:else"):
        result = await beside("certificate", "trust", site, device, "--yes", "--json")
        assert result.exit_code == 1
        said = json.loads(result.stdout)
        assert (said["state"], said["file"]) == ("refused", None)
        assert "urn:somebody:else" in said["objection"]
    assert not (tmp_path / "trusted").exists()


def test_who_cannot_be_asked_is_said_so(secured: SecuredSite, tmp_path: Path) -> None:
    files = {"cert_file": str(secured.ours.cert_file), "key_file": str(secured.ours.key_file)}
    away = site_file(tmp_path, {"url": "opc.tcp://127.0.0.1:9/", "security": files | {"trust_dir": "trusted"}})
    result = gateway("certificate", "trust", away, battery_name(away), "--yes")
    assert result.exit_code == 1
    assert "opc.tcp://127.0.0.1:9/: cannot connect" in result.output
    assert gateway("certificate", "trust", away, "nobody").exit_code == 2
    plain = site_file(tmp_path)
    result = gateway("certificate", "trust", plain, battery_name(plain))
    assert (result.exit_code, "no section `security`" in result.output) == (2, True)
    assert gateway("certificate", "list", tmp_path / "nowhere").exit_code == 2


# gateway check


def test_a_good_site_with_paths_from_its_own_folder(secured: SecuredSite, tmp_path: Path) -> None:
    assert gateway("certificate", "make", "--out", tmp_path / "pki").exit_code == 0
    (tmp_path / "pki/trusted/server.der").write_bytes(secured.server.certificate.der)
    section = {"cert_file": "pki/gateway.cert.der", "key_file": "pki/gateway.key.pem", "trust_dir": "pki/trusted"}
    site = site_file(tmp_path, {"security": section, "username": "operator", "password_env": "WORD"})
    assert findings(site) == []
    assert gateway("check", site).exit_code == 0


def test_each_misuse_of_an_opcua_file_is_a_finding(secured: SecuredSite, tmp_path: Path) -> None:
    good = {
        "cert_file": str(secured.ours.cert_file),
        "key_file": str(secured.ours.key_file),
        "trust_dir": str(secured.trust_dir),
    }
    name = battery_name(site_file(tmp_path))

    def said(**changes: Any) -> str:
        return told(site_file(tmp_path, {"security": good | changes}))

    place = f"devices.{name}.address.security"
    assert f"{place}.cert_file: {tmp_path / 'absent.der'}: No such file" in said(cert_file="absent.der")
    assert f"{place}.key_file: {secured.stranger.key_file} is not the key of" in said(
        key_file=str(secured.stranger.key_file)
    )
    assert f"{place}.cert_file: {secured.ours.key_file} holds no certificate" in said(
        cert_file=str(secured.ours.key_file)
    )
    assert f"{place}.key_file: {secured.ours.cert_file} holds no key" in said(key_file=str(secured.ours.cert_file))
    expired = {"cert_file": str(secured.expired.cert_file), "key_file": str(secured.expired.key_file)}
    assert "expired on" in said(**expired)
    assert f"{place}.trust_dir: {tmp_path / 'nobody'}: No such file" in said(trust_dir="nobody")
    assert "is no folder" in said(trust_dir=str(secured.ours.cert_file))
    assert "is empty: every server is refused" in said(trust_dir=str(secured.no_trust_dir))
    secured.ours.key_file.chmod(0o604)
    try:
        found = [item for item in findings(site_file(tmp_path, {"security": good})) if item["severity"] == "error"]
        assert [item["path"] for item in found] == [f"{place}.key_file"]
        assert found[0]["line"] is not None
        assert "is open to every user" in found[0]["message"]
        assert found[0]["allowed"].startswith("chmod 600")
    finally:
        secured.ours.key_file.chmod(0o600)
    # In the trust folder are certificates that are expired, or not valid yet, which is worth a warning each.
    assert said().count("its server is refused") == 2
    assert load_key(secured.ours.key_file)
    assert load_certificate(secured.ours.cert_file)


def test_a_password_in_the_clear_is_refused_unless_it_is_acknowledged(secured: SecuredSite, tmp_path: Path) -> None:
    login = {"username": "operator", "password_env": "WORD"}
    site = site_file(tmp_path, login)
    (found,) = findings(site)
    assert found["severity"] == "error"
    assert found["path"].endswith("address.password_env")
    assert "unencrypted" in found["message"]
    assert "acknowledged_plain_password: true" in found["allowed"]
    assert gateway("check", site).exit_code == 2
    assert findings(site_file(tmp_path, login | {"acknowledged_plain_password": True})) == []

    meter = {"profile": "goe_charger", "rating_w": 11_000, "acknowledged_on_silence": True}
    address = {"driver": "mqtt", "host": "broker.example", "parameters": {"serial": "000001"}, **login}
    parent = {"name": "other", "broker": {"host": "broker.example", **login}}
    site = site_file(tmp_path, devices={"socket": meter | {"address": address}}, parents=[parent])
    assert [item["path"].rpartition(".")[2] for item in findings(site)] == ["password_env"] * 2
    for broker in (address, parent["broker"]):
        broker |= {"host": "127.0.0.1"}
    assert findings(site_file(tmp_path, devices={"socket": meter | {"address": address}}, parents=[parent])) == []


def test_each_misuse_of_tls_is_a_finding(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    pair, other = authority.issue(tmp_path / "pair", "lamina"), authority.issue(tmp_path / "other", "lamina")
    good = {
        "ca_file": str(authority.ca_file),
        "cert_file": str(pair / "cert.pem"),
        "key_file": str(pair / "key.pem"),
    }

    def said(**changes: Any) -> str:
        broker = {"host": "broker.example", "port": 8883, "tls": good | changes}
        return told(site_file(tmp_path, parents=[{"name": "other", "broker": broker}]))

    assert said() == ""
    assert "tls.ca_file:" in said(ca_file="absent.pem")
    assert "holds no certificate in PEM" in said(ca_file=str(pair / "key.pem"))
    assert f"{other / 'key.pem'} is not the key of {pair / 'cert.pem'}" in said(key_file=str(other / "key.pem"))
    warned = said(check_host=False)
    assert warned.startswith("warning")
    assert "can pass for the broker" in warned
    assert "has no name checked" in said(check_host=False, server_name="broker.example")
    assert said(server_name="other.example") == ""

    charger = {"driver": "ocpp", "listen_port": 9000, "charge_point": "CP1", "password_env": "WORD"}
    device = {"profile": "ocpp16_charger", "rating_w": 11_000}
    listener = {"cert_file": str(pair / "cert.pem"), "key_file": "absent.pem"}
    site = site_file(tmp_path, devices={"socket": device | {"address": charger | {"tls": listener}}})
    assert "devices.socket.address.tls.key_file:" in told(site)


def test_devices_with_one_login_agree_on_how_they_reach_their_broker(tmp_path: Path) -> None:
    meter = {"profile": "goe_charger", "rating_w": 11_000, "acknowledged_on_silence": True}
    where = {"driver": "mqtt", "host": "127.0.0.1", "username": "operator", "password_env": "WORD"}
    devices = {
        "one": meter | {"address": where | {"parameters": {"serial": "000001"}}},
        "two": meter | {"address": where | {"parameters": {"serial": "000002"}, "password_env": "OTHER"}},
    }
    said = told(site_file(tmp_path, devices=devices))
    assert "devices.two.address.password_env: is not that of device 'one'" in said

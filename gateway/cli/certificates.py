"""`gateway certificate`: our own certificates for OPC UA, and those of the servers that are trusted."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from config.findings import one_line
from config.site import OpcUaSecurity, OpcUaServer
from gateway.cli.sites import FAILED, end, loaded

if TYPE_CHECKING:
    from drivers.certificates import Certificate, CertificateRequest

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document for programs, never wrapped.")]

FOLDER: Final = "pki"
TRUSTED: Final = "trusted"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_ASK_S: Final = 5.0

certificate_app = typer.Typer(
    help="Certificates for OPC UA: make our own, trust a server's, list both.", no_args_is_help=True
)


@certificate_app.command("make")
def make(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for both files.")] = Path(FOLDER),
    name: Annotated[
        str, typer.Option("--name", help="Common name, and the beginning of the files' names.")
    ] = "gateway",
    uri: Annotated[
        str | None, typer.Option("--uri", help="Application URI; default urn:HOST:lamina:NAME.", show_default=False)
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Host name or address of this machine; repeat it.")
    ] = None,
    organization: Annotated[str, typer.Option("--organization", help="Who runs this gateway.")] = "Lamina",
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="Validity from now.")] = 1825,
    bits: Annotated[int, typer.Option("--bits", help="Length of the RSA key: 2048, 3072, 4096.")] = 2048,
    force: Annotated[bool, typer.Option("--force", help="Overwrite; servers have to trust the new one then.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key and a self-signed application instance certificate (OPC 10000-6, 6.2.2), for OPC UA alone.

    The key can be read by its owner alone. Give the certificate to each server to be trusted there.

    Example: gateway certificate make --out pki --name gateway
    """
    from drivers.certificates import KEY_BITS, CertificateRequest, own_hosts

    hosts = host or own_hosts()
    uri = uri or f"urn:{hosts[0]}:lamina:{name}"
    if not _NAME.fullmatch(name):
        end(f"--name {name}: letters, digits, dot, dash and underscore are asked for")
    if not _URI.fullmatch(uri):
        end(f"--uri {uri}: a URN or URL without spaces is asked for")
    if bits not in KEY_BITS:
        end(f"--bits {bits}: allowed are {', '.join(map(str, KEY_BITS))}")
    row = _made(CertificateRequest(name, uri, hosts, organization, days, bits), out, force=force)
    if as_json:
        _print_json(row)
        return
    _print_block(row["cert_file"], row, ("key_file", *_SHOWN))
    section = ", ".join(f"{field}: {row[field]}" for field in ("cert_file", "key_file", "trust_dir"))
    sys.stdout.write(f"in the site file, with paths that begin at its folder:\n  security: {{{section}}}\n")


def _made(request: CertificateRequest, out: Path, *, force: bool) -> dict[str, Any]:
    from drivers.certificates import CertificateError, make_certificate, utc_now, write_pair

    files = cert_file, key_file = out / f"{request.name}.cert.der", out / f"{request.name}.key.pem"
    there = [file for file in files if file.exists()]
    if there and not force:
        end(f"{there[0]} is there already; --force overwrites it")
    try:
        made, key = make_certificate(request, utc_now())
        (out / TRUSTED).mkdir(parents=True, exist_ok=True)
        write_pair(cert_file, key_file, made, key)
    except CertificateError as error:
        end(str(error))
    except OSError as error:
        end(f"{error.filename or out}: {error.strerror}")
    return {"cert_file": str(cert_file), "key_file": str(key_file), "trust_dir": str(out / TRUSTED), **described(made)}


@certificate_app.command("trust")
def trust_server(
    site: Annotated[str, typer.Argument(metavar="SITE", help="A site file.")],
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="An OPC UA device with `security`.")],
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="Trust whoever this authority has signed, and don't ask the server."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a server's certificate, show it, ask, and put it into the device's trust folder.

    Compare the thumbprint with what the server itself shows: whoever is in between can show another. With --ca it is
    an authority's certificate from a file that is shown and stored. Ends with 1 if the server doesn't answer, the
    certificate can't be used, or the answer is no.

    Example: gateway certificate trust site.yaml battery_a
    """
    from drivers.certificates import CertificateError

    _, model, _ = loaded(site)
    if device not in model.devices:
        end(f"{device}: the site has no such device; it has {', '.join(model.devices)}")
    address = model.devices[device].address
    if not isinstance(address, OpcUaServer) or address.security is None:
        end(f"{device}: devices.{device}.address has no section `security`")
    if as_json and not yes:
        end("--json asks nothing: give --yes with it")
    uri, found, objection = _asked(address) if ca is None else _authority(ca)
    row = {"device": device, "url": address.url, **described(found), "server_uri": uri, "objection": objection}
    if not as_json:
        _print_block(f"{device} at {address.url}" if ca is None else str(ca), row, ("server_uri", *_SHOWN))
    try:
        state, file = _trusted(Path(address.security.trust_dir), found, objection, ask=not yes)
    except CertificateError as error:
        end(str(error))
    if as_json:
        _print_json({**row, "state": state, "file": None if file is None else str(file)})
    elif file is not None:
        sys.stdout.write(f"{state.replace('_', ' ')}: {file}\n")
    if objection is not None:
        sys.stderr.write(f"{'the server' if ca is None else ca} is refused: {objection}\n")
    if state == "declined":
        sys.stderr.write("nothing was stored\n")
    if objection is not None or file is None:
        raise typer.Exit(FAILED)


def _trusted(folder: Path, found: Certificate, objection: str | None, *, ask: bool) -> tuple[str, Path | None]:
    """What became of a certificate, and the file it is in."""
    from drivers.certificates import trust, trusted_certificates

    there = {known.sha256: path for path, known in trusted_certificates(folder)} if folder.is_dir() else {}
    if found.sha256 in there:
        return "already_trusted", there[found.sha256]
    if objection is not None:
        return "refused", None
    if ask and not _confirmed():
        return "declined", None
    return "trusted", trust(folder, found)


def _asked(address: OpcUaServer) -> tuple[str, Certificate, str | None]:
    from drivers.inspection import InspectionFailed
    from gateway.composition import opcua_server_identity

    try:
        return asyncio.run(opcua_server_identity(address, _ASK_S))
    except InspectionFailed as failed:
        end(str(failed), FAILED)


def _authority(ca: Path) -> tuple[str | None, Certificate, str | None]:
    """An authority's certificate from a file, and why it can't be used."""
    from drivers.certificates import CertificateError, load_certificate, utc_now

    try:
        found = load_certificate(ca)
    except CertificateError as error:
        end(str(error))
    if not found.is_authority:
        return None, found, "it is no authority's: one may sign certificates (CA, keyCertSign), and is no application's"
    return None, found, found.objection(utc_now())


def _confirmed() -> bool:
    sys.stdout.write("trust it? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@certificate_app.command("list")
def list_certificates(
    where: Annotated[
        str, typer.Argument(metavar="[DIR|SITE]", help="A folder as `make` fills it, or a site file.")
    ] = FOLDER,
    as_json: JsonOption = False,
) -> None:
    """List our own and the trusted certificates of a folder, or those that a site's OPC UA devices use.

    Example: gateway certificate list site.yaml
    """
    folder = Path(where)
    rows = list(_in_folder(folder) if folder.is_dir() else _in_site(where))
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        _print_block(f"{row['use']} {row['file']}", row, (*_SHOWN, "devices", "objection"))
    if not rows:
        sys.stdout.write(f"{where}: no certificates\n")


def _in_folder(folder: Path) -> Iterator[dict[str, Any]]:
    from drivers.certificates import trusted_certificates

    for path, found in trusted_certificates(folder):
        yield _row("own", path, found, ())
    if (folder / TRUSTED).is_dir():
        for path, found in trusted_certificates(folder / TRUSTED):
            yield _row("trusted", path, found, ())


def _in_site(site: str) -> Iterator[dict[str, Any]]:
    if not Path(site).suffix and not Path(site).exists():
        end(f"{site}: no such folder or site file; `gateway certificate make` makes the folder {FOLDER}")
    _, model, _ = loaded(site)
    used: dict[tuple[str, Path], list[str]] = {}
    for name, device in model.devices.items():
        address = device.address
        if isinstance(address, OpcUaServer) and address.security is not None:
            for place in _places(address, address.security):
                used.setdefault(place, []).append(name)
    for (use, path), devices in used.items():
        yield from _rows_of(use, path, devices)


def _places(address: OpcUaServer, security: OpcUaSecurity) -> Iterator[tuple[str, Path]]:
    yield "own", Path(security.cert_file)
    if address.user_cert_file is not None:
        yield "user", Path(address.user_cert_file)
    yield "trusted", Path(security.trust_dir)


def _rows_of(use: str, path: Path, devices: list[str]) -> Iterator[dict[str, Any]]:
    from drivers.certificates import CertificateError, load_certificate, trusted_certificates

    try:
        found = trusted_certificates(path) if use == "trusted" else [(path, load_certificate(path))]
        for file, certificate in found:
            yield _row(use, file, certificate, devices)
    except CertificateError as error:
        yield {"use": use, "file": str(path), "devices": list(devices), "objection": str(error)}


def _row(use: str, path: Path, certificate: Certificate, devices: list[str] | tuple[()]) -> dict[str, Any]:
    from drivers.certificates import utc_now

    objection = certificate.objection(utc_now())
    return {"use": use, "file": str(path), "devices": list(devices), **described(certificate), "objection": objection}


_SHOWN: Final = ("subject", "application_uri", "thumbprint", "sha256", "not_before", "not_after")


def described(certificate: Certificate) -> dict[str, Any]:
    """What people and programs compare."""
    return {
        "subject": certificate.subject,
        "application_uri": certificate.application_uri,
        "thumbprint": certificate.thumbprint,
        "sha256": certificate.sha256,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
    }


def _print_block(title: str, row: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    sys.stdout.write(f"{one_line(title)}\n")
    for key in keys:
        value = row.get(key)
        if value:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            sys.stdout.write(f"  {key.replace('_', ' '):<16} {one_line(text)}\n")


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")

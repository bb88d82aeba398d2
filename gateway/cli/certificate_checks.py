"""What `gateway check` finds in the certificates and keys of a site's OPC UA devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from config.findings import Path as Place
from config.findings import Problem, Severity
from config.security_checks import connections, driver_of
from config.security_files import Holds, NamedFile, named_files
from config.site import Site
from drivers.certificates import CertificateError, load_certificate, load_key, load_pair, trusted_certificates, utc_now

_SOON: Final = timedelta(days=30)


def opcua_certificate_problems(site: Site, folder: Path) -> Iterator[Problem]:
    """Files that hold no certificate or key, keys of another certificate, validity; by the site file's place."""
    addresses = [path for path, connection in connections(site) if driver_of(connection) == "opcua"]
    files = [file for file in named_files(site, folder) if any(_within(file.place, path) for path in addresses)]
    for file in files:
        if not _readable(file):
            continue
        if file.holds is Holds.CERTIFICATE:
            yield from _certificate_problems(file)
        elif file.holds is Holds.TRUST:
            yield from _trust_problems(file)
        else:
            pair = next(other for other in files if other.place == _certificate_of(file.place))
            yield from _key_problems(file, pair)


def _within(place: Place, path: Place) -> bool:
    return place[: len(path)] == path


def _certificate_of(place: Place) -> Place:
    return (*place[:-1], str(place[-1]).replace("key_file", "cert_file"))


def _readable(file: NamedFile) -> bool:
    right = file.path.is_dir() if file.holds is Holds.TRUST else file.path.is_file()
    return right and os.access(file.path, os.R_OK)


def _certificate_problems(file: NamedFile) -> Iterator[Problem]:
    try:
        found = load_certificate(file.path)
    except CertificateError as error:
        yield Problem(file.place, str(error), "a certificate in DER or PEM")
        return
    now = utc_now()
    objection = found.objection(now)
    if objection is not None:
        yield Problem(file.place, f"{file.path} {objection}", "gateway certificate make --force makes a new one")
    elif found.objection(now + _SOON) is not None:
        words = f"{file.path} expires on {found.not_after:%Y-%m-%d}"
        yield Problem(file.place, words, "gateway certificate make --force makes a new one", Severity.WARNING)
    if file.place[-1] == "cert_file" and found.application_uri is None:
        words = f"{file.path} names no application URI: servers refuse it (OPC 10000-6, 6.2.2)"
        yield Problem(file.place, words, "a URI in its subjectAltName")


def _key_problems(file: NamedFile, certificate: NamedFile) -> Iterator[Problem]:
    try:
        load_key(file.path)
    except CertificateError as error:
        yield Problem(file.place, str(error), "an RSA key in PEM without a password")
        return
    if not _readable(certificate):
        return
    try:
        load_certificate(certificate.path)
    except CertificateError:
        return
    try:
        load_pair(certificate.path, file.path)
    except CertificateError as error:
        yield Problem(file.place, str(error), see=certificate.place)


def _trust_problems(file: NamedFile) -> Iterator[Problem]:
    now = utc_now()
    for path, found in trusted_certificates(file.path):
        objection = found.objection(now)
        if objection is not None:
            words = f"{path} {objection}: its server is refused"
            yield Problem(file.place, words, "gateway certificate trust SITE DEVICE", Severity.WARNING)

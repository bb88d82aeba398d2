"""The certificates, keys and folders that a site file names: where they are, and whether they can be used.

Their paths begin at the site file's folder, so that it doesn't matter where a command is run.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from config.findings import Path as Place
from config.findings import Problem, Severity
from config.partial import known
from config.security_checks import connections, driver_of, unset_passwords
from config.site import Site
from config.strict import Strict

_M = TypeVar("_M", bound=Strict)


class Holds(StrEnum):
    """What a named file is for."""

    CERTIFICATE = "certificate"
    KEY = "key"
    AUTHORITIES = "authorities"
    TRUST = "trust"


class NamedFile(NamedTuple):
    """One file or folder that a site file names; `path` is where it is, `place` where the site file says so."""

    place: Place
    holds: Holds
    path: Path


Look: TypeAlias = Callable[[Site, Path], Iterable[Problem]]
"""Looks into the files of a site in a folder, given by whoever may use a library for it."""

_OPCUA_LOGIN: Final = {"user_cert_file": Holds.CERTIFICATE, "user_key_file": Holds.KEY}
_OPCUA: Final = {"cert_file": Holds.CERTIFICATE, "key_file": Holds.KEY, "trust_dir": Holds.TRUST}
_TLS: Final = {"ca_file": Holds.AUTHORITIES, "cert_file": Holds.CERTIFICATE, "key_file": Holds.KEY}
_LISTENER: Final = {"cert_file": Holds.CERTIFICATE, "key_file": Holds.KEY}

SECTIONS: Final = {
    "opcua": ((None, _OPCUA_LOGIN), ("security", _OPCUA)),
    "mqtt": (("tls", _TLS),),
    "ocpp": (("tls", _LISTENER),),
}
"""By protocol: each section with files (None: the address itself), and what its fields hold."""


def named_files(site: Site, folder: Path) -> list[NamedFile]:
    """Every file that a site names in a section without mistakes."""
    return [file for path, connection in connections(site) for file in _files_of(path, connection, folder)]


def _files_of(path: Place, connection: Any, folder: Path) -> Iterator[NamedFile]:
    for name, fields in SECTIONS.get(driver_of(connection), ()):
        place = path if name is None else (*path, name)
        section = connection if name is None else getattr(connection, name) if known(connection, name) else None
        for field, holds in fields.items() if isinstance(section, Strict) else ():
            value = getattr(section, field)
            if value is not None:
                yield NamedFile((*place, field), holds, folder / value)


def with_files_from(site: Site, folder: Path) -> Site:
    """The site with every path beginning at `folder` made whole."""
    devices = {
        name: device.model_copy(update={"address": _placed(device.address, folder)})
        for name, device in site.devices.items()
    }
    parents = tuple(
        parent if parent.broker is None else parent.model_copy(update={"broker": _placed(parent.broker, folder)})
        for parent in site.parents
    )
    return site.model_copy(update={"devices": devices, "parents": parents})


def _placed(connection: _M, folder: Path) -> _M:
    update: dict[str, Any] = {}
    for name, fields in SECTIONS.get(driver_of(connection), ()):
        section = connection if name is None else getattr(connection, name)
        if section is None:
            continue
        given = {field: value for field in fields if (value := getattr(section, field)) is not None}
        whole = {field: str(folder / value) for field, value in given.items()}
        update |= whole if name is None else {name: section.model_copy(update=whole)}
    return connection.model_copy(update=update) if update else connection


def file_problems(site: Site, folder: Path) -> Iterator[Problem]:
    """What is wrong with the files of a site, as far as it shows without decoding an OPC UA certificate."""
    broken: set[Place] = set()
    for file in named_files(site, folder):
        for problem in _file_problems(file):
            if problem.severity is Severity.ERROR:
                broken.add(file.place)
            yield problem
    for path, connection in connections(site):
        if driver_of(connection) != "opcua" and not any(place[: len(path)] == path for place in broken):
            yield from _tls_problems(list(_files_of(path, connection, folder)))


def password_problems(site: Site, _: Path) -> Iterator[Problem]:
    """The passwords that the environment of this command does not have; that of the service may."""
    for place, variable in unset_passwords(site, os.environ):
        words = f"the environment variable {variable} is not set here"
        lost = "`gateway run` starts" if place[0] == "parents" else "the device can be used"
        yield Problem(place, words, f"a password in {variable} before {lost}", Severity.WARNING)


def _file_problems(file: NamedFile) -> Iterator[Problem]:
    path, folder = file.path, file.holds is Holds.TRUST
    try:
        mode = path.stat().st_mode
    except OSError as error:
        hint = "gateway certificate trust SITE DEVICE makes it" if folder else ""
        yield Problem(file.place, f"{path}: {error.strerror}", hint)
        return
    if stat.S_ISDIR(mode) is not folder:
        yield Problem(file.place, f"{path} is {'no' if folder else 'a'} folder")
    elif not os.access(path, os.R_OK | (os.X_OK if folder else 0)):
        yield Problem(file.place, f"{path} can't be read by this user")
    elif file.holds is Holds.KEY and mode & stat.S_IRWXO:
        yield Problem(file.place, f"{path} is open to every user of this machine", f"chmod 600 {path}")
    elif folder and not any(path.iterdir()):
        words = f"{path} is empty: every server is refused"
        yield Problem(file.place, words, "gateway certificate trust SITE DEVICE", Severity.WARNING)


def _tls_problems(files: list[NamedFile]) -> Iterator[Problem]:
    by_kind = {file.holds: file for file in files}
    authorities, certificate = by_kind.get(Holds.AUTHORITIES), by_kind.get(Holds.CERTIFICATE)
    key = by_kind.get(Holds.KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities is not None:
        try:
            context.load_verify_locations(authorities.path)
        except (OSError, ValueError):
            yield Problem(authorities.place, f"{authorities.path} holds no certificate in PEM")
    if certificate is not None and key is not None:
        try:
            # Without a password of our own, a key that has one would be asked for on the terminal.
            context.load_cert_chain(certificate.path, key.path, password="")
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            words = f"is not the key of {certificate.path}" if mismatch else "and its certificate are not in plain PEM"
            yield Problem(key.place, f"{key.path} {words}", see=certificate.place)
        except (OSError, ValueError):
            yield Problem(key.place, f"{key.path} and its certificate are not in plain PEM", see=certificate.place)

"""Loading of site files and profiles: a whole model, or every error of the file at once.

A profile is named by a shipped one's name, or by a path that ends in .yaml and begins beside the site file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from config.checks import site_problems
from config.explain import examine
from config.findings import ConfigError, Finding, Problem, Severity, did_you_mean, shown
from config.partial import broken, known
from config.profile import Profile
from config.profile_checks import profile_problems
from config.security_files import Look, with_files_from
from config.site import Site
from config.strict import NAME_PATTERN
from config.yaml_source import Document, read_document

SUFFIX = ".yaml"


class _LoadedProfile(NamedTuple):
    """`profile` is None where the file holds none, and a partial where findings hold errors."""

    profile: Profile | None
    findings: tuple[Finding, ...]


class _LoadedSite(NamedTuple):
    """`site` is None where the file holds none, and a partial where findings hold errors."""

    site: Site | None
    findings: tuple[Finding, ...]


def load_site(path: Path) -> Site:
    """Load a site file and check it together with its profiles; `ConfigError` names every error in all of them.

    The paths of certificates and keys in it begin at its folder, and are made whole.
    """
    loaded = _site(path)
    _refuse_errors(loaded.findings)
    assert loaded.site is not None
    return with_files_from(loaded.site, path.parent)


def check_site(path: Path, looks: Sequence[Look] = ()) -> list[Finding]:
    """Every error and warning of a site file and its profiles, by file and line; never raises for what they hold.

    `looks` go into the certificates and keys that it names: `file_problems`, and what may use a library for it.
    """
    return list(_site(path, looks).findings)


def load_profile(source: Path | str) -> Profile:
    """Load a profile by a shipped name or by path; `ConfigError` names every error in it."""
    if isinstance(source, str) and not source.endswith(SUFFIX):
        if source not in shipped_profiles():
            problem = _unknown_profile(source)
            raise ConfigError([Finding(source, None, "", problem.message, problem.allowed)])
        loaded = _shipped_profile(source)
    else:
        loaded = _profile(Path(source))
    _refuse_errors(loaded.findings)
    assert loaded.profile is not None
    return loaded.profile


def check_profile(path: Path) -> list[Finding]:
    """Every error and warning of a profile file, by line."""
    return list(_profile(path).findings)


def load_profiles(site: Site, site_path: Path) -> dict[str, Profile]:
    """The profiles of a site's devices, by what the devices call them; paths begin at the site file's folder."""
    loaded = {name: _named_profile(name, site_path) for name in sorted({d.profile for d in site.devices.values()})}
    unknown = [_unknown_profile(name) for name, item in loaded.items() if item is None]
    missing = [Finding(str(site_path), None, "", problem.message, problem.allowed) for problem in unknown]
    _refuse_errors((*missing, *(finding for item in loaded.values() if item for finding in item.findings)))
    return {name: item.profile for name, item in loaded.items() if item is not None and item.profile is not None}


def shipped_profiles() -> dict[str, Path]:
    """The profiles that come with Lamina: name and file."""
    return _shipped("profiles")


def shipped_sites() -> dict[str, Path]:
    """The example sites that come with Lamina: name and file."""
    return _shipped("sites")


def series_columns() -> tuple[str, ...]:
    """The columns of the shipped series that can drive a twin."""
    with Path(str(files("config").joinpath("data", "simbench_extract.csv"))).open(
        encoding="utf-8", newline=""
    ) as lines:
        header = next(csv.reader(line for line in lines if not line.startswith("#")))
    return tuple(header[1:])


def _shipped(folder: str) -> dict[str, Path]:
    found = Path(str(files("config").joinpath(folder))).glob(f"*{SUFFIX}")
    return {path.stem: path for path in sorted(found)}


def _refuse_errors(findings: tuple[Finding, ...]) -> None:
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        raise ConfigError(errors)


def _in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: (finding.line or 0, finding.column or 0)))


def _absent(path: Path, shipped: Mapping[str, Path], noun: str) -> Finding | None:
    """A file that is not there, with what may have been meant: a file beside it, or a shipped one by its name."""
    if path.exists() or path.is_symlink():
        return None
    beside = [] if path.suffix == "" else [each.stem for each in path.parent.glob(f"*{SUFFIX}")]
    meant = did_you_mean(path.stem, beside).replace("'?", f"{SUFFIX}'?") or did_you_mean(path.stem, list(shipped))
    allowed = f"a file, or one of the shipped {noun}: {', '.join(shipped)}"
    return Finding(str(path), None, "", f"does not exist{meant}", allowed)


def _mistaken(path: Path, what: str, command: str) -> Finding:
    return Finding(str(path), None, "", f"is {what}; {command} checks those")


def _site(path: Path, looks: Sequence[Look] = ()) -> _LoadedSite:
    document = read_document(path)
    if document.root is None:
        absent = _absent(path, shipped_sites(), "sites")
        if absent is not None:
            return _LoadedSite(None, (absent,))
        return _LoadedSite(None, _in_order(document.findings))
    if {"points", "protocol"} <= document.data.keys():
        return _LoadedSite(None, (_mistaken(path, "a profile, not a site file", "`gateway profile check`"),))
    site, problems = examine(Site, document.data)
    profiles: dict[str, Profile] = {}
    elsewhere: list[Finding] = []
    for name in _profile_names(site):
        loaded = _named_profile(name, path)
        if loaded is None:
            problems.extend(_missing_profile(site, name))
            continue
        elsewhere.extend(loaded.findings)
        if loaded.profile is None:
            problems.extend(_unusable_profile(site, name))
        else:
            profiles[name] = loaded.profile
    problems.extend(site_problems(site, profiles, series_columns()))
    for look in looks:
        problems.extend(broken(look, site, path.parent))
    return _LoadedSite(site, (*_located(document, problems), *elsewhere))


def _profile_names(site: Site) -> list[str]:
    devices = site.devices.values() if known(site, "devices") else ()
    return list(dict.fromkeys(device.profile for device in devices if known(device, "profile")))


def _users(site: Site, profile: str) -> Iterator[tuple[str | int, ...]]:
    for name, device in site.devices.items():
        if known(device, "profile") and device.profile == profile:
            yield ("devices", name, "profile")


def _missing_profile(site: Site, profile: str) -> Iterator[Problem]:
    for path in _users(site, profile):
        yield _unknown_profile(profile)._replace(path=path)


def _unusable_profile(site: Site, profile: str) -> Iterator[Problem]:
    for path in _users(site, profile):
        yield Problem(path, f"the file {shown(profile)} holds no profile; its own findings say why")


def _unknown_profile(name: str) -> Problem:
    names = list(shipped_profiles())
    allowed = ", ".join((*names, f"a path ending in {SUFFIX}"))
    return Problem((), f"unknown profile {shown(name)}{did_you_mean(name, names)}", allowed)


def _located(document: Document, problems: list[Problem]) -> tuple[Finding, ...]:
    return _in_order([*document.findings, *(document.finding(problem) for problem in dict.fromkeys(problems))])


def _named_profile(name: str, site_path: Path) -> _LoadedProfile | None:
    """The profile that a site file calls `name`; None where that is neither a shipped name nor a path."""
    if name.endswith(SUFFIX):
        return _profile(site_path.parent / name)
    return _shipped_profile(name) if name in shipped_profiles() else None


@cache
def _shipped_profile(name: str) -> _LoadedProfile:
    return _profile(shipped_profiles()[name])


def _profile(path: Path) -> _LoadedProfile:
    document = read_document(path)
    if document.root is None:
        absent = _absent(path, shipped_profiles(), "profiles")
        if absent is not None:
            return _LoadedProfile(None, (absent,))
        return _LoadedProfile(None, _in_order(document.findings))
    if {"connection", "devices"} <= document.data.keys():
        return _LoadedProfile(None, (_mistaken(path, "a site file, not a profile", "`gateway check`"),))
    profile, problems = examine(Profile, document.data)
    if known(profile, "profile") and profile.profile != path.stem:
        words = f"'{profile.profile}' is not the name of its file, {path.name}: a profile is named as its file is"
        renamed = f"the file renamed to {profile.profile}{SUFFIX}"
        fits = re.fullmatch(NAME_PATTERN, path.stem) is not None
        problems.append(Problem(("profile",), words, f"profile: {path.stem}, or {renamed}" if fits else renamed))
    problems.extend(profile_problems(profile))
    return _LoadedProfile(profile, _located(document, problems))

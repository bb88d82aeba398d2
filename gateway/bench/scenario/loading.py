"""Reading of scenario files: a scenario with its site, ready to run, or every error of the file at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

from config.checks import site_problems
from config.explain import examine
from config.findings import ConfigError, Finding, Problem, Severity, did_you_mean, shown
from config.findings import Path as DataPath
from config.loading import check_site, load_profile, series_columns, shipped_sites
from config.partial import broken, known
from config.profile import Profile
from config.scenario import Event, Function, Mode, Scenario
from config.scenario_matrix import matrix_events
from config.scenario_problems import scenario_problems
from config.site import ControlSettings, ModbusRtuTcpAddress, ModbusTcpAddress, Site
from config.vocabulary import DeviceKind
from config.yaml_source import Document, read_document
from gateway.bench.scenario.fault_names import fault_problem
from sim_devices.faults.world import BROKER

SUFFIX: Final = ".yaml"
OVERRIDES: Final = ("overrides",)
WIRED_IN_LOCKSTEP: Final = (ModbusTcpAddress, ModbusRtuTcpAddress)
"""What crosses as bytes on virtual time, to a place of its own that a proxy can be put before."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What the command line has changed of a scenario; None: as the file says."""

    site: str | None = None
    mode: Mode | None = None
    seed: int | None = None


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario that can be run. `profiles` are by device, `site_data` is the site file with the overrides in it.

    `events` are those of the file and of its matrix, in the order of time.
    """

    path: Path
    scenario: Scenario
    site_path: Path
    site: Site
    site_data: dict[str, Any]
    profiles: Mapping[str, Profile]
    events: tuple[Event, ...]

    @property
    def name(self) -> str:
        return self.scenario.scenario

    @property
    def kinds(self) -> dict[str, DeviceKind]:
        """The kind of each device."""
        return {name: profile.kind for name, profile in self.profiles.items()}

    @property
    def under_test(self) -> Function:
        return self.scenario.sabotage

    def faults(self) -> list[tuple[str, str]]:
        """Each fault that is ordered with the kind of what it strikes, once."""
        return list(dict.fromkeys(fault for event in self.events if (fault := self.fault_of(event)) is not None))

    def fault_of(self, event: Event) -> tuple[str, str] | None:
        """The fault of an event with the kind of what it strikes; parents and the broker are kinds of their own."""
        if event.parent == "silent":
            return "heartbeat_lost", "parent"
        if event.fault is None:
            return None
        name = event.fault.device
        is_parent = any(parent.name == name for parent in self.site.parents)
        return event.fault.fault, "parent" if is_parent else str(self.kinds.get(name, name))


def shipped_scenarios() -> dict[str, Path]:
    """The scenarios that come with Lamina: name and file."""
    folder = Path(str(files("config").joinpath("scenarios")))
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def scenario_path(text: str) -> Path:
    """A path, or the name of a shipped scenario."""
    path = Path(text)
    if not path.exists() and "/" not in text and path.suffix == "":
        return shipped_scenarios().get(text, path)
    return path


def load_scenario(path: Path, changes: Changes | None = None) -> LoadedScenario:
    """Load a scenario with its site; `ConfigError` names every error in both."""
    changes = changes or Changes()
    document = read_document(path)
    if document.root is None:
        raise ConfigError(document.findings or [Finding(str(path), None, "", "is empty")])
    data = dict(document.data)
    data |= {key: value for key, value in (("site", changes.site), ("mode", changes.mode)) if value is not None}
    scenario, problems = examine(Scenario, data)
    if known(scenario, "scenario") and scenario.scenario != path.stem:
        problems.append(Problem(("scenario",), f"{shown(scenario.scenario)} is not the name of its file", path.stem))
    site_path = _site_path(scenario, path, beside=changes.site is None, problems=problems)
    loaded = None if site_path is None else _site(document, scenario, site_path, changes.seed, problems)
    if loaded is not None:
        site, profiles, _ = loaded
        kinds = {name: profile.kind for name, profile in profiles.items()}
        problems.extend(scenario_problems(scenario, site, kinds, partial(fault_problem, site, profiles)))
        problems.extend(broken(_lockstep_has_a_wire, scenario, site))
    _refuse(document, problems)
    assert loaded is not None
    assert site_path is not None
    return _put_together(path, scenario, site_path, *loaded)


def _lockstep_has_a_wire(scenario: Scenario, site: Site) -> Iterator[Problem]:
    """In lockstep only Modbus crosses as bytes; the rest has no connection that could break."""
    if scenario.mode is not Mode.LOCKSTEP:
        return
    wired = [name for name, device in site.devices.items() if isinstance(device.address, WIRED_IN_LOCKSTEP)]
    struck: list[tuple[DataPath, str]] = [
        (("events", at, "fault", "device"), event.fault.device)
        for at, event in enumerate(scenario.events)
        if known(event, "fault") and event.fault is not None and known(event.fault, "device")
    ]
    if scenario.matrix is not None and known(scenario.matrix, "devices"):
        struck += [(("matrix", "devices", at), name) for at, name in enumerate(scenario.matrix.devices)]
    there = {*site.devices, *(parent.name for parent in site.parents), BROKER}
    for path, name in struck:
        if name in there and name not in wired:
            yield Problem(
                path, f"lockstep has no wire for faults at {shown(name)}; run it in mode realtime", ", ".join(wired)
            )


def _refuse(document: Document, problems: list[Problem]) -> None:
    """Raise ConfigError where there is an error."""
    found = [*document.findings, *(document.finding(problem) for problem in dict.fromkeys(problems))]
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    if errors:
        raise ConfigError(sorted(errors, key=lambda finding: (finding.line or 0, finding.column or 0)))


def _site_path(scenario: Scenario, path: Path, *, beside: bool, problems: list[Problem]) -> Path | None:
    if not known(scenario, "site"):
        return None
    if scenario.site.endswith(SUFFIX):
        return path.parent / scenario.site if beside else Path(scenario.site)
    shipped = shipped_sites()
    if scenario.site not in shipped:
        words = f"unknown site {shown(scenario.site)}{did_you_mean(scenario.site, list(shipped))}"
        problems.append(Problem(("site",), words, ", ".join((*shipped, f"a path ending in {SUFFIX}"))))
    return shipped.get(scenario.site)


def _site(
    document: Document, scenario: Scenario, site_path: Path, seed: int | None, problems: list[Problem]
) -> tuple[Site, dict[str, Profile], dict[str, Any]] | None:
    """The site with the overrides in it; raises ConfigError where the site file itself has errors."""
    broken = [finding for finding in check_site(site_path) if finding.severity is Severity.ERROR]
    if broken:
        raise ConfigError(broken)
    data = read_document(site_path).data
    overrides = scenario.overrides if known(scenario, "overrides") else {}
    merged = _merged(data, overrides)
    if known(scenario, "seed"):
        merged = _merged(merged, {"simulation": {"seed": scenario.seed if seed is None else seed}})
    if known(scenario, "period_ms") and scenario.period_ms is not None:
        merged = _merged(merged, {"control": _paced(scenario.period_ms, merged.get("control", {}))})
    site, found = examine(Site, merged)
    if found:
        problems.extend(problem.under(OVERRIDES) for problem in found)
        return None
    profiles: dict[str, Profile] = {}
    for name, device in site.devices.items():
        try:
            profiles[name] = load_profile(_profile_source(device.profile, site_path))
        except ConfigError as error:
            why = Problem(("overrides", "devices", name, "profile"), error.findings[0].message)
            problems.append(why)
            return None
        if device.profile.endswith(SUFFIX):
            merged["devices"][name]["profile"] = str((site_path.parent / device.profile).resolve())
    by_reference = {device.profile: profiles[name] for name, device in site.devices.items()}
    found = [each for each in site_problems(site, by_reference, series_columns()) if each.severity is Severity.ERROR]
    problems.extend(problem.under(OVERRIDES) for problem in found)
    return None if found else (site, profiles, merged)


def _paced(period_ms: int, given: Any) -> dict[str, Any]:
    """The control settings of another period; what must outlast it is twice as long, where it isn't longer."""
    least_s = 2.0 * period_ms / 1000.0
    usual = ControlSettings()
    kept = {name: _number(given, name, getattr(usual, name)) for name in ("stale_after_s", "setpoint_life_s")}
    return {"period_ms": period_ms, **{name: max(value, least_s) for name, value in kept.items()}}


def _number(given: Any, name: str, default: float) -> float:
    value = given.get(name) if isinstance(given, dict) else None
    return value if isinstance(value, int | float) else default


def _profile_source(reference: str, site_path: Path) -> Path | str:
    return site_path.parent / reference if reference.endswith(SUFFIX) else reference


def _merged(base: Any, over: Any) -> Any:
    """Mappings are merged key by key; everything else is replaced."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {key: _merged(base.get(key), value) for key, value in over.items()}


def _put_together(
    path: Path,
    scenario: Scenario,
    site_path: Path,
    site: Site,
    profiles: dict[str, Profile],
    data: dict[str, Any],
) -> LoadedScenario:
    kinds = {name: profile.kind for name, profile in profiles.items()}
    more: tuple[Event, ...] = ()
    if scenario.matrix is not None:
        more = matrix_events(scenario.matrix, kinds, partial(fault_problem, site, profiles))
    events = tuple(sorted((*scenario.events, *more), key=lambda event: event.at_s))
    return LoadedScenario(path, scenario, site_path, site, data, profiles, events)


def write_site(loaded: LoadedScenario, path: Path) -> None:
    """The site with the scenario's overrides as a file, for processes that read one."""
    path.write_text(yaml.safe_dump(loaded.site_data, sort_keys=False, allow_unicode=True), encoding="utf-8")

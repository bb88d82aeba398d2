"""The commissioning commands: scan, read, write, try, commission."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from config.findings import ConfigError, Finding
from config.loading import load_profile, shipped_profiles, shipped_sites
from config.profile import Profile
from config.site import Site
from gateway.cli.answer import is_confirmed
from gateway.cli.profiles import profile_app
from gateway.cli.sites import FAILED, end, end_with_findings, loaded, no_such_device, site_path, tell

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document for programs, never wrapped.")]
SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site: demo.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="A device of the site.")]
AddressesOption = Annotated[
    Path | None, typer.Option("--addresses", metavar="FILE", help="Endpoints as `gateway twins` prints them.")
]
StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="State directory, whose lock a running gateway holds.")
]
HostArgument = Annotated[
    str | None, typer.Argument(metavar="HOST[:PORT]", help="Where to connect; default port by protocol: 502.")
]
SerialOption = Annotated[
    str | None, typer.Option("--serial", metavar="DEV", help="A serial device in place of HOST: /dev/ttyUSB0.")
]
BaudOption = Annotated[int, typer.Option(help="Bits per second of the serial line.")]
ParityOption = Annotated[str, typer.Option(help="Of the serial line: none, even, odd.")]
StopBitsOption = Annotated[int, typer.Option(help="Of the serial line: 1 or 2.")]
RtuOption = Annotated[bool, typer.Option("--rtu", help="HOST speaks RTU frames over TCP, not Modbus TCP.")]

DEFAULT_UNITS: Final = {"tcp": "255,1-247", "line": "1-247"}
NOT_ENDED: Final = "stopped before the end; what was found until then"


def add_commissioning(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(profile_app, name="profile")
    app.command("scan")(scan)
    app.command("read")(read)
    # A negative VALUE is a value, not an option.
    app.command("write", context_settings={"ignore_unknown_options": True})(write)
    app.command("try")(try_profile)
    app.command("commission")(commission)


def scan(
    host: HostArgument = None,
    serial: SerialOption = None,
    baud: BaudOption = 9600,
    parity: ParityOption = "none",
    stop_bits: StopBitsOption = 1,
    rtu: RtuOption = False,
    units: Annotated[
        str | None, typer.Option(help="Units to look at: 1-247, or 255,1-10. Default: all, on TCP 255 first.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.02, max=10.0, help="Seconds that a silent unit is waited for, in each of two tables.")
    ] = 0.3,
    as_json: JsonOption = False,
) -> None:
    """Find Modbus devices: units that answer, their SunSpec models, and the profiles that fit them. Never writes.

    Ctrl-C ends it and prints what was found. Ends with 1 if nothing was found.

    \b
    Examples:
      gateway scan 192.168.1.20
      gateway scan --serial /dev/ttyUSB0 --baud 19200 --parity even --units 1-10
    """
    from gateway.commission.scanning import parse_units
    from gateway.commission.targets import Target, TargetError, modbus_address

    try:
        address = modbus_address(Target(host, serial, baud, parity, stop_bits, rtu))
        on_a_line = serial is not None or rtu
        numbers = parse_units(units or DEFAULT_UNITS["line" if on_a_line else "tcp"])
    except (TargetError, ValueError) as error:
        end(str(error))
    raise typer.Exit(_scan(address, numbers, timeout, serial or host or "", as_json=as_json))


def _scan(address: Any, units: list[int], timeout_s: float, target: str, *, as_json: bool) -> int:
    from drivers.inspection import InspectionFailed
    from gateway.cli.commission_tables import print_found, scan_progress
    from gateway.commission.scanning import Found, loaded_profiles
    from gateway.commission.scanning import as_json as found_as_json
    from gateway.commission.scanning import scan as scan_units
    from gateway.commission.targets import line_hint

    found: list[Found] = []
    complete, why = False, ""

    async def run() -> None:
        with scan_progress() as bar:
            task = bar.add_task(f"scan {target}", total=len(units))
            profiles = loaded_profiles(shipped_profiles())
            async for progress in scan_units(address, units, profiles, time.monotonic, timeout_s):
                found[:] = progress.found
                description = f"scan {target}: unit {progress.unit}, {len(found)} found"
                bar.update(task, completed=progress.done, description=description)

    try:
        asyncio.run(run())
        complete = True
    except KeyboardInterrupt:
        why = NOT_ENDED
    except InspectionFailed as failed:
        why = str(failed)
    if as_json:
        _print_json({"target": target, "complete": complete, "reason": why, "found": [found_as_json(i) for i in found]})
    elif found:
        print_found(target, found)
    elif complete:
        sys.stdout.write(f"{target}: no unit answered\n")
    if complete and not found and (hint := line_hint(address)):
        tell(hint)
    if why and not as_json:
        sys.stderr.write(f"{why}\n")
    return 0 if found and complete else FAILED


def read(
    site: SiteArgument,
    device: DeviceArgument,
    point: Annotated[str | None, typer.Argument(metavar="[POINT]", help="One point; default: all.")] = None,
    addresses: AddressesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every point of a device once, over a connection of its own: value, quality, age, raw registers, address.

    Ends with 1 if the device doesn't answer. A device that takes one connection refuses while a gateway runs on it.

    Example: gateway read site.yaml battery_a soc
    """
    from gateway.cli.commission_tables import print_points
    from gateway.commission.looking import identity_text, look, no_such_point, rows

    _, model, profiles = loaded(site)
    profile = _profile_of(model, profiles, device)
    if point is not None and point not in profile.points:
        end(no_such_point(profile, point))
    address = _addresses(model, addresses).get(device, model.devices[device].address)
    seen = _asked(device, address, look(profile, address, time.monotonic, None if point is None else (point,), tell))
    made = [row for row in rows(profile, seen) if point is None or row["point"] == point]
    if as_json:
        _print_json({"device": device, "profile": profile.profile, "identity": list(seen.identity), "points": made})
    else:
        print_points(f"{device} ({profile.title}) {identity_text(seen.identity)}".rstrip(), made, verdict=False)


def write(
    site: SiteArgument,
    device: DeviceArgument,
    point: Annotated[str, typer.Argument(metavar="POINT", help="A point that can be written.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="In the point's unit and load convention.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    addresses: AddressesOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one point of a device and read it back. Shows what it is now and what would go over the wire, then asks.

    Refused while a gateway runs on the site or writes to the device, outside the point's range, and outside the limits
    that the site file gives the device. Ends with 1 if the device refuses it or shows another value afterwards.

    Example: gateway write site.yaml battery_a setpoint_readback_w -5000
    """
    from gateway.commission.writing import PointWrite, WriteRefused
    from gateway.device_locks import held_devices
    from gateway.state_directory import SiteHeldError, default_state_directory, held_state_directory

    _, model, profiles = loaded(site)
    profile = _profile_of(model, profiles, device)
    address = _addresses(model, addresses).get(device, model.devices[device].address)
    if as_json and not yes:
        end("--json asks nothing: give --yes with it")
    try:
        with held_state_directory(state or default_state_directory(model.site)), held_devices({device: address}):
            asked = PointWrite(model, device, profile, address, point, value)
            raise typer.Exit(_write(asked, yes=yes, as_json=as_json))
    except WriteRefused as refused:
        end(str(refused))
    except SiteHeldError as held:
        end(f"{held}; stop it first: two who write to one device undo each other")


def _write(asked: Any, *, yes: bool, as_json: bool) -> int:
    from gateway.cli.commission_tables import print_write, tell_written, write_as_json
    from gateway.commission.writing import write_by_hand

    under_way = False

    async def confirmed(prepared: Any) -> bool:
        nonlocal under_way
        if not as_json:
            print_write(asked.device, prepared)
        under_way = yes or await is_confirmed()
        return under_way

    try:
        prepared, done = _asked(asked.device, asked.address, write_by_hand(asked, confirmed, time.monotonic, tell))
    except KeyboardInterrupt:
        tell("\nbroken off; the write may have been taken: read it back" if under_way else "\nnothing was written")
        return FAILED
    if done is None:
        sys.stderr.write("nothing was written\n")
        return FAILED
    if as_json:
        _print_json(write_as_json(asked.device, prepared, done))
    else:
        tell_written(asked.device, prepared, done)
    return 0 if done.good else FAILED


def try_profile(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile file, or the name of a shipped profile.")
    ],
    host: HostArgument = None,
    unit: Annotated[int, typer.Option(min=0, max=255, help="Modbus unit.")] = 1,
    serial: SerialOption = None,
    baud: BaudOption = 9600,
    parity: ParityOption = "none",
    stop_bits: StopBitsOption = 1,
    rtu: RtuOption = False,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=TEXT", help="A parameter of an MQTT profile's topics.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read every point of a profile from a device once, and judge whether the values can be true. Writes nothing.

    Shows raw registers, decoded value, unit and a verdict; holds power against voltage and current where they are
    there. Ends with 1 if the device doesn't answer, lacks a point that control needs, or contradicts itself.

    Example: gateway try eastron_sdm630 192.168.1.30 --unit 2
    """
    from gateway.commission.looking import look
    from gateway.commission.targets import Target, TargetError, address_for

    chosen = _loaded_profile(profile)
    without = [text for text in param or [] if "=" not in text]
    if without:
        end(f"--param {without[0]}: NAME=TEXT is asked for")
    parameters = dict(text.partition("=")[::2] for text in param or [])
    try:
        address = address_for(chosen, Target(host, serial, baud, parity, stop_bits, rtu, unit, parameters))
        seen = _asked(profile, address, look(chosen, address, time.monotonic))
    except (TargetError, ValueError) as error:
        end(str(error))
    raise typer.Exit(_judge(chosen, seen, serial or host or "", as_json=as_json))


def _judge(profile: Profile, seen: Any, target: str, *, as_json: bool) -> int:
    from gateway.cli.commission_tables import print_points
    from gateway.commission.looking import identity_text, rows
    from gateway.commission.plausibility import contradictions, required_points, verdicts

    judged = verdicts(profile, seen.readings, seen.missing)
    made = [row for row in rows(profile, seen) if row["point"] in judged]
    for row in made:
        verdict = judged[row["point"]]
        row |= {"verdict": verdict.state, "reason": verdict.reason}
    problems = [f"{name}: control needs it" for name in required_points(profile, judged)]
    problems += contradictions(seen.readings)
    if not any(reading.good for reading in seen.readings.values()):
        problems.append("no point could be read: this is another kind of device, or another unit; gateway scan tells")
    problems += [f"{name}: {verdict.reason}" for name, verdict in judged.items() if verdict.state == "doubtful"]
    if as_json:
        _print_json(
            {
                "profile": profile.profile,
                "target": target,
                "identity": list(seen.identity),
                "good": not problems,
                "problems": problems,
                "points": made,
            }
        )
    else:
        print_points(f"{profile.title} at {target} {identity_text(seen.identity)}".rstrip(), made, verdict=True)
        for problem in problems:
            sys.stderr.write(f"{problem}\n")
        if not problems:
            sys.stdout.write("plausible: every value that control needs is there, and none contradicts another\n")
    return FAILED if problems else 0


def commission(
    site: SiteArgument,
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Default: every device that can be controlled.")
    ] = None,
    twin: Annotated[
        list[str] | None, typer.Option("--twin", metavar="NAME", help="Replace this device by its twin, or give: all.")
    ] = None,
    step_w: Annotated[float | None, typer.Option(min=1.0, help="Size of the step in watts.")] = None,
    step_pu: Annotated[float, typer.Option(min=0.01, max=1.0, help="Size of the step as a part of the rating.")] = 0.2,
    allow_real_writes: Annotated[
        bool, typer.Option("--allow-real-writes", help="Step devices that are not twins.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Lags file; default SITE.lags.yaml beside the site.")
    ] = None,
    addresses: AddressesOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Step each controllable device in turn and see what the device and the connection's meter show of it.

    Finds a reversed meter, a wrong sign, scale or phase, and a device that does not respond, and measures each device's
    dead time and Tr90, which are stored for control. One device moves at a time, within its own limits, the site's and
    its state of charge; anything odd puts it at rest. Ends with 1 unless every device that was stepped is good.

    \b
    Examples:
      gateway commission demo --twin all --out demo.lags.yaml
      gateway commission site.yaml battery_a --step-w 2000 --allow-real-writes
    """
    from gateway.cli.commission_run import CommissionCommand, run_commission

    path, model, profiles = loaded(site)
    shipped = site_path(site) in shipped_sites().values()
    command = CommissionCommand(
        path, model, profiles, tuple(devices or ()), tuple(twin or ()), step_w, step_pu, allow_real_writes,
        out, addresses, state, as_json, shipped,
    )  # fmt: skip
    raise typer.Exit(run_commission(command))


def _profile_of(site: Site, profiles: dict[str, Profile], device: str) -> Profile:
    if device not in profiles:
        end(no_such_device(site, (device,)))
    return profiles[device]


def _loaded_profile(name: str) -> Profile:
    path = Path(name)
    try:
        return load_profile(path if path.suffix or path.exists() else name)
    except ConfigError as error:
        findings: tuple[Finding, ...] = error.findings
        end_with_findings(findings)


def _addresses(model: Any, path: Path | None) -> dict[str, Any]:
    from gateway.cli.run import BadRequestError, read_addresses, site_addresses

    try:
        return site_addresses(model, read_addresses(path).get("endpoints", {}))
    except BadRequestError as error:
        end(str(error))


def _asked(device: str, address: Any, work: Any) -> Any:
    """Run something that talks to a device; a device that doesn't answer is told and ends the command with 1."""
    from drivers.inspection import InspectionFailed
    from gateway.commission.targets import line_hint

    try:
        return asyncio.run(work)
    except InspectionFailed as failed:
        tell(f"{device}: {failed}")
        # It names the unit where the port is open.
        if ", unit " in str(failed) and (hint := line_hint(address)):
            tell(hint)
        raise typer.Exit(FAILED) from None


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")

"""Compares the profiles of inverters and storages with the register tables of public client libraries.

Not a test: the libraries are no dependencies of Lamina, and some need Python 3.12. In an environment of its own:

    python3.13 -m venv libraries
    libraries/bin/pip install pydantic pyyaml pysunspec2 huawei-solar==3.0.7 sma-modbus==2.1.3 solaredged==0.5.0 \
        fronius-modbus==0.3.0 sungrow-modbus==0.1.0a17 sungrow-sht-modbus==0.1.0a3 aiovictron==0.2.0
    PYTHONPATH=. libraries/bin/python tests/profiles/check_against_libraries.py

Prints a line for each register point: whether a library has a value at that address, and whether its type, word order
and scale are the profile's. A library that is not installed is left out. Exit code 1 for a difference that is not
explained here. Two tables that agree may still share a mistake: the vendor's document decides.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from config.loading import load_profile
from config.profile import PointProfile, RegisterType

EXPLAINED: Final = {
    ("victron_gx", 12): "the list's scale factor 0.1 stands for raw x 10; the library divides by 10",
    ("victron_gx", 23): "the list's scale factor 0.1 stands for raw x 10; the library divides by 10",
    ("victron_gx_1ph", 12): "the list's scale factor 0.1 stands for raw x 10; the library divides by 10",
    ("victron_gx_1ph", 23): "the list's scale factor 0.1 stands for raw x 10; the library divides by 10",
}
# How many of the profile's units one of the library's is.
UNITS: Final = {"kWh": 1000.0, "%": 0.01, "min": 60.0, "minutes": 60.0}


class Entry(NamedTuple):
    """What a library knows of an address. `scale` None: it says nothing of it, as for enumerations."""

    name: str
    type: str
    word_order: str = "big"
    scale: float | None = None


Table = dict[tuple[str, int], Entry]
"""By register table ("" where the library reads either) and address."""


def huawei() -> Table:
    registers = importlib.import_module("huawei_solar.registers").REGISTERS
    kinds = {"H": "uint16", "h": "int16", "I": "uint32", "i": "int32", "Q": "uint64", "q": "int64"}
    table: Table = {}
    for name, register in registers.items():
        if type(register).__name__ == "StringRegister":
            table.setdefault(("", register.register), Entry(str(name), "string"))
        elif hasattr(register, "gain"):
            unit = register.unit if isinstance(register.unit, str) else None
            scale = None if register.unit is not None and unit is None else UNITS.get(unit or "", 1.0) / register.gain
            table.setdefault(("", register.register), Entry(str(name), kinds[register.format], "big", scale))
    return table


def _fields(*modules: str) -> Iterator[tuple[type, str, Any]]:
    """Every field of every component that these modules define (the tables made on modbus-connection)."""
    for name in modules:
        module = importlib.import_module(name)
        for component in vars(module).values():
            if isinstance(component, type) and component.__module__ == name:
                for owner in component.__mro__:
                    yield from ((component, key, field) for key, field in vars(owner).items() if _is_field(field))


def _is_field(field: object) -> bool:
    return hasattr(field, "address") and hasattr(field, "count")


def _entry(name: str, field: Any) -> Entry:
    kind = type(field).__name__
    if kind == "StringField":
        return Entry(name, "string")
    bits = 16 * field.count
    type_ = f"float{bits}" if kind == "FloatField" else f"{'int' if getattr(field, 'signed', False) else 'uint'}{bits}"
    plain = getattr(field, "convert", None) is None and hasattr(field, "scale") and field.scale_register is None
    scale = field.scale * UNITS.get(field.unit or "", 1.0) if plain else None
    return Entry(name, type_, getattr(field, "word_order", "big"), scale)


def sma() -> Table:
    fields = _fields("sma_modbus.sunny_boy_smart_energy", "sma_modbus.sunny_tripower")
    return {("", field.address): _entry(name, field) for _, name, field in fields}


def sungrow() -> Table:
    table: Table = {}
    for component, name, field in _fields("sungrow_modbus.inverter.registers", "sungrow_inverter.components.settings"):
        space = getattr(component, "register_space", "holding")
        table.setdefault((space, field.address), _entry(name, field))
    return table


def solaredge() -> Table:
    # Addresses below 1000 count from the start of a SunSpec model.
    fields = _fields("solaredged.components")
    return {("", field.address): _entry(name, field) for _, name, field in fields if field.address > 1000}


def victron() -> Table:
    parser = importlib.import_module("aiovictron.registers.vebus").VEBusParser()
    return {
        ("", item.address): Entry(item.field_name, item.register_type.value, "big", _of_victron(item))
        for item in parser.registers
    }


def _of_victron(item: Any) -> float | None:
    """The library's percent are the profile's parts of 1."""
    if item.field_name == "vebus_state":
        return None
    return (0.01 if item.field_name.endswith("soc") else 1.0) / float(item.scale)


def fronius() -> Table:
    """Model 124 only; addresses count from the start of the model."""
    return {("", field.address): _entry(name, field) for _, name, field in _fields("fronius_modbus.storage")}


LIBRARIES: Final[dict[str, Callable[[], Table]]] = {
    "huawei_luna": huawei,
    "huawei_sun2000": huawei,
    "huawei_hybrid_pv": huawei,
    "sma_storage": sma,
    "sungrow_sh": sungrow,
    "sungrow_sh_pv": sungrow,
    "solaredge_storage": solaredge,
    "solaredge_inverter": solaredge,
    "victron_gx": victron,
    "victron_gx_1ph": victron,
    "fronius_gen24": fronius,
}


def differences(point: PointProfile, entry: Entry) -> list[str]:
    """How a register point differs from a library's entry, in words."""
    address = point.modbus
    assert address is not None  # the caller's choice
    said = []
    if address.type.value.replace("bits", "uint") != entry.type:
        said.append(f"type {address.type}, not {entry.type}")
    if address.registers > 1 and address.type is not RegisterType.STRING and address.word_order != entry.word_order:
        said.append(f"word order {address.word_order}, not {entry.word_order}")
    numbers = entry.scale is not None and point.values is None and address.type is not RegisterType.STRING
    if numbers and not math.isclose(point.scale, entry.scale or 0.0):
        said.append(f"scale {point.scale:g}, not {entry.scale:g}")
    return said


def compared(profile: str, table: Table) -> Iterator[tuple[str, str, str]]:
    """Point, address and verdict for each register point of a profile."""
    for name, point in load_profile(profile).points.items():
        if point.modbus is None:
            continue
        at = point.modbus.address
        entry = table.get((point.modbus.table, at)) or table.get(("", at))
        verdict = "not in the library"
        if entry is not None:
            said = ", ".join(differences(point, entry))
            reason = EXPLAINED.get((profile, at))
            verdict = f"agrees with {entry.name}" if not said else f"DIFFERS from {entry.name}: {said}"
            if said and reason is not None:
                verdict = f"explained difference from {entry.name}: {said} ({reason})"
        yield name, str(at), verdict


def sunspec_compared(profile: str, table: Table) -> Iterator[tuple[str, str, str]]:
    """The same for points of SunSpec model 124, whose definition is pysunspec2's."""
    model = importlib.import_module("sunspec2.device").Model(124)
    for name, point in load_profile(profile).points.items():
        if point.sunspec is None or point.sunspec.models != (124,):
            continue
        place = model.points[point.sunspec.point]
        entry = table.get(("", place.offset))
        kind = {"enum16": "uint16", "bitfield16": "uint16"}.get(place.pdef["type"], place.pdef["type"])
        if entry is None:
            verdict = "not in the library"
        elif entry.type == kind:
            verdict = f"agrees with {entry.name}"
        else:
            verdict = f"DIFFERS from {entry.name}: type {kind}, not {entry.type}"
        yield name, f"124+{place.offset}", verdict


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> int:
    unexplained = 0
    for profile, library in LIBRARIES.items():
        try:
            table = library()
        except ImportError as missing:
            say(f"{profile}: left out, {missing}")
            continue
        rows = [*compared(profile, table), *(sunspec_compared(profile, table) if library is fronius else ())]
        agree = sum(verdict.startswith("agrees") for _, _, verdict in rows)
        differ = sum(verdict.startswith("DIFFERS") for _, _, verdict in rows)
        others = len(rows) - agree - differ
        say(f"{profile}: {agree} agree, {differ} differ, {others} not in the library or explained")
        for name, at, verdict in rows:
            say(f"  {name:24} {at:>7}  {verdict}")
        unexplained += differ
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

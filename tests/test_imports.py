"""The static import graph of the four packages, held against the design: imports go one way.

Every import counts, also one inside a function, under TYPE_CHECKING or through `import_module("...")`; only a cycle
that exists for type checkers alone is let pass.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

ALLOWED_PACKAGES = {
    "config": {"config"},
    "drivers": {"config", "drivers"},
    "sim_devices": {"config", "sim_devices"},
    "gateway": {"config", "drivers", "gateway"},
}
WHERE_BOTH_SIDES_MEET = ("gateway.bench*", "gateway.cli*")
"""The only modules of the gateway that may import sim_devices."""

LIBRARIES = {
    "asyncua": ("drivers.opcua*", "sim_devices.opcua*"),
    "aiomqtt": ("drivers.mqtt*", "sim_devices*", "gateway.parent*"),
    "paho": ("drivers.mqtt*", "sim_devices*", "gateway.parent*"),
    "ocpp": ("drivers.ocpp*", "sim_devices.ocpp*"),
    "websockets": ("drivers.ocpp*", "sim_devices.ocpp*"),
    "pymodbus": ("drivers.modbus*",),
    "serial": ("drivers.modbus*",),
    "cvxpy": ("gateway.planning*",),
    "rich": ("gateway.cli*", "gateway.bench*"),
    "typer": ("gateway.cli*", "gateway.bench*"),
}
CONFIG_LIBRARIES = {"pydantic", "pydantic_core", "yaml"}
VOCABULARY = "config.vocabulary"
CONTROL = "gateway.control*"
NOT_IN_CONTROL = {"drivers", "asyncio", "socket", "socketserver", "ssl", "selectors", "time"}
CONCRETE_DRIVERS = ("drivers.modbus", "drivers.opcua", "drivers.mqtt", "drivers.ocpp", "drivers.layer")
COMPOSITION_ROOT = "gateway.composition"


class Import(NamedTuple):
    """One import of a module; `typing_only` ones do not happen at run time."""

    importer: str
    line: int
    name: str
    typing_only: bool

    @property
    def package(self) -> str:
        return self.name.split(".")[0]


def modules(root: Path) -> dict[str, Path]:
    """The modules of the four packages by dotted name."""
    found: dict[str, Path] = {}
    for package in ALLOWED_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> list[Import]:
    """Every import of every module; a name taken from a package is the submodule where there is one."""
    known = modules(root)
    return [item for name, path in known.items() for item in _imports_of(name, path, known)]


def _imports_of(importer: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    for node in ast.walk(tree):
        for name in _imported(node, package, known):
            yield Import(importer, node.lineno, name, id(node) in typing_only)  # type: ignore[attr-defined]


def _imported(node: ast.AST, package: str, known: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def fits(module: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(module, pattern) for pattern in patterns)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def violations(root: Path) -> list[str]:
    """Every import that the design forbids, as MODULE:LINE: WHAT, and every cycle."""
    found = imports(root)
    told = [f"{item.importer}:{item.line}: {reason}" for item in found for reason in _reasons(item)]
    return sorted(set(told)) + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles(found, set(modules(root)))]


def _reasons(item: Import) -> Iterator[str]:
    importer = item.importer
    allowed = ALLOWED_PACKAGES[importer.split(".")[0]]
    if fits(importer, WHERE_BOTH_SIDES_MEET):
        allowed = allowed | {"sim_devices"}
    if item.package in ALLOWED_PACKAGES and item.package not in allowed:
        yield f"{importer.split('.')[0]} must not import {item.package}"
    if item.package in LIBRARIES and not fits(importer, LIBRARIES[item.package]):
        yield f"{item.package} is only for {', '.join(LIBRARIES[item.package])}"
    if within(importer, "config"):
        yield from _reasons_in_config(item)
    if fits(importer, (CONTROL,)) and item.package in NOT_IN_CONTROL:
        yield f"control must not import {item.package}"
    for driver in CONCRETE_DRIVERS:
        if within(item.name, driver) and not within(importer, driver) and importer != COMPOSITION_ROOT:
            yield f"only {COMPOSITION_ROOT} names {driver}"


def _reasons_in_config(item: Import) -> Iterator[str]:
    standard = item.package in sys.stdlib_module_names
    if item.importer == VOCABULARY and not standard:
        yield "the vocabulary has the standard library alone"
    if not standard and item.package not in CONFIG_LIBRARIES | set(ALLOWED_PACKAGES):
        yield f"config must not import {item.package}"


def cycles(found: Iterable[Import], known: set[str]) -> list[list[str]]:
    """The cycles that a depth-first walk of the run-time imports meets, each from its first name round to it."""
    edges: dict[str, set[str]] = {name: set() for name in known}
    for item in found:
        if not item.typing_only and item.name in known and item.name != item.importer:
            edges[item.importer].add(item.name)
    done: set[str] = set()
    met: list[list[str]] = []

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            ring = path[path.index(module) :]
            first = ring.index(min(ring))
            met.append([*ring[first:], *ring[:first], ring[first]])
        elif module not in done:
            for target in sorted(edges[module]):
                walk(target, [*path, module])
            done.add(module)

    for module in sorted(known):
        walk(module, [])
    return met


def test_imports_go_one_way() -> None:
    assert violations(ROOT) == []


def test_the_graph_is_not_empty() -> None:
    found = imports(ROOT)
    assert any(item.importer == "config.loading" and item.name == "config.site" for item in found)
    assert {name.split(".")[0] for name in modules(ROOT)} == set(ALLOWED_PACKAGES)


# The checker itself, on a tree with one planted import


PLANTED = {
    "drivers in config": ("config/a.py", "import drivers.reading\n", "config.a:1: config must not import drivers"),
    "a library in config": ("config/a.py", "import numpy as np\n", "config.a:1: config must not import numpy"),
    "pydantic in the vocabulary": (
        "config/vocabulary.py",
        "from pydantic import Field\n",
        "config.vocabulary:1: the vocabulary has the standard library alone",
    ),
    "config in the vocabulary": (
        "config/vocabulary.py",
        "from config import other\n",
        "config.vocabulary:1: the vocabulary has the standard library alone",
    ),
    "gateway in drivers": ("drivers/a.py", "from gateway import x\n", "drivers.a:1: drivers must not import gateway"),
    "twins in drivers": (
        "drivers/a.py",
        "def f():\n    import sim_devices\n",
        "drivers.a:2: drivers must not import sim_devices",
    ),
    "drivers in twins": (
        "sim_devices/a.py",
        "import drivers\n",
        "sim_devices.a:1: sim_devices must not import drivers",
    ),
    "twins in the gateway": (
        "gateway/field.py",
        "from sim_devices import physics\n",
        "gateway.field:1: gateway must not import sim_devices",
    ),
    "a clock in control": (
        "gateway/control/a.py",
        "import time\n",
        "gateway.control.a:1: control must not import time",
    ),
    "tasks in control": (
        "gateway/control/a.py",
        "from asyncio import Task\n",
        "gateway.control.a:1: control must not import asyncio",
    ),
    "a driver in control, for types": (
        "gateway/control/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from drivers import reading\n",
        "gateway.control.a:3: control must not import drivers",
    ),
    "OPC UA beside its driver": (
        "drivers/link.py",
        "import asyncua.client\n",
        "drivers.link:1: asyncua is only for drivers.opcua*, sim_devices.opcua*",
    ),
    "an MQTT client in control's house": (
        "gateway/field.py",
        "import paho.mqtt.client\n",
        "gateway.field:1: paho is only for drivers.mqtt*, sim_devices*, gateway.parent*",
    ),
    "pymodbus in a twin": (
        "sim_devices/a.py",
        "import pymodbus\n",
        "sim_devices.a:1: pymodbus is only for drivers.modbus*",
    ),
    "a serial line in a twin": (
        "sim_devices/a.py",
        "import serial\n",
        "sim_devices.a:1: serial is only for drivers.modbus*",
    ),
    "the solver in the control process": (
        "gateway/control/a.py",
        "def f():\n    import cvxpy\n",
        "gateway.control.a:2: cvxpy is only for gateway.planning*",
    ),
    "a table in the field": (
        "gateway/field.py",
        "import rich\n",
        "gateway.field:1: rich is only for gateway.cli*, gateway.bench*",
    ),
    "a concrete driver in the field": (
        "gateway/field.py",
        "def f():\n    from drivers.mqtt.driver import Driver\n",
        "gateway.field:2: only gateway.composition names drivers.mqtt",
    ),
    "a concrete driver by name": (
        "gateway/field.py",
        "import importlib\nimportlib.import_module('drivers.modbus.driver')\n",
        "gateway.field:2: only gateway.composition names drivers.modbus",
    ),
    "one driver in another": (
        "drivers/opcua/a.py",
        "from ..modbus import driver\n",
        "drivers.opcua.a:1: only gateway.composition names drivers.modbus",
    ),
    "a cycle of two": (
        "drivers/reading.py",
        "from drivers import writing\n",
        "cycle: drivers.reading -> drivers.writing -> drivers.reading",
    ),
    "a cycle inside a function": (
        "drivers/reading.py",
        "def f():\n    from .writing import g\n",
        "cycle: drivers.reading -> drivers.writing -> drivers.reading",
    ),
}

CLEAN = {
    "config/__init__.py": "",
    "config/vocabulary.py": "from __future__ import annotations\nimport enum\n",
    "config/site.py": "import pydantic_core\nimport yaml\nfrom pydantic import Field\nimport config.vocabulary\n",
    "drivers/__init__.py": "",
    "drivers/reading.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from drivers.writing import g\n",
    "drivers/writing.py": "from drivers.reading import f\nimport config.site\n",
    "drivers/modbus/__init__.py": "",
    "drivers/modbus/driver.py": "import pymodbus\nimport serial\nfrom drivers.modbus import framing\n",
    "drivers/modbus/framing.py": "from .. import writing\n",
    "drivers/mqtt/driver.py": "import aiomqtt\n",
    "drivers/opcua/driver.py": "from asyncua import Client\n",
    "sim_devices/__init__.py": "import asyncio\nimport config.site\n",
    "sim_devices/opcua_battery.py": "import asyncua\n",
    "sim_devices/physics.py": "",
    "gateway/__init__.py": "",
    "gateway/composition.py": "def f():\n    from drivers.mqtt.driver import Driver\n    import drivers.opcua.driver\n",
    "gateway/field.py": "import asyncio\nimport drivers.reading\n",
    "gateway/control/cycle.py": "import math\nfrom gateway.control import clearing\n",
    "gateway/control/clearing.py": "import numpy\nimport config.vocabulary\n",
    "gateway/parent/mqtt.py": "import aiomqtt\nimport paho.mqtt.client\n",
    "gateway/planning/plan.py": "import cvxpy\n",
    "gateway/bench/demo.py": "import sim_devices.physics\nimport rich\n",
    "gateway/cli.py": "import sim_devices\nimport typer\n",
}


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_a_clean_tree_passes(tmp_path: Path) -> None:
    plant(tmp_path, CLEAN)
    assert violations(tmp_path) == []


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_import_is_found(tmp_path: Path, case: str) -> None:
    name, text, expected = PLANTED[case]
    plant(tmp_path, CLEAN | {name: text})
    assert violations(tmp_path) == [expected]

"""The table of docs/faults.md, as the registry has it; `python -m sim_devices.faults.page FILE` renews it there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sim_devices.faults.registry import EVERY, FAULTS, MODBUS, FaultKind, Parameter

BEGIN: Final = "<!-- the table is generated: python -m sim_devices.faults.page docs/faults.md -->\n"
END: Final = "<!-- end of the table -->\n"


def table() -> str:
    """Every fault in Markdown."""
    head = ["| fault | applies to | what happens | settings |", "|---|---|---|---|"]
    kinds = FAULTS.values()
    rows = [f"| `{kind.name}` | {_applies_to(kind)} | {kind.what} | {_settings(kind)} |" for kind in kinds]
    return "\n".join([*head, *rows]) + "\n"


def with_table(text: str) -> str:
    """A page with the present table between its marks; raises ValueError where they are not."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table() + END + after


def _applies_to(kind: FaultKind) -> str:
    names = list(kind.applies_to)
    if set(EVERY) <= set(names):
        return "every protocol"
    if set(MODBUS) <= set(names):
        return ", ".join(["modbus", *(name for name in names if name not in MODBUS)])
    return ", ".join(names)


def _settings(kind: FaultKind) -> str:
    said = [f"`{name}`{_default(it)}: {it.what}" for name, it in kind.parameters.items()]
    if kind.points is not None:
        said.append(f"`point`: of its {kind.points.value.removeprefix('its ')}")
    if kind.selects and len(kind.allowed) > 1 and not (kind.understands and kind.points is not None):
        said.append(f"`direction`, default {'both' if len(kind.default) > 1 else kind.default[0]}")
    return "; ".join(said) or "-"


def _default(parameter: Parameter) -> str:
    return "" if parameter.default is None else f" {parameter.default:g}"


def main(arguments: Sequence[str]) -> int:
    """Renew the table in the file named; the exit code."""
    path = Path(arguments[0])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

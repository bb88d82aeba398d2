"""JSON Schemas for editors and other programs, and the configuration's documentation, all from the models.

python -m config.schema_export --schema site|profile|layer     prints a JSON Schema
python -m config.schema_export --docs docs/configuration.md    writes the documentation
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema
from pydantic_core import to_jsonable_python

from config.messages import DOWN_SCHEMAS, UP_SCHEMAS
from config.profile import Profile
from config.schema_text import Schema, describe, schema_of
from config.site import Site
from config.strict import Strict

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_TERMS: Final = {
    "SunSpec": "SunSpec",
    "OpcUa": "OPC UA",
    "Mqtt": "MQTT",
    "Ocpp": "OCPP",
    "Tls": "TLS",
    "Tcp": "TCP",
    "Rtu": "RTU",
    "Ev": "EV",
}

_INTRODUCTION: Final = """\
# Configuration

Generated from the schemas by `python -m config.schema_export --docs docs/configuration.md`; a test holds it current.
`python -m config.schema_export --schema site` (or `profile`) prints the JSON Schema for an editor.

A site is one YAML file, and so is each profile. `gateway check SITE` reads a site file with its profiles and reports
every error at once as `FILE:LINE: PATH: MESSAGE; allowed: ...`. Warnings are shown and do not refuse a file.

- Powers are in load convention: import, charging and consuming are positive; export, discharging and generating are
  negative. Ratings and limits on net import and export are magnitudes.
- Units stand at the end of names: `_w`, `_wh`, `_v`, `_a`, `_hz`, `_s`, `_ms`; `_pu` and `soc` are 0 to 1; prices are
  `_per_kwh`.
- Values follow YAML 1.2: only `true` and `false` are truth values (`no` and `on` are text), `12:30:00` is text, and a
  number with leading zeros is text. Numbers are not written in quotes. Tags and merge keys (`<<`) are refused; anchors
  and aliases may be used.
- A key that is not listed here is an error.
"""


def site_schema() -> Schema:
    """JSON Schema of a site file."""
    return {"$schema": DIALECT, **schema_of(Site), "title": "Lamina site"}


def profile_schema() -> Schema:
    """JSON Schema of a profile."""
    return {"$schema": DIALECT, **schema_of(Profile), "title": "Lamina device profile"}


def layer_schema() -> Schema:
    """JSON Schemas of the layer interface's messages, by direction and message, with shared definitions."""
    down = {("down", message.value): model for message, model in DOWN_SCHEMAS.items()}
    up = {("up", message.value): model for message, model in UP_SCHEMAS.items()}
    models = {**down, **up}
    references, definitions = models_json_schema([(model, "validation") for model in dict.fromkeys(models.values())])
    messages: dict[str, dict[str, Any]] = {"down": {}, "up": {}}
    for (direction, message), model in models.items():
        messages[direction][message] = references[(model, "validation")]
    return {"$schema": DIALECT, "title": "Lamina layer interface", "messages": messages, **definitions}


def documentation() -> str:
    """The whole of `docs/configuration.md`."""
    parts = [_INTRODUCTION, "## The site file\n"]
    parts += sections(Site)
    parts += ["## Profiles\n"]
    parts += sections(Profile)
    return "\n".join(parts)


def sections(top: type[Strict]) -> Iterator[str]:
    """A section in Markdown for each model that a file is made of, with its keys."""
    for model, places in _models(top).items():
        yield _section(model, places, schema_of(top))


def _models(top: type[Strict]) -> dict[type[Strict], list[str]]:
    """Every model that a file is made of, in the order in which a reader meets them, with the paths it is at."""
    found: dict[type[Strict], list[str]] = {}

    def visit(model: type[Strict], place: str) -> None:
        found.setdefault(model, []).append(place)
        for name, field in model.model_fields.items():
            for inner, suffix in _inner(field.annotation):
                visit(inner, f"{place}.{name}{suffix}".lstrip("."))

    visit(top, "")
    return found


def _inner(annotation: Any, suffix: str = "") -> Iterator[tuple[type[Strict], str]]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation, suffix
    elif origin in (Union, UnionType):
        for member in arguments:
            yield from _inner(member, suffix)
    elif origin is Annotated:
        yield from _inner(arguments[0], suffix)
    elif origin is dict:
        yield from _inner(arguments[1], f"{suffix}.NAME")
    elif origin is tuple:
        yield from _inner(arguments[0], f"{suffix}[]")


def _section(model: type[Strict], places: list[str], root: Schema) -> str:
    where = ", ".join(f"`{place}`" for place in dict.fromkeys(places) if place) or "the top of the file"
    schema = root if model.__name__ == root["title"] else root["$defs"][model.__name__]
    lines = [f"### {_title(model.__name__)}", "", f"At {where}. {_paragraphs(model)}", ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        value = describe(schema["properties"][name], root, _link)
        cells = (f"`{name}`", value, _default(field), _in_yaml(field.description or ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join((*lines, ""))


def _paragraphs(model: type[BaseModel]) -> str:
    text = (model.__doc__ or "").strip()
    return _in_yaml("\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")))


def _in_yaml(text: str) -> str:
    return re.sub(r"\bNone\b", "null", text)


def _title(name: str) -> str:
    """`DeviceSite` as "Device site", `MqttDevice` as "MQTT device"."""
    words = re.findall("SunSpec|OpcUa|[A-Z][a-z]*", name)
    title = " ".join(_TERMS.get(word, word.lower()) for word in words)
    return title[0].upper() + title[1:]


def _link(name: str) -> str:
    title = _title(name)
    return f"[{title}](#{title.lower().replace(' ', '-')})"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Strict):
        return "its defaults" if value.model_fields_set == set() else _inline(value)
    if value is None or value == "" or value in ((), {}):
        return "none"
    plain = value.value if isinstance(value, Enum) else to_jsonable_python(value)
    if isinstance(plain, float):
        return f"{plain:g}"
    return plain if isinstance(plain, str) else json.dumps(plain)


def _inline(value: Strict) -> str:
    return ", ".join(f"{name}: {getattr(value, name)}" for name in sorted(value.model_fields_set))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m config.schema_export", description="Schemas and documentation.")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--schema", choices=("site", "profile", "layer"), help="print a JSON Schema")
    wanted.add_argument("--docs", type=Path, metavar="FILE", help="write the documentation of site files and profiles")
    options = parser.parse_args(arguments)
    if options.docs is not None:
        options.docs.write_text(documentation(), encoding="utf-8")
        return 0
    schema = {"site": site_schema, "profile": profile_schema, "layer": layer_schema}[options.schema]()
    sys.stdout.write(json.dumps(schema, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a schema allows, in words: for findings and for the documentation, from the same JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from config.findings import Path
from config.strict import NAME_PATTERN, NAME_RULE

Schema: TypeAlias = dict[str, Any]

PATTERN_TEXT: Final = {
    NAME_PATTERN: NAME_RULE,
    r"^[^\s/]+$": "a host name or IP address",
    r"^[sigb]=.+$": "an identifier like s=Battery.Power or i=1234",
    r"^opc\.tcp://[^/]+:\d+(/.*)?$": "a URL like opc.tcp://HOST:PORT/PATH",
    r"^/[^\x00]+$": "an absolute path like /dev/serial/by-id/usb-converter",
    r"^[^\s/:?#%]{1,48}$": "at most 48 characters, without spaces and / : ? # %",
    r"^[A-Za-z0-9._:-]{1,64}$": "at most 64 letters, digits and . _ : -",
    r"^[A-Za-z0-9._-]{1,64}$": "at most 64 letters, digits and . _ -",
    r"^(layer:)?[a-z][a-z0-9_]{0,31}$": f"{NAME_RULE}; of a layer with layer: before it",
}
_BOUNDS: Final = (
    ("exclusiveMinimum", "greater than"),
    ("minimum", "at least"),
    ("exclusiveMaximum", "less than"),
    ("maximum", "at most"),
)


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """The model's JSON Schema, made once."""
    return model.model_json_schema()


def resolved(schema: Schema, root: Schema) -> Schema:
    """The schema with a reference at its top followed."""
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = {**root["$defs"][name], **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def schema_at(root: Schema, path: Path, data: Any) -> Schema | None:
    """The schema of the value at `path`; where a key chooses among alternatives, `data` says which one."""
    schema: Schema | None = resolved(root, root)
    for key in path:
        if schema is None:
            return None
        schema = _step(schema, key, data, root)
        data = _value(data, key)
    return None if schema is None else chosen(schema, data, root)


def chosen(schema: Schema, data: Any, root: Schema) -> Schema:
    """The alternative that the data's discriminator names, or the schema itself."""
    discriminator = schema.get("discriminator")
    if discriminator is None or not isinstance(data, dict):
        return schema
    tag = data.get(discriminator["propertyName"])
    target = discriminator["mapping"].get(tag) if isinstance(tag, str) else None
    return schema if target is None else resolved({"$ref": target}, root)


def tags(schema: Schema) -> tuple[str, list[str]]:
    """The key that chooses among the alternatives of a union, and its allowed values."""
    discriminator = schema["discriminator"]
    return discriminator["propertyName"], sorted(discriminator["mapping"])


def _value(data: Any, key: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(key)
    return data[key] if isinstance(data, list) and isinstance(key, int) and key < len(data) else None


def _step(schema: Schema, key: str | int, data: Any, root: Schema) -> Schema | None:
    schema = chosen(schema, data, root)
    if key in schema.get("properties", {}):
        return resolved(schema["properties"][key], root)
    named = schema.get("patternProperties", {}).values()
    for found in (*named, schema.get("additionalProperties"), _item(schema, key)):
        if isinstance(found, dict):
            return resolved(found, root)
    for alternative in schema.get("anyOf", ()):
        found = _step(resolved(alternative, root), key, data, root)
        if found is not None:
            return found
    return None


def _item(schema: Schema, key: str | int) -> Schema | None:
    if not isinstance(key, int):
        return None
    prefix = schema.get("prefixItems", [])
    found = prefix[key] if key < len(prefix) else schema.get("items")
    return found if isinstance(found, dict) else None


def describe(schema: Schema, root: Schema, named: Callable[[str], str] = lambda title: "a mapping") -> str:
    """What a value may be: "a number greater than 0"; `named` writes the name of a section's schema."""
    schema = resolved(schema, root)
    if "const" in schema:
        return _word(schema["const"])
    if "enum" in schema:
        return ", ".join(_word(item) for item in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            parts = [describe(item, root, named) for item in schema[union] if item.get("type") != "null"]
            return " or ".join(dict.fromkeys(parts))
    match schema.get("type"):
        case "number" | "integer" as kind:
            return _number(schema, "a whole number" if kind == "integer" else "a number")
        case "boolean":
            return "true or false"
        case "string":
            return _text(schema)
        case "array":
            return _list(schema, root, named)
        case "object" if "properties" in schema:
            return named(schema["title"])
        case "object":
            return _mapping(schema, root, named)
    return "any value"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _number(schema: Schema, noun: str) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{noun} from {schema['minimum']:g} to {schema['maximum']:g}"
    bounds = [f"{words} {schema[key]:g}" for key, words in _BOUNDS if key in schema]
    return f"{noun} {' and '.join(bounds)}" if bounds else noun


def _text(schema: Schema) -> str:
    if schema.get("format") == "date-time":
        return "a date and time like 2016-06-08T11:00:00"
    pattern = schema.get("pattern")
    return "text" if pattern is None else PATTERN_TEXT.get(pattern, f"text that matches {pattern}")


def _list(schema: Schema, root: Schema, named: Callable[[str], str]) -> str:
    if "prefixItems" in schema:
        return "a list of " + " and ".join(describe(item, root, named) for item in schema["prefixItems"])
    inner = describe(schema.get("items", {}), root, named)
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    size = f" of {least} to {most}" if most is not None else f" of at least {least}" if least else ""
    choice = ", " in inner and not inner.startswith("a ")
    return f"a list{size}, each {'one of ' if choice else ''}{inner}"


def _mapping(schema: Schema, root: Schema, named: Callable[[str], str]) -> str:
    values = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties", {}))
    inner = describe(values, root, named) if isinstance(values, dict) else "any value"
    return f"a mapping from name to {inner}" if "patternProperties" in schema else f"a mapping from value to {inner}"

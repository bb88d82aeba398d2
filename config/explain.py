"""A schema's verdict on plain data: a model, or every problem in plain sentences and what of the data still holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar, Union, cast, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from config.findings import Path, Problem, did_you_mean, shown
from config.partial import NotKnownError, Partial, broken
from config.schema_text import PATTERN_TEXT, Schema, describe, resolved, schema_at, schema_of, tags
from config.strict import NAME_RULE, BrokenRulesError, Strict

M = TypeVar("M", bound=Strict)

DISCRIMINATORS: Final = ("driver", "check")
"""The keys that choose among the sections of a union."""


class Verdict(NamedTuple, Generic[M]):
    """`value` is a whole model when `problems` is empty, else a `Partial` that reads like one."""

    value: M
    problems: list[Problem]


def examine(model: type[M], data: Mapping[str, Any]) -> Verdict[M]:
    """Validate data against a model; never raises for what the data holds."""
    try:
        return Verdict(model.model_validate(data), [])
    except ValidationError as error:
        found = list(_problems(error, model, data))
    partial = _salvaged(model, data, (), found)
    return Verdict(cast(M, partial), list(dict.fromkeys(found)))


def _salvaged(model: type[Strict], data: Mapping[str, Any], path: Path, found: list[Problem]) -> Partial:
    """What validates of a section; adds the problems of its rules, which the schema did not come to."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in data:
            try:
                values[name] = _field(model, name, data[name], (*path, name), found)
            except NotKnownError:
                continue
        elif not field.is_required():
            values[name] = field.get_default(call_default_factory=True)
    partial = Partial(values)
    found.extend(problem.under(path) for rule in model.rules for problem in broken(rule, partial))
    return partial


@cache
def _adapter(model: type[Strict], name: str) -> TypeAdapter[Any]:
    field = model.model_fields[name]
    annotation: Any = Annotated[field.annotation, field]
    return TypeAdapter(annotation)


def _field(model: type[Strict], name: str, value: Any, path: Path, found: list[Problem]) -> Any:
    try:
        return _adapter(model, name).validate_python(value)
    except ValidationError:
        pass
    annotation = _bare(model.model_fields[name].annotation, value)
    section = _section(annotation)
    if section is not None and isinstance(value, dict):
        return _salvaged(section, value, path, found)
    arguments = get_args(annotation)
    section = _section(arguments[-1]) if arguments and arguments[-1] is not Ellipsis else None
    if get_origin(annotation) is dict and section is not None and isinstance(value, dict):
        names = (key for key in value if isinstance(key, str))
        return {name: _member(section, value[name], (*path, name), found) for name in names}
    if get_origin(annotation) is tuple and isinstance(value, list):
        sections = [_section(_bare(arguments[0], item)) for item in value]
        if any(sections):
            members = enumerate(zip(sections, value, strict=True))
            return tuple(
                Partial({}) if section is None else _member(section, item, (*path, at), found)
                for at, (section, item) in members
            )
    raise NotKnownError


def _member(model: type[Strict], value: Any, path: Path, found: list[Problem]) -> Any:
    """One of several sections; never left out, so that the others keep their places."""
    try:
        return model.model_validate(value)
    except ValidationError:
        return _salvaged(model, value, path, found) if isinstance(value, dict) else Partial({})


def _section(annotation: Any) -> type[Strict] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Strict) else None


def _bare(annotation: Any, value: Any) -> Any:
    """The annotation without metadata and None, and of sections told apart by a key the one that the value names."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [item for item in get_args(annotation) if item is not NoneType]
    if len(members) == 1:
        return _bare(members[0], value)
    for key in DISCRIMINATORS:
        tag = value.get(key) if isinstance(value, dict) else None
        for section in filter(None, map(_section, members)):
            if key in section.model_fields and tag in get_args(section.model_fields[key].annotation):
                return section
    return None


def _problems(error: ValidationError, model: type[Strict], data: Mapping[str, Any]) -> Iterator[Problem]:
    """One problem for each place: a value that fits no alternative of a union is an error once for each of them."""
    places: dict[tuple[Path, bool], list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        path = _path(item, data)
        context = item.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, BrokenRulesError):
            yield from (problem.under(path) for problem in cause.problems)
        elif item["type"] != "too_short" or len(item["input"]) < context["min_length"]:
            # A list is called too short as well when too few of its entries are right.
            places.setdefault((path, item["loc"][-1:] == ("[key]",)), []).append(item)
    for (path, is_key), items in places.items():
        telling = next((item for item in items if not item["type"].endswith("_type")), items[0])
        if is_key:
            yield Problem(path, f"{shown(path[-1])} cannot be a name", NAME_RULE)
        else:
            yield _explained(telling, path, schema_of(model), data)


def _path(item: ErrorDetails, data: Any) -> Path:
    """Where in the data an error is: its location without the labels of union members."""
    path: list[str | int] = []
    location = item["loc"]
    for at, part in enumerate(location):
        last = at == len(location) - 1
        if isinstance(data, dict):
            key = part if part in data else next((k for k in data if str(k) == part), None)
            if key is not None:
                path.append(key)
                data = data[key]
                continue
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            path.append(part)
            data = data[part]
            continue
        if last and item["type"] == "missing":
            path.append(part)
    return tuple(path)


_SENTENCES: Final[dict[str, str]] = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "has the wrong form",
    "enum": "is not one of the allowed values",
    "literal_error": "is not one of the allowed values",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "datetime_parsing": "must be a date and time",
    "datetime_from_date_parsing": "must be a date and time",
    "datetime_type": "must be a date and time",
    "datetime_object_invalid": "must be a date and time",
    "timezone_naive": "must not name a time zone",
}


def _explained(item: ErrorDetails, path: Path, root: Schema, data: Any) -> Problem:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind in ("extra_forbidden", "invalid_key"):
        keys = _keys(root, path[:-1], data)
        word = str(path[-1])
        return Problem(path, f"unknown key {shown(word)}{did_you_mean(word, keys)}", ", ".join(keys))
    schema = schema_at(root, path, data) or {}
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _untagged(path, schema, value)
    allowed = describe(schema, root)
    if kind == "missing":
        return Problem(path, "is required", allowed)
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        noun = "entry" if bound == 1 else "entries"
        words = f"must have at {'least' if kind == 'too_short' else 'most'} {bound} {noun}, has {len(value)}"
        return Problem(path, words, allowed)
    if kind == "value_error":
        return Problem(path, str(context["error"]), allowed)
    sentence = _SENTENCES[kind].format(**context) if kind in _SENTENCES else "is not allowed"
    chosen_word = kind in ("enum", "literal_error") and isinstance(value, str)
    hint = did_you_mean(value, allowed.split(", ")) if chosen_word else ""
    return Problem(path, f"{sentence}, got {shown(value)}{hint}", allowed)


def in_words(item: ErrorDetails) -> str:
    """One error of a value that stands alone, as on a command line: `has the wrong form, got 'a b'; allowed: ...`."""
    kind, context = item["type"], item.get("ctx", {})
    sentence = _SENTENCES[kind].format(**context) if kind in _SENTENCES else item["msg"]
    if kind == "value_error":
        sentence = str(context["error"])
    allowed = PATTERN_TEXT.get(context["pattern"]) if "pattern" in context else None
    return f"{sentence}{f'; allowed: {allowed}' if allowed else ''}"


def _untagged(path: Path, schema: Schema, value: Any) -> Problem:
    name, allowed = tags(schema)
    tag = value.get(name) if isinstance(value, dict) else None
    if tag is None:
        return Problem((*path, name), "is required", ", ".join(allowed))
    hint = did_you_mean(tag, allowed) if isinstance(tag, str) else ""
    return Problem((*path, name), f"unknown {name} {shown(tag)}{hint}", ", ".join(allowed))


def _keys(root: Schema, path: Path, data: Any) -> list[str]:
    """The keys of the section at a path; of a section that may be left out, its own."""
    schema = schema_at(root, path, data) or {}
    sections = (resolved(item, root) for item in (schema, *schema.get("anyOf", ())))
    return next((list(section["properties"]) for section in sections if "properties" in section), [])

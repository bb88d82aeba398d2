"""YAML files as plain values that know their lines; whatever is wrong with the text becomes findings.

Plain scalars follow the YAML 1.2 core schema, so that `no`, `on` and 12:30:00 are text. A number with leading zeros is
text as well, because readers disagree about it. Explicit tags and merge keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from stat import S_ISDIR, S_ISREG
from typing import Any, Final, TypeAlias

import yaml

from config.findings import Finding, Path, Problem, dotted, one_line, shown

MAX_BYTES: Final = 1 << 20
MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 40
_MAX_DIGITS: Final = 400

Scalar: TypeAlias = str | int | float | bool | None

# The C parser is the same grammar at 17 times the speed, but PyYAML can be built without it.
PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_PREFIXED: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(slots=True)
class Node:
    """One value and where it stands; `size` and `depth` count aliases as if they were written out."""

    line: int
    content: Scalar | dict[str | int, Node] | list[Node]
    key_lines: dict[str | int, int] = field(default_factory=dict)
    size: int = 1
    depth: int = 1

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if isinstance(self.content, dict):
            return {key: node.plain() for key, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain() for node in self.content]
        return self.content


@dataclass(slots=True)
class Document:
    """One YAML file: its plain value, or None with the findings that say why."""

    file: str
    root: Node | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def data(self) -> Any:
        return None if self.root is None else self.root.plain()

    def line(self, path: Path) -> int | None:
        """The line of the value at `path`, or of the nearest one above it that exists."""
        node, line = self.root, 1 if self.root is not None else None
        for key in path:
            if node is None:
                break
            if isinstance(node.content, dict) and key in node.content:
                line = node.key_lines[key]
                node = node.content[key]
            elif isinstance(node.content, list) and isinstance(key, int) and key < len(node.content):
                node = node.content[key]
                line = node.line
            else:
                break
        return line

    def finding(self, problem: Problem) -> Finding:
        """The problem with its file and line."""
        see = "" if problem.see is None else f" (line {self.line(problem.see)})"
        place = (self.file, self.line(problem.path), dotted(problem.path))
        return Finding(*place, problem.message + see, problem.allowed, problem.severity)


def read_document(path: FilePath) -> Document:
    """Read a file whose top is a mapping; never raises for what the file is or holds."""
    document = Document(str(path))
    try:
        text = _text(path)
    except _UnreadableError as error:
        document.findings.append(Finding(document.file, error.line, "", str(error)))
    else:
        _compose(text, document)
    return document


class _UnreadableError(Exception):
    """The file has no text to parse; `line` is where that shows."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def _text(path: FilePath) -> str:
    raw = _bytes(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _UnreadableError("is not UTF-8 text", raw.count(b"\n", 0, error.start) + 1) from None
    control = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if control is not None:
        line = text.count("\n", 0, control.start()) + 1
        raise _UnreadableError(f"is not text: holds the character U+{ord(control.group()):04X}", line)
    return text


def _bytes(path: FilePath) -> bytes:
    try:
        mode, size = path.stat().st_mode, path.stat().st_size
        if not S_ISREG(mode):
            raise _UnreadableError("is a directory, not a file" if S_ISDIR(mode) else "is not a regular file")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _UnreadableError("does not exist") from None
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _UnreadableError("cannot be read: its name is no file name") from None
    if len(raw) > MAX_BYTES:
        raise _UnreadableError(f"is {max(size, len(raw)):,} bytes long; at most {MAX_BYTES:,} are read")
    return raw


class _RefusedError(Exception):
    def __init__(self, mark: Any, message: str) -> None:
        super().__init__(message)
        self.mark = mark


def _compose(text: str, document: Document) -> None:
    composer = _Composer(text, document)
    try:
        root = composer.document()
    except _RefusedError as refusal:
        composer.find(refusal.mark, str(refusal), column=True)
        return
    except yaml.MarkedYAMLError as error:
        composer.find(error.problem_mark or error.context_mark, _syntax(error, text), column=True)
        return
    except yaml.YAMLError as error:
        composer.find(None, f"is not YAML: {error}")
        return
    if root is None or root.content is None:
        composer.find(None, "is empty", allowed="a mapping of keys to values")
    elif not isinstance(root.content, dict):
        what = "a list" if isinstance(root.content, list) else "a single value"
        composer.find(None, f"must be a mapping at the top, got {what}", allowed="a mapping of keys to values")
    else:
        document.root = root


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    problem, mark = one_line(error.problem or "cannot be read as YAML"), error.problem_mark
    at_tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
    if at_tab and re.search("start any token|tab char", problem):
        return "not YAML: a tab cannot indent; use spaces"
    if "mapping values are not allowed" in problem:
        return "not YAML: a second ':' on this line, or a wrong indent; quote text that holds ': '"
    return f"not YAML: {problem}" + (f", {one_line(error.context)}" if error.context else "")


class _Composer:
    """Builds nodes from a parser's events; recursion is bounded by `MAX_DEPTH`."""

    def __init__(self, text: str, document: Document) -> None:
        self._out = document
        self._events: Iterator[Any] = yaml.parse(text, Loader=PARSER)
        self._anchors: dict[str, Node] = {}

    def find(self, mark: Any, message: str, path: Path = (), *, column: bool = False, allowed: str = "") -> None:
        line = 1 if mark is None else mark.line + 1
        at = mark.column + 1 if column and mark is not None else None
        self._out.findings.append(Finding(self._out.file, line, dotted(path), message, allowed, column=at))

    def document(self) -> Node | None:
        root: Node | None = None
        count = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                count += 1
                if count > 1:
                    raise _RefusedError(event.start_mark, "a second document begins here; one to a file")
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, ())
        return root

    def _node(self, event: Any, path: Path, depth: int = 1) -> Node:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _RefusedError(event.start_mark, f"alias *{event.anchor} has no anchor before it")
            aliased = self._anchors[event.anchor]
            return self._bounded(aliased, event, depth)
        if event.tag is not None and event.tag != "!":
            self.find(event.start_mark, f"tag {shown(event.tag)} is not read", path, allowed="values without tags")
        node = Node(event.start_mark.line + 1, None)
        if depth > MAX_DEPTH:
            raise _RefusedError(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            node.content = resolve(event.value) if event.implicit[0] else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            self._sequence(node, path, depth)
        else:
            self._mapping(node, path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _bounded(self, node: Node, event: Any, depth: int) -> Node:
        if depth + node.depth > MAX_DEPTH:
            raise _RefusedError(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
        return node

    def _adopt(self, parent: Node, child: Node, event: Any) -> None:
        parent.size += child.size
        parent.depth = max(parent.depth, child.depth + 1)
        if parent.size > MAX_NODES:
            raise _RefusedError(event.start_mark, f"holds more than {MAX_NODES:,} values, aliases written out")

    def _sequence(self, node: Node, path: Path, depth: int) -> None:
        items: list[Node] = []
        node.content = items
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            child = self._node(event, (*path, len(items)), depth + 1)
            self._adopt(node, child, event)
            items.append(child)

    def _mapping(self, node: Node, path: Path, depth: int) -> None:
        entries: dict[str | int, Node] = {}
        node.content = entries
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path, depth)
            child = self._node(next(self._events), path if key is None else (*path, key), depth + 1)
            self._adopt(node, child, event)
            if key is None:
                continue
            if key in entries:
                where = f"{shown(key)} is given twice; the first is on line {node.key_lines[key]}"
                self.find(event.start_mark, where, (*path, key))
                continue
            entries[key] = child
            node.key_lines[key] = event.start_mark.line + 1

    def _key(self, event: Any, path: Path, depth: int) -> str | int | None:
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, path, depth + 1)
            self.find(event.start_mark, "a key must be a word or a whole number", path)
            return None
        text = str(event.value)
        if not event.implicit[0]:
            return text
        if text == "<<":
            self.find(event.start_mark, "merge keys (<<) are not read; write the keys out", path)
            return None
        value = resolve(text)
        return value if isinstance(value, int) and not isinstance(value, bool) else text


def resolve(text: str) -> Scalar:
    """The value of a plain scalar by the YAML 1.2 core schema, but for leading zeros, which stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text

"""Files that are hardly files, and text that YAML readers disagree about."""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path

import pytest
import yaml

from config import yaml_source
from config.yaml_source import MAX_BYTES, Document, read_document, resolve


@pytest.fixture(params=["C parser", "Python parser"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here holds for both of PyYAML's parsers."""
    if request.param == "Python parser":
        monkeypatch.setattr(yaml_source, "PARSER", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("this PyYAML was built without libyaml")


def read(tmp_path: Path, content: str | bytes) -> Document:
    path = tmp_path / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_document(path)


def refusal(document: Document) -> str:
    """The one finding of a file that was refused, without its folder."""
    assert document.root is None
    assert document.data is None
    [finding] = document.findings
    return str(finding).replace(f"{Path(document.file).parent}/", "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "file.yaml:1: is empty; allowed: a mapping"),
        ("# only a comment\n", "file.yaml:1: is empty"),
        ("- a\n- b\n", "file.yaml:1: must be a mapping at the top, got a list"),
        ("hello\n", "file.yaml:1: must be a mapping at the top, got a single value"),
        ("a: 1\n\tb: 2\n", "file.yaml:2:1: not YAML: a tab cannot indent; use spaces"),
        ("a: [1, 2\nb: 3\n", "file.yaml:2:2: not YAML:"),
        ("a: b: c\n", "file.yaml:1:5: not YAML: a second ':' on this line, or a wrong indent"),
        ("a: 'open\n", "file.yaml:2:1: not YAML: found unexpected end of stream"),
        ("a: *nowhere\n", "file.yaml:1:4: alias *nowhere has no anchor before it"),
        ("a: &a [*a]\n", "file.yaml:1:8: alias *a has no anchor before it"),
        ("a: 1\n---\nb: 2\n", "file.yaml:2:1: a second document begins here; one to a file"),
        ("a: " + "[" * 60 + "]" * 60, "file.yaml:1:43: nested deeper than 40 levels"),
        (b"\x7fELF\x00\x01", "file.yaml:1: is not text: holds the character U+007F"),
        (b"a: 1\nb: \x00\n", "file.yaml:2: is not text: holds the character U+0000"),
        (b"a: 1\nb: \xff\xfe\n", "file.yaml:2: is not UTF-8 text"),
        ("a: 1\n".encode("utf-16"), "file.yaml:1: is not UTF-8 text"),
        (b"a: 1\n" * (MAX_BYTES // 5 + 1), f"file.yaml: is {5 * (MAX_BYTES // 5 + 1):,} bytes long; at most 1,048,576"),
        (b"x" * 10_000_000, "file.yaml: is 10,000,000 bytes long; at most 1,048,576 are read"),
    ],
)
def test_what_cannot_be_read_is_one_finding(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert refusal(read(tmp_path, content)).startswith(expected)


def test_places_that_hold_no_file_are_findings(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, expected in {
        "absent.yaml": "absent.yaml: does not exist",
        "folder": "folder: is a directory, not a file",
        "pipe": "pipe: is not a regular file",
        "loop": "loop: cannot be read: Too many levels of symbolic links",
        "x" * 300: f"{'x' * 300}: cannot be read: File name too long",
        "a\0b": "a\\x00b: cannot be read: its name is no file name",
    }.items():
        assert refusal(read_document(tmp_path / name)) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: 1\n")
    path.chmod(0)
    assert refusal(read_document(path)) == "file.yaml: cannot be read: Permission denied"


def test_aliases_that_grow_without_bound_are_refused_at_once(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    started = time.monotonic()
    expected = r"file\.yaml:6:\d+: holds more than 100,000 values, aliases written out"
    assert re.fullmatch(expected, refusal(read(tmp_path, "a0: &a0 [x]\n" + "\n".join(levels))))
    assert time.monotonic() - started < 1


def test_aliases_that_nest_without_bound_are_refused(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 2000)]
    assert "nested deeper than 40 levels" in refusal(read(tmp_path, "a0: &a0 [x]\n" + "\n".join(levels)))


def test_an_alias_stands_for_its_anchor(tmp_path: Path) -> None:
    document = read(tmp_path, "a: &twin {tr90_s: 0.2}\nb: *twin\n")
    assert document.data == {"a": {"tr90_s": 0.2}, "b": {"tr90_s": 0.2}}
    assert not document.findings


def test_a_key_given_twice_names_both_lines_anywhere(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nlist:\n  - b: 1\n    c: {d: 1, d: 2}\n    b: 2\na: 3\n")
    assert [str(finding).split("file.yaml:")[1] for finding in document.findings] == [
        "4: list[0].c.d: 'd' is given twice; the first is on line 4",
        "5: list[0].b: 'b' is given twice; the first is on line 3",
        "6: a: 'a' is given twice; the first is on line 1",
    ]
    assert document.data == {"a": 1, "list": [{"b": 1, "c": {"d": 1}}]}


def test_tags_merge_keys_and_keys_that_are_no_words_are_findings(tmp_path: Path) -> None:
    document = read(tmp_path, "a: !!python/object:os.system x\n<<: {b: 1}\n? [c]\n: 1\nd: !!str 5\n")
    assert [finding.message for finding in document.findings] == [
        "tag 'tag:yaml.org,2002:python/object:os.system' is not read",
        "merge keys (<<) are not read; write the keys out",
        "a key must be a word or a whole number",
        "tag 'tag:yaml.org,2002:str' is not read",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12:30:00", "12:30:00"),
        ("190:20:30", "190:20:30"),
        ("010", "010"),
        ("-7", -7),
        ("0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("00.5", "00.5"),
        ("1.2.3", "1.2.3"),
        (".inf", math.inf),
        ("2016-06-08", "2016-06-08"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_quotes_make_text_and_keys_keep_their_words(tmp_path: Path) -> None:
    document = read(tmp_path, 'a: "5"\nno: \'5\'\n1: x\n"1": y\ntrue: z\n1.5: w\n')
    assert document.data == {"a": "5", "no": "5", 1: "x", "1": "y", "true": "z", "1.5": "w"}


def test_every_value_knows_its_line_and_what_is_missing_the_nearest(tmp_path: Path) -> None:
    document = read(tmp_path, "a:\n  b:\n    - c: 1\n    -\n      d: 2\n\ne: {f: 1,\n    g: 2}\n")
    lines = {("a",): 1, ("a", "b"): 2, ("a", "b", 0, "c"): 3, ("a", "b", 1): 5, ("a", "b", 1, "d"): 5}
    lines |= {("e", "g"): 8, ("e", "x"): 7, ("a", "b", 7, "c"): 2, ("x",): 1, (): 1}
    assert {path: document.line(path) for path in lines} == lines


def test_line_ends_of_windows_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    document = read(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert document.data == {"a": 1, "b": 2}
    assert document.line(("b",)) == 2

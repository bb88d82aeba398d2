"""The schemas for editors, and the documentation that is made from them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.schema_export import documentation, layer_schema, main, profile_schema, site_schema

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of every section, as SECTION.KEY."""
    for section in (schema, *schema["$defs"].values()):
        for key, value in section.get("properties", {}).items():
            yield f"{section['title']}.{key}", value


@pytest.mark.parametrize("schema", [site_schema(), profile_schema()])
def test_every_key_says_what_it_means(schema: dict[str, Any]) -> None:
    assert [name for name, value in properties(schema) if not value.get("description")] == []
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False


def test_the_documentation_is_current() -> None:
    command = "python -m config.schema_export --docs docs/configuration.md"
    assert DOCS.read_text(encoding="utf-8") == documentation(), f"run: {command}"


def test_the_documentation_s_links_lead_to_its_sections() -> None:
    text = documentation()
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^### (.+)$", text, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links <= sections
    assert "device-site" in links


def test_the_layer_s_messages_forbid_what_is_not_in_them() -> None:
    schema = layer_schema()
    assert {"limits", "dispatch", "regulation", "authority", "heartbeat"} <= set(schema["messages"]["down"])
    assert {"offer", "telemetry", "acknowledgement", "heartbeat"} <= set(schema["messages"]["up"])
    objects = [item for item in schema["$defs"].values() if item.get("type") == "object"]
    assert all(item["additionalProperties"] is False for item in objects)


@pytest.mark.parametrize("which", ["site", "profile", "layer"])
def test_the_command_prints_a_schema(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema", which]) == 0
    assert json.loads(capsys.readouterr().out)["title"].startswith("Lamina")


def test_the_command_writes_the_documentation(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "config.schema_export", "--docs", str(tmp_path / "out.md")]
    subprocess.run(command, check=True, cwd=DOCS.parents[1], timeout=30)
    assert (tmp_path / "out.md").read_text(encoding="utf-8") == documentation()

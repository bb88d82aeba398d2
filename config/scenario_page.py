"""The reference of docs/scenarios.md, from the schema; `python -m config.scenario_page FILE` renews it there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from config.scenario import FUNCTIONS, Scenario
from config.schema_export import sections

BEGIN: Final = "<!-- the reference is generated: python -m config.scenario_page docs/scenarios.md -->\n"
END: Final = "<!-- end of the reference -->\n"


def reference() -> str:
    """Every key of a scenario file in Markdown, and what sabotage takes out."""
    return "\n".join((*sections(Scenario), *_functions())) + "\n"


def _functions() -> Iterator[str]:
    yield "### What `sabotage` takes out\n"
    yield "| `sabotage` | what is taken out |"
    yield "|---|---|"
    yield from (f"| `{function.value}` | {what} |" for function, what in FUNCTIONS.items())


def with_reference(text: str) -> str:
    """A page with the present reference between its marks; raises ValueError where they are not."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + reference() + END + after


def main(arguments: Sequence[str]) -> int:
    """Renew the reference in the file named; the exit code."""
    path = Path(arguments[0])
    path.write_text(with_reference(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

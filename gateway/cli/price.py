"""The study of the local price, as a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def study_price(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write a page with the plot.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How far the outside's price reaches into a layer, for each form of the interchange cost.

    Ends with 1 if a form does not do what is known of it: the root forms let the price fade out towards balance, the
    spread, the quadratic form and LMP + D do not.
    """
    from gateway.price.continuity import main

    options = ([] if out is None else ["--out", str(out)]) + ["--json"] * as_json
    raise typer.Exit(main(options))

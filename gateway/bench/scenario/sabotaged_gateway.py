"""`python -m gateway.bench.scenario.sabotaged_gateway FUNCTION run SITE ...`: `gateway run SITE ...` without it."""

from __future__ import annotations

import sys

from config.scenario import Function
from gateway.bench.scenario.sabotage import sabotaged
from gateway.cli import main as gateway_main


def main() -> None:
    """`gateway` without one of its functions, which the first argument names."""
    function = Function(sys.argv.pop(1))
    with sabotaged(function):
        gateway_main()


if __name__ == "__main__":
    main()

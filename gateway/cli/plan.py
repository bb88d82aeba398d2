"""The command that shows a plan, of the running gateway or made once from the site file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.sites import FAILED, end, loaded

HOUR_S: Final = 3600.0


def plan(
    site: Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Plan once from the site file and its twins' series; no gateway needed.")
    ] = False,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="The running gateway's state directory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the plan: by the hour its prices, load, sun, batteries and net power; what was given up; how forecasts did.

    Ends with 1 where the newest plan failed, or none is there.
    """
    if offline:
        answer = _offline(site)
    else:
        from gateway.cli.operator import ask_gateway

        answer = ask_gateway(site, state, {"command": "plan"})
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        _print(answer)
    if answer["plan"]["status"] == "failed":
        raise typer.Exit(FAILED)


def _offline(site: str) -> dict[str, Any]:
    from importlib.util import find_spec

    from gateway.cli.plan_offline import OfflineError, plan_offline

    if find_spec("cvxpy") is None:
        end("planning needs cvxpy, which the extra `planning` of lamina-gateway brings")
    _, model, profiles = loaded(site)
    try:
        made = plan_offline(model, profiles)
    except OfflineError as error:
        end(str(error))
    return {"planner": None, "plan": made.model_dump(mode="json")}


def bench(steps: int, resources: int, solves: int, time_limit_s: float, *, as_json: bool) -> None:
    """`gateway bench plan`."""
    from importlib.util import find_spec

    from gateway.bench.machine.figures_table import print_figures, tell
    from gateway.bench.machine.plan_bench import PlanBenchRequest, run_plan_bench

    if find_spec("cvxpy") is None:
        end("planning needs cvxpy, which the extra `planning` of lamina-gateway brings")
    figures = run_plan_bench(PlanBenchRequest(steps, resources, solves, time_limit_s), tell)
    print_figures("plan", figures, as_json=as_json)
    if not figures["balanced"]:
        raise typer.Exit(FAILED)


def _print(answer: Mapping[str, Any]) -> None:
    from rich.table import Table

    from gateway.cli.commission_tables import console

    made, running = answer["plan"], answer["planner"]
    if running is not None:
        sys.stdout.write(f"{_running_text(running)}\n")
    if made["status"] == "failed":
        sys.stdout.write(f"the newest plan failed: {made['reason']}\n")
    rows = hourly(made)
    if rows:
        title = "Plan by the hour (UTC), kW and kWh"
        table = Table("from", "local price", "import", "export", "load", "sun", "batteries", "cars", "net", "stored",
                      box=None, title=title)  # fmt: skip
        for row in rows:
            table.add_row(
                row["from"], *(f"{row[name]:.3f}" for name in ("lambda", "import", "export")),
                *(_kw(row[name]) for name in ("load", "sun", "battery", "cars", "net")), _kw(row["stored"]),
            )  # fmt: skip
        console().print(table)
    sys.stdout.write("\n".join(_notes(made)) + "\n")


def _running_text(running: Mapping[str, Any]) -> str:
    if running["state"] != "in force":
        why = f": {running['reason']}" if running["reason"] else ""
        return f"no plan in force, the default curves hold{why}"
    return (
        f"plan {running['id']}, {running['age_s']:.0f} s old, curves hold for {running['expires_in_s']:.0f} s more; "
        f"{running['taken']} taken, {running['refused']} refused, {running['failed']} failed"
    )


def hourly(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Means by the hour of the plan, powers in watts, stored energy at the hour's end; no rows without a plan."""
    series, step_s = made["series"], made["step_s"]
    steps, each = len(series["net_w"]), max(round(HOUR_S / step_s), 1)
    names = {"lambda": "lambda_per_kwh", "import": "import_per_kwh", "export": "export_per_kwh", "load": "load_p50_w",
             "sun": "sun_w", "battery": "battery_w", "cars": "cars_w", "net": "net_w"}  # fmt: skip
    rows = []
    for first in range(0, steps, each):
        last = min(first + each, steps)
        begins = datetime.fromtimestamp(made["begin_utc_s"] + first * step_s, UTC)
        row: dict[str, Any] = {"from": f"{begins:%d %b %H:%M}"}
        row |= {name: _mean(series[key][first:last]) for name, key in names.items()}
        row["stored"] = series["stored_wh"][last - 1] if series["stored_wh"] else None
        rows.append(row)
    return rows


def _notes(made: Mapping[str, Any]) -> list[str]:
    """What was given up, supposed, and how forecasts have done."""
    notes = []
    if made["cost"] is not None:
        notes.append(f"cost {made['cost']:.2f}, solved in {made['solve_s'] * 1e3:.0f} ms, {made['status']}")
    notes += [f"given up: {name}, {kwh:.2f} kWh" for name, kwh in made["given_up"].items()]
    notes += list(made["assumptions"])
    for name, score in made["scores"].items():
        relative = "" if score["relative"] is None else f" ({100.0 * score['relative']:.0f} %)"
        unit = "W" if name == "load" else "of the rating"
        error = f"{score['mean_error_w']:.0f}" if name == "load" else f"{score['mean_error_w']:.3f}"
        notes.append(
            f"forecast of {name}, an hour ahead: mean error {error} {unit}{relative}, "
            f"{100.0 * score['inside']:.0f} % of {score['steps']} steps inside p10 to p90"
        )
    return notes


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _kw(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e3:.2f}"

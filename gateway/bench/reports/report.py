"""What a bench run shows, as `report.json` and `report.html` in the run's directory."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from config.findings import ConfigError
from config.loading import load_site
from config.site import Site
from config.vocabulary import Quantity
from gateway.bench.assessment import Assessment, assess
from gateway.bench.gateway_figures import gateway_figures
from gateway.bench.metrics import Excursion, Spread
from gateway.bench.reports.page import page
from gateway.bench.reports.report_schema import (
    ExcursionFigures,
    Excursions,
    LinkFigures,
    OrderFigures,
    Percentiles,
    ProcessFigures,
    Report,
)
from gateway.bench.run_files import read_run
from gateway.bench.timeline import step_at

JSON_FILE: Final = "report.json"
HTML_FILE: Final = "report.html"
MOST_EXCURSIONS: Final = 400

__all__ = ["Report", "make_report", "write_report", "write_text"]


def write_report(run_dir: Path, site: Site) -> Report:
    """Judge the run in `run_dir`, write `report.json` and `report.html` beside its files and return the figures.

    Raises OSError where the directory cannot be written; what the run did not leave behind is None in the figures.
    """
    assessment = assess(read_run(run_dir), site)
    report = make_report(assessment)
    # The demo's file is a stated set of figures; the page, and a scenario's report, have each excursion as well.
    write_text(run_dir / JSON_FILE, report.model_dump_json(indent=2, exclude={"excursions": {"each"}}) + "\n")
    write_text(run_dir / HTML_FILE, page(assessment, report))
    return report


def make_report(assessment: Assessment) -> Report:
    """The figures of a judged run."""
    run = assessment.run
    figures = gateway_figures(run.gateway)
    times = assessment.times
    measured_s = times[-1] - times[0] if len(times) > 1 else None
    return Report(
        duration_s=_rounded(figures.duration_s if figures.duration_s is not None else measured_s),
        cycles=figures.cycles,
        missed_cycles=figures.missed_cycles,
        cycle_ms=_percentiles(figures.cycle_ms),
        jitter_ms=_percentiles(figures.jitter_ms),
        bare_loop_jitter_ms=_percentiles(run.bare_loop),
        orders=_order_figures(assessment),
        excursions=_excursions(assessment),
        refused_orders=figures.refused_orders,
        links={name: LinkFigures(**counters) for name, counters in figures.links.items()},
        process=ProcessFigures(
            rss_mb=figures.rss_mb, cpu_pct=figures.cpu_pct, first_setpoint_s=figures.first_setpoint_s
        ),
    )


def _order_figures(assessment: Assessment) -> tuple[OrderFigures, ...]:
    zero_s = assessment.zero_s
    figures = []
    for index, (order, verdict) in enumerate(zip(assessment.orders, assessment.verdicts, strict=True)):
        term = assessment.in_force.orders.get(index)
        end_s = min(term[1], assessment.end_s) if term else None
        figures.append(
            OrderFigures(
                id=order.id,
                kind=order.kind,
                received_to_written_ms=_rounded(order.received_to_written_ms),
                settled_s=_rounded(verdict.settled_s),
                steady_error_pct=_rounded(verdict.steady_error_pct, 4),
                source=order.source,
                status=order.status,
                reason=order.reason,
                fault=order.fault,
                start_s=_rounded(term[0] - zero_s) if term else None,
                end_s=_rounded(end_s - zero_s) if end_s is not None and term and term[1] <= assessment.end_s else None,
            )
        )
    return tuple(figures)


def _excursions(assessment: Assessment) -> Excursions:
    if not assessment.times or not assessment.excursions:
        return Excursions(count=None, longest_s=None, energy_wh=None)
    found = [excursion for of_quantity in assessment.excursions.values() for excursion in of_quantity]
    each = [
        _excursion(assessment, quantity, excursion)
        for quantity, of_quantity in assessment.excursions.items()
        for excursion in of_quantity
    ]
    return Excursions(
        count=len(found),
        longest_s=_rounded(max((excursion.duration_s for excursion in found), default=0.0)),
        energy_wh=_rounded(sum(excursion.energy_wh for excursion in found), 4),
        each=tuple(sorted(each, key=lambda figures: (figures.at_s, figures.quantity))[:MOST_EXCURSIONS]),
    )


def _excursion(assessment: Assessment, quantity: Quantity, excursion: Excursion) -> ExcursionFigures:
    limit = step_at(assessment.judged_limits[quantity], excursion.start_s)
    by = next((order.source for order in assessment.orders if order.id == limit.source and order.source), "")
    return ExcursionFigures(
        at_s=round(excursion.start_s - assessment.zero_s, 3),
        lasted_s=round(excursion.duration_s, 3),
        peak=round(excursion.peak_w, 1),
        energy_wh=round(excursion.energy_wh, 4),
        quantity=quantity.value,
        limit=limit.value,
        source=f"{limit.source}, by {by}" if by else limit.source,
    )


def _percentiles(spread: Spread) -> Percentiles:
    return Percentiles(p50=_rounded(spread.p50), p99=_rounded(spread.p99), max=_rounded(spread.max))


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def write_text(path: Path, text: str) -> None:
    """Replace a file at once, so that a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a run directory; returns the exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.reports.report", description=main.__doc__)
    parser.add_argument("run_dir", metavar="DIR", type=Path, help="directory of the run")
    parser.add_argument("--site", required=True, type=Path, help="the site file that was run")
    options = parser.parse_args(arguments)
    if not options.run_dir.is_dir():
        return _complain(f"{options.run_dir}: no such directory")
    try:
        write_report(options.run_dir, load_site(options.site))
    except (OSError, ConfigError) as error:
        return _complain(str(error))
    sys.stdout.write(f"{options.run_dir / HTML_FILE}\n")
    return 0


def _complain(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())

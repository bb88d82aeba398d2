"""All compliance functions of a site: stepped together, held within the installer's limits, kept over restarts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from config.compliance import Compliance
from config.site import Site
from config.vocabulary import Quantity
from gateway.compliance.as4777 import SoftAndHardLimits
from gateway.compliance.csip_aus import DerPrograms
from gateway.compliance.eebus import Limitation
from gateway.compliance.frame import ComplianceFunction, GivenLimit, Moment, QuantityBound, Ruling, Transition
from gateway.compliance.g100 import LimitationScheme
from gateway.compliance.margin import DisturbanceMargin
from gateway.compliance.section_14a import Controllable, Reduction

_IMPORT = frozenset({Quantity.NET_IMPORT_W})
_EXPORT = frozenset({Quantity.NET_EXPORT_W})


class ComplianceBoard:
    """The functions in a fixed order. Without any it rules nothing.

    `static_w` are the installer's own limits: no bound is above them.
    """

    def __init__(
        self, functions: Sequence[ComplianceFunction] = (), static_w: Mapping[Quantity, float] | None = None
    ) -> None:
        self.functions = tuple(functions)
        self._static_w = dict(static_w or {})
        start = Moment(0.0, 0.0)
        self.rulings: tuple[Ruling, ...] = tuple(self._within(one.rule(start)) for one in self.functions)

    def step(self, moment: Moment) -> tuple[Transition, ...]:
        """Advance every function; the transitions that were taken."""
        self.rulings = tuple(self._within(one.step(moment)) for one in self.functions)
        return tuple(transition for ruling in self.rulings for transition in ruling.transitions)

    def _within(self, ruling: Ruling) -> Ruling:
        bounds = tuple(self._tightened(bound) for bound in ruling.bounds)
        return Ruling(
            ruling.function,
            ruling.state,
            ruling.failsafe,
            bounds,
            ruling.transitions,
            ruling.margins,
            ruling.facts,
        )

    def _tightened(self, bound: QuantityBound) -> QuantityBound:
        static_w = self._static_w.get(bound.quantity)
        if static_w is None or bound.value_w <= static_w:
            return bound
        return bound._replace(value_w=static_w, why=f"{bound.why}, held to the installer's limit")

    def governs(self, source: str, quantity: Quantity) -> bool:
        """Whether a source's limits on a quantity act through a function alone."""
        return any(one.governs(source, quantity) for one in self.functions)

    def refusal(self, given: GivenLimit) -> str:
        """Why a limit isn't taken; empty: nothing is against it."""
        reasons = (one.refusal(given) for one in self.functions if one.governs(given.source, given.quantity))
        return next(filter(None, reasons), "")

    def answers_silence_of(self, source: str) -> bool:
        """Whether functions bound import and export of the connection both while this parent is silent.

        Only then does their fail-safe stand in the place of the site's fallback for this parent.
        """
        ruled = {quantity for one in self.functions if source in one.sources for quantity in one.ruled}
        return bool(_IMPORT & ruled) and bool(_EXPORT & ruled)

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """What survives a restart, by function."""
        return {one.name: one.dump(now_s, utc_s) for one in self.functions}

    def restore(self, dumped: object, now_s: float, utc_s: float) -> list[str]:
        """Take up a dump; what could not be taken up, as texts: such a function begins in its first state."""
        problems = []
        if not isinstance(dumped, Mapping):
            return ["compliance: not a mapping"] if dumped is not None else []
        for one in self.functions:
            if one.name not in dumped:
                continue
            try:
                one.restore(dumped[one.name], now_s, utc_s)
            except (ValueError, KeyError, TypeError) as error:
                problems.append(f"compliance {one.name}: {error!r}")
        return problems

    def command(self, request: Mapping[str, Any], now_s: float) -> str:
        """An operator's word on the function named in `function`. Raises ValueError with a text."""
        name = request.get("function")
        for one in self.functions:
            if one.name == name:
                return f"{one.name}: {one.command(request, now_s)}"
        names = ", ".join(one.name for one in self.functions) or "none"
        raise ValueError(f"{name}: no such compliance function at this site; there are {names}")


def build_board(site: Site) -> ComplianceBoard:
    """The functions that a site file names, in the order of their documentation."""
    settings, connection = site.compliance, site.connection
    static_w = {
        Quantity.NET_IMPORT_W: connection.rating_w if connection.max_import_w is None else connection.max_import_w,
        Quantity.NET_EXPORT_W: connection.rating_w if connection.max_export_w is None else connection.max_export_w,
    }
    return ComplianceBoard(tuple(_functions(site, settings)), static_w)


def _functions(site: Site, settings: Compliance) -> list[ComplianceFunction]:
    functions: list[ComplianceFunction] = []
    if settings.eebus_lpc is not None:
        functions.append(Limitation("eebus_lpc", "LPC", settings.eebus_lpc))
    if settings.eebus_lpp is not None:
        functions.append(Limitation("eebus_lpp", "LPP", settings.eebus_lpp))
    if settings.g100 is not None:
        functions.append(LimitationScheme(settings.g100))
    if settings.section_14a is not None:
        devices = [
            Controllable((name,), case, _consumption_w(site, name))
            for name, case in settings.section_14a.devices.items()
        ]
        functions.append(Reduction(settings.section_14a, devices))
    if settings.csip_aus is not None:
        functions.append(DerPrograms(settings.csip_aus, site.site))
    if settings.as4777 is not None:
        functions.append(SoftAndHardLimits(settings.as4777))
    if settings.disturbance_margin is not None:
        declared_w = site.control.margin_pu * site.connection.rating_w
        functions.append(DisturbanceMargin(settings.disturbance_margin, site.connection.rating_w, declared_w))
    return functions


def _consumption_w(site: Site, name: str) -> float:
    device = site.devices[name]
    return device.rating_w if device.max_w is None else max(device.max_w, 0.0)

"""The continuity property, tried numerically: the outside's price must fade out of the local one towards balance.

Every figure is a difference of prices that the gateway's own clearing came to, beside what the formula says. The page
and the JSON are written by `gateway study price [--json] [--out FILE]`, or by this module as a command; it ends with 1
where a form does not do what is known of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from config.price import AddedForm, InterchangeForm, QuadraticForm, RootForm, SpreadForm
from gateway.control.clearing import Bid, make_curve
from gateway.control.interchange import InterchangeCost
from gateway.price.formation import Formation, form_price
from gateway.price.interchange_cost import half_effect_w, outside_effect, terms_of

RATING_W: Final = 100_000.0
BALANCE_PER_KWH: Final = 0.20
"""The price at which the layer of the study needs nothing from outside."""

RESPONSE_W: Final = 1_000_000.0
"""S': the layer goes through its whole rating in a price change of 0.1 per kWh."""

SPREAD_PER_KWH: Final = 0.02
FINE_PIECES: Final = 1024
NETS_PU: Final = (0.3, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
STEP_PU: Final = 0.02
"""The outside's price is moved by what moves net power by this part of itself."""

VANISHED: Final = 0.02
"""An effect below this at a hundred thousandth of the rating counts as none."""

REFINEMENTS: Final = (8, 32, 128, 512)
SWEEP: Final = tuple(BALANCE_PER_KWH + at * 0.0021 for at in range(-20, 21))

FORMS: Final[dict[str, tuple[InterchangeForm, float, bool]]] = {
    "spread": (SpreadForm(), SPREAD_PER_KWH, False),
    "root": (RootForm(form="root", tau_per_kwh_sqrt_kw=0.005), 0.0, True),
    "spread and root": (RootForm(form="root", tau_per_kwh_sqrt_kw=0.005), SPREAD_PER_KWH, True),
    "quadratic": (QuadraticForm(form="quadratic", slope_per_kwh_kw=0.001), 0.0, False),
    "LMP + D": (AddedForm(form="lmp_plus_d", distribution_per_kwh=0.05), 0.0, False),
}
"""Each with the tariff's spread, and whether it has the property."""


class Effect(NamedTuple):
    """dlambda/dw at one interchange: from two clearings, and from 1 / (1 + g''(n) S')."""

    net_pu: float
    measured: float
    expected: float


class FormResult(NamedTuple):
    """`at_balance`: the greatest effect at the least interchange; `vanishes`: it is none and never rose on the way."""

    effects: tuple[Effect, ...]
    at_balance: float
    vanishes: bool
    known: bool


class Refinement(NamedTuple):
    """How far a coarse picture is from the smooth one: with bent costs drawn by so many pieces, with so many steps."""

    parts: int
    effect_at_balance: float
    price_error: float


class Study(NamedTuple):
    """The whole result; `half_effect_w` is of the root form."""

    forms: dict[str, FormResult]
    refinement: tuple[Refinement, ...]
    half_effect_w: float
    islanded_effect: float
    limit_effect: float
    illiquid_flagged: bool

    @property
    def as_known(self) -> bool:
        """Whether every form and every special case does what is known of it."""
        errors = [one.price_error for one in self.refinement]
        jumps = [one.effect_at_balance for one in self.refinement]
        refines = errors == sorted(errors, reverse=True) and jumps == sorted(jumps, reverse=True)
        special = self.islanded_effect == 0.0 and self.limit_effect == 0.0 and self.illiquid_flagged
        return refines and special and all(one.vanishes is one.known for one in self.forms.values())

    def as_json(self) -> dict[str, Any]:
        """A plain object."""
        forms = {
            name: {
                "effects": [effect._asdict() for effect in one.effects],
                "at_balance": one.at_balance,
                "has_property": one.vanishes,
                "expected_to": one.known,
            }
            for name, one in self.forms.items()
        }
        refinement = [one._asdict() for one in self.refinement]
        return {**self._asdict(), "forms": forms, "refinement": refinement, "as_known": self.as_known}


def smooth_layer() -> list[Bid]:
    """A layer whose net demand falls in a straight line through balance."""
    reach = RATING_W / RESPONSE_W
    curve = make_curve([(BALANCE_PER_KWH - reach, RATING_W), (BALANCE_PER_KWH + reach, -RATING_W)])
    return [Bid(curve, -RATING_W, RATING_W)]


def stepped_layer(steps: int) -> list[Bid]:
    """The same in on/off resources: each takes its part up to a price of its own and gives it above."""
    reach, size_w = RATING_W / RESPONSE_W, RATING_W / steps
    prices = [BALANCE_PER_KWH + reach * ((2 * at + 1) / steps - 1.0) for at in range(steps)]
    return [Bid(make_curve([(price, size_w), (price, -size_w)]), -size_w, size_w) for price in prices]


def study() -> Study:
    """Try every form, the refinements and the special cases."""
    forms = {name: _try_form(terms_of(form, spread), known) for name, (form, spread, known) in FORMS.items()}
    root = terms_of(FORMS["root"][0])
    return Study(
        forms,
        tuple(_refine(count, root) for count in REFINEMENTS),
        half_effect_w(root, RESPONSE_W),
        _moved([_at(smooth_layer(), price, root, limit_w=0.0) for price in (-1.0, 1.0)]),
        _moved([_at(smooth_layer(), price, root, limit_w=0.2 * RATING_W) for price in (-1.0, 0.0)]),
        _at([Bid(make_curve([(0.0, 0.0)]), 0.0, RATING_W)], BALANCE_PER_KWH, root).illiquid,
    )


def _at(
    bids: Sequence[Bid],
    outside: float | None,
    cost: InterchangeCost,
    pieces: int = FINE_PIECES,
    limit_w: float = RATING_W,
) -> Formation:
    return form_price(bids, 0.0, outside, cost, limit_w, limit_w, pieces)


def _moved(found: Sequence[Formation]) -> float:
    """How far the local price went between two clearings."""
    return abs(found[1].lambda_per_kwh - found[0].lambda_per_kwh)


def _effect(bids: Sequence[Bid], outside: float, step: float, cost: InterchangeCost, pieces: int) -> float:
    low, high = (_at(bids, outside + sign * step, cost, pieces).lambda_per_kwh for sign in (-1, 1))
    return (high - low) / (2.0 * step)


def _try_form(cost: InterchangeCost, known: bool) -> FormResult:
    bids, effects = smooth_layer(), []
    for net_pu in (sign * size for sign in (-1, 1) for size in NETS_PU):
        net_w = net_pu * RATING_W
        expected = outside_effect(cost, net_w, RESPONSE_W)
        outside = BALANCE_PER_KWH - net_w / RESPONSE_W - cost.marginal_per_kwh(net_w, 0)
        step = STEP_PU * abs(net_w) / RESPONSE_W / expected
        effects.append(Effect(net_pu, _effect(bids, outside, step, cost, FINE_PIECES), expected))
    sides = effects[: len(NETS_PU)], effects[len(NETS_PU) :]
    falls = all(side[at + 1].measured < side[at].measured for side in sides for at in range(len(side) - 1))
    at_balance = max(side[-1].measured for side in sides)
    return FormResult(tuple(effects), at_balance, falls and at_balance < VANISHED, known)


def _refine(count: int, cost: InterchangeCost) -> Refinement:
    """What `count` pieces of the cost leave of the effect at balance, and `count` steps of the layer of the price."""
    fine = smooth_layer()
    errors = [
        abs(_at(stepped_layer(count), price, cost).lambda_per_kwh - _at(fine, price, cost).lambda_per_kwh)
        for price in SWEEP
    ]
    return Refinement(count, _effect(fine, BALANCE_PER_KWH, 1e-9, cost, count), max(errors))


def page(found: Study) -> str:
    """The result as one page, nothing fetched."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, form in found.forms.items():
        imports = [effect for effect in form.effects if effect.net_pu > 0]
        nets_w = [effect.net_pu * RATING_W for effect in imports]
        figure.add_scatter(x=nets_w, y=[effect.measured for effect in imports], mode="lines+markers", name=name)
    figure.update_layout(
        title="How much of the outside's price reaches the local price, by net import",
        xaxis={"type": "log", "title": "net import, W"},
        yaxis={"title": "change of local price per change of the outside's price", "range": [-0.02, 1.05]},
        template="plotly_white",
    )
    return str(figure.to_html(include_plotlyjs=True, full_html=True))


def table(found: Study) -> str:
    """The result for a terminal."""
    lines = [f"{'net, W':>16} " + " ".join(f"{name:>16}" for name in found.forms)]
    columns = [form.effects for form in found.forms.values()]
    lines += [
        f"{row[0].net_pu * RATING_W:16g} " + " ".join(f"{effect.measured:16.5f}" for effect in row)
        for row in zip(*columns, strict=True)
    ]
    lines.append(
        f"{'property':>16} " + " ".join(f"{'yes' if form.vanishes else 'no':>16}" for form in found.forms.values())
    )
    lines.append(f"half effect of the root form at {found.half_effect_w:g} W")
    lines += [
        f"{one.parts:4d} pieces: effect at balance {one.effect_at_balance:.5f}; "
        f"{one.parts:4d} steps: price off by at most {one.price_error:.6f}"
        for one in found.refinement
    ]
    lines.append(f"islanded: effect {found.islanded_effect:g}; at the interface's limit: {found.limit_effect:g}")
    lines.append(f"no response flagged as illiquid: {'yes' if found.illiquid_flagged else 'no'}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 0 as known, 1 not, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m gateway.price.continuity", description="Continuity of the price.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a page with the plot")
    options = parser.parse_args(argv)
    found = study()
    if options.out is not None:
        try:
            options.out.write_text(page(found), encoding="utf-8")
        except OSError as error:
            sys.stderr.write(f"--out {options.out}: {error.strerror or error}\n")
            return 2
    sys.stdout.write(json.dumps(found.as_json()) + "\n" if options.json else table(found))
    return 0 if found.as_known else 1


if __name__ == "__main__":
    sys.exit(main())

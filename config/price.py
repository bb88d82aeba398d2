"""What interchange with the outside costs beyond the tariff: the form of g(n), chosen in a site file.

The tariff's two prices give the spread s |n| in every form; a form adds one term. Powers are in kilowatts here, as
people state tariffs.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from config.strict import NotNegative, Number, Strict


class SpreadForm(Strict):
    """g(n) = s |n|: what the tariff's import and export prices say and nothing else."""

    form: Literal["spread"] = Field("spread", description="the tariff's two prices alone")


class RootForm(Strict):
    """g(n) = s |n| + (2/3) tau |n|^(3/2): the outside's price fades out of the local one towards balance."""

    form: Literal["root"] = Field(description="the marginal cost grows with the root of the interchange")
    tau_per_kwh_sqrt_kw: NotNegative = Field(description="added to the price at 1 kW, twice that at 4 kW")


class AddedForm(Strict):
    """g(n) = s |n| + D n: a price at the node plus a distribution adder, the same at any interchange (LMP + D)."""

    form: Literal["lmp_plus_d"] = Field(description="a constant adder")
    distribution_per_kwh: Number = Field(description="D, added to the outside's price")


class QuadraticForm(Strict):
    """g(n) = s |n| + (q/2) n^2: a marginal cost in proportion to the interchange, as losses have it."""

    form: Literal["quadratic"] = Field(description="the marginal cost grows with the interchange")
    slope_per_kwh_kw: NotNegative = Field(description="q, added to the price for each kW of import")


InterchangeForm: TypeAlias = Annotated[
    SpreadForm | RootForm | AddedForm | QuadraticForm,
    Field(discriminator="form"),
]

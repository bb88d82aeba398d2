"""Bilateral contracts beside a site file: contracts for difference between parties, inside the layer and across layers.

A contract moves money by a stated power and price; it directs nothing, and what anybody takes or gives stays metered
and settled as without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AwareDatetime, Field

from config.explain import examine
from config.findings import ConfigError, Finding, Problem, did_you_mean, shown
from config.site import Site
from config.strict import Name, Rule, Strict
from config.yaml_source import read_document

SUFFIX: Final = ".contracts.yaml"
REST: Final = "rest"
LAYER_PREFIX: Final = "layer:"
MOST_PRICE: Final = 1e6
MOST_POWER_W: Final = 1e10

Party = Annotated[
    str,
    Field(
        pattern=r"^(layer:)?[a-z][a-z0-9_]{0,31}$",
        description="a device of the site, rest (what nobody controls), or layer:NAME for a party in another layer",
    ),
]
ContractId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


def _two_parties(contract: Contract) -> Iterator[Problem]:
    if contract.buyer == contract.seller:
        yield Problem(("seller",), f"{shown(contract.seller)} is the buyer, too", see=("buyer",))
    across = [party for party in (contract.buyer, contract.seller) if party.startswith(LAYER_PREFIX)]
    if len(across) == 2:
        yield Problem(("seller",), "neither party is in this layer", see=("buyer",))
    if across and contract.reference == "local":
        words = "the other layer has a local price of its own; both settle by the outside's price"
        yield Problem(("reference",), words, "outside")


def _begins_before_it_ends(contract: Contract | RegulationTerms) -> Iterator[Problem]:
    if contract.begin >= contract.end:
        yield Problem(("begin",), "is not before `end`", see=("end",))


class Contract(Strict):
    """A contract for difference over a constant power: the buyer gets reference less strike for each kWh of it.

    Where the reference is below the strike the buyer pays the difference. Across layers both sides state the same
    contract, each with the other as `layer:NAME`.
    """

    id: ContractId = Field(description="its name in the ledger")
    buyer: Party = Field(description="pays the strike in effect")
    seller: Party = Field(description="gets the strike in effect")
    power_w: Annotated[float, Field(strict=True, gt=0, le=MOST_POWER_W)] = Field(description="contracted, a magnitude")
    strike_per_kwh: Annotated[float, Field(strict=True, ge=-MOST_PRICE, le=MOST_PRICE)] = Field(
        description="the agreed price"
    )
    begin: AwareDatetime = Field(description="with its offset; holds for intervals that begin at it or later")
    end: AwareDatetime = Field(description="with its offset; intervals that begin at it or later are not part of it")
    reference: Literal["local", "outside"] = Field(
        "local", description="the layer's own price, or the outside's: what import costs"
    )

    rules: ClassVar[tuple[Rule, ...]] = (_two_parties, _begins_before_it_ends)


class RegulationTerms(Strict):
    """What the outside pays the layer for the regulation that its dispatches reserve.

    Capacity and movement (mileage) are paid for as far as the signal was followed: precision is 1 less the energy
    missed over the energy asked, both averaged over the same 10 s (PJM Manual 12, section 4.5.6, precision score).
    """

    id: ContractId = Field(description="its name in the ledger")
    capacity_per_kwh: Annotated[float, Field(strict=True, ge=0, le=MOST_PRICE)] = Field(
        description="for a kW kept ready for an hour, up or down"
    )
    mileage_per_kw: Annotated[float, Field(strict=True, ge=0, le=MOST_PRICE)] = Field(
        0.0, description="for each kW by which the signal moved what was asked"
    )
    performance: Literal["precision", "none"] = Field(
        "precision", description="both are paid times the precision, or in full"
    )
    least_precision: Annotated[float, Field(strict=True, ge=0, le=1)] = Field(
        0.0, description="below it nothing is paid"
    )
    begin: AwareDatetime = Field(description="with its offset; holds for intervals that begin at it or later")
    end: AwareDatetime = Field(description="with its offset; intervals that begin at it or later are not part of it")

    rules: ClassVar[tuple[Rule, ...]] = (_begins_before_it_ends,)


def _each_id_once(contracts: Contracts) -> Iterator[Problem]:
    several: dict[str, Sequence[Contract | RegulationTerms]]
    several = {"contracts": contracts.contracts, "regulation": contracts.regulation}
    for part, agreed in several.items():
        seen: dict[str, int] = {}
        for at, one in enumerate(agreed):
            first = seen.setdefault(one.id, at)
            if first != at:
                yield Problem((part, at, "id"), f"{shown(one.id)} is there twice", see=(part, first, "id"))


class Contracts(Strict):
    """The contracts of one site, and what the outside pays it for regulation."""

    site: Name = Field(description="the site's name")
    contracts: tuple[Contract, ...] = Field(description="in any order")
    regulation: tuple[RegulationTerms, ...] = Field((), description="agreements with the outside, in any order")

    rules: ClassVar[tuple[Rule, ...]] = (_each_id_once,)


def contracts_path(site_path: Path) -> Path:
    """Where a site's contracts are: beside the site file."""
    return site_path.with_name(site_path.stem + SUFFIX)


def load_contracts(path: Path, site: Site) -> tuple[Contract, ...]:
    """The contracts of a site; raises ConfigError with every error of the file."""
    return load_agreements(path, site).contracts


def load_agreements(path: Path, site: Site) -> Contracts:
    """The whole file of a site's contracts; raises ConfigError with every error of it."""
    document = read_document(path)
    if document.root is None:
        raise ConfigError(document.findings)
    made, problems = examine(Contracts, document.data)
    findings = [*document.findings, *(document.finding(problem) for problem in problems)]
    if findings:
        raise ConfigError(findings)
    found = [document.finding(problem) for problem in _strangers(made, site)]
    if made.site != site.site:
        words = f"'{made.site}' is another site's name"
        found.append(Finding(str(path), document.line(("site",)), "site", words, site.site))
    if found:
        raise ConfigError(found)
    return made


def _strangers(contracts: Contracts, site: Site) -> Iterator[Problem]:
    parties = [*(name for name in site.devices if name != site.connection.meter), REST]
    for at, contract in enumerate(contracts.contracts):
        for role, party in (("buyer", contract.buyer), ("seller", contract.seller)):
            if party not in parties and not party.startswith(LAYER_PREFIX):
                words = f"{shown(party)} is no party of this site{did_you_mean(party, parties)}"
                yield Problem(("contracts", at, role), words, ", ".join((*parties, f"{LAYER_PREFIX}NAME")))

"""The cables inside a site, for its twins: nodes, what joins them, and which device sits where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from config.findings import Path, Problem, did_you_mean, shown
from config.partial import known
from config.strict import Name, NotNegative, PerUnit, Positive, Rule, Strict

Between = tuple[Name, Name]


def _two_nodes(branch: Cable | Transformer) -> Iterator[Problem]:
    if branch.between[0] == branch.between[1]:
        yield Problem(("between",), f"{branch.between[0]} twice: a branch joins two nodes")


class Cable(Strict):
    """A four-wire cable, the same on every phase; its capacitance is not counted."""

    between: Between = Field(description="the two nodes that it joins")
    length_m: Positive = Field(description="from one node to the other")
    r_ohm_per_km: Positive = Field(description="of a phase conductor, warm")
    x_ohm_per_km: NotNegative = Field(0.08, description="of a phase conductor")
    neutral_r_ohm_per_km: NotNegative | None = Field(None, description="of the neutral; null: that of a phase")
    neutral_x_ohm_per_km: NotNegative | None = Field(None, description="of the neutral; null: that of a phase")

    rules: ClassVar[tuple[Rule, ...]] = (_two_nodes,)


def _losses_fit(transformer: Transformer) -> Iterator[Problem]:
    most_w = transformer.short_circuit_pu * transformer.rating_va
    if transformer.load_loss_w >= most_w:
        words = f"{transformer.load_loss_w:g} W is not below short_circuit_pu of rating_va, {most_w:g}"
        yield Problem(("load_loss_w",), words, see=("short_circuit_pu",))
    if transformer.no_load_loss_w >= transformer.rating_va:
        words = f"{transformer.no_load_loss_w:g} W is not below rating_va, {transformer.rating_va:g}"
        yield Problem(("no_load_loss_w",), words, see=("rating_va",))


class Transformer(Strict):
    """A transformer of the site's own. Voltages above it are given as they appear below it, by its rated ratio."""

    between: Between = Field(description="its upper node, then its lower one")
    rating_va: Positive = Field(description="rated apparent power")
    short_circuit_pu: PerUnit = Field(0.04, description="short-circuit impedance, per unit of its rating")
    load_loss_w: NotNegative = Field(description="at rated current")
    no_load_loss_w: NotNegative = Field(0.0, description="at rated voltage")
    vector_group: Literal["Dyn5", "Dyn11", "YNyn0"] = Field("Dyn11", description="as IEC 60076-1 names it")

    rules: ClassVar[tuple[Rule, ...]] = (_two_nodes, _losses_fit)


def _all_nodes_are_fed(network: Network) -> Iterator[Problem]:
    branches = network.branches
    fed, left = {network.connection}, list(branches)
    while reached := [branch for branch in left if fed & set(branch[1].between)]:
        fed |= {node for _, branch in reached for node in branch.between}
        left = [branch for branch in left if branch not in reached]
    for path, branch in left:
        words = f"{' and '.join(branch.between)} are not joined to {network.connection}, the connection point"
        yield Problem((*path, "between"), words, see=("connection",))


def _has_a_branch(network: Network) -> Iterator[Problem]:
    if not network.branches:
        yield Problem((), "has neither cables nor transformers", "at least one of them, or no network at all")


def _places_are_nodes(network: Network) -> Iterator[Problem]:
    nodes = network.nodes
    places: list[tuple[Path, str]] = [(("devices", name), node) for name, node in network.devices.items()]
    if network.load is not None:
        places.append((("load",), network.load))
    for path, node in places:
        if node not in nodes:
            yield Problem(path, f"no branch leads to {shown(node)}{did_you_mean(node, nodes)}", ", ".join(nodes))


class Network(Strict):
    """What lies between the connection point and the twins: voltages at each, and losses, by power-grid-model.

    Solved every `interval_s` of the physics; in between each node keeps its ratio to the connection's voltage.
    """

    connection: Name = Field("connection", description="the node of the connection point, where the meter is")
    interval_s: Positive = Field(0.5, description="how often it is solved")
    cables: tuple[Cable, ...] = Field((), description="between nodes; a node is whatever a branch names")
    transformers: tuple[Transformer, ...] = Field((), description="the site's own, if it has any")
    devices: dict[Name, Name] = Field(
        default_factory=dict,
        description="which node each sits at; who is not named, and every meter: at the connection point",
    )
    load: Name | None = Field(None, description="node of the uncontrolled load; null: the connection point")

    rules: ClassVar[tuple[Rule, ...]] = (_has_a_branch, _all_nodes_are_fed, _places_are_nodes)

    @property
    def branches(self) -> list[tuple[Path, Cable | Transformer]]:
        """Cables, then transformers, with where they stand."""
        cables: Iterable[tuple[Path, Cable | Transformer]] = (
            (("cables", at), cable) for at, cable in enumerate(self.cables)
        )
        return [*cables, *((("transformers", at), each) for at, each in enumerate(self.transformers))]

    @property
    def nodes(self) -> list[str]:
        """The connection point, then the others in the order of the branches."""
        named = [node for _, branch in self.branches for node in branch.between]
        return list(dict.fromkeys([self.connection, *named]))


def network_devices_are_there(site: Any) -> Iterator[Problem]:
    """A rule over a site: `simulation.network.devices` names its devices."""
    simulation = site.simulation if known(site, "simulation", "devices") else None
    network = simulation.network if simulation is not None and known(simulation, "network") else None
    if network is None or not known(network, "devices"):
        return
    for name in network.devices:
        if name not in site.devices:
            words = f"{shown(name)} is not a device{did_you_mean(name, list(site.devices))}"
            yield Problem(("simulation", "network", "devices", name), words, ", ".join(site.devices))

"""The cables inside a site, solved by power-grid-model: the voltage at each device, and what is lost on the way.

Asymmetrical power flow with constant powers. The four-wire cable is z and z0 = z + 3 zn, so that a phase's voltage is
the one against the neutral at that node and the current that the phases do not carry back returns by the neutral.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final, TypeAlias

from config.network import Cable, Network, Transformer
from sim_devices.device_model import ByPhase

STIFF_VA: Final = 1e13
"""Short-circuit power of the source: what lies before the connection point is the grid model's, not the network's."""

ALL: Final[ByPhase] = (1.0, 1.0, 1.0)
NONE: Final[ByPhase] = (0.0, 0.0, 0.0)
NO_LIBRARY: Final = "power-grid-model is not installed; the extra `network` has it"
_CLOCKS: Final = {"Dyn5": 5, "Dyn11": 11, "YNyn0": 0}

Powers: TypeAlias = tuple[ByPhase, ByPhase]
"""Active and reactive, by phase, consumed."""

_Solution: TypeAlias = tuple[list[ByPhase], ByPhase, ByPhase]
"""Voltages of the nodes by number, and active and reactive power out of the source."""


class NetworkError(Exception):
    """The network of this site can't be simulated; the text says why."""


class NetworkModel:
    """The network behind one connection point; `solve` when it is due, the rest at each step.

    Between two solutions each node keeps the ratio of its voltages to the connection's, and the losses stay.
    `unsolved` counts the times that no voltage carries what is drawn: then all stays as it was. Raises NetworkError
    where power-grid-model is not installed.
    """

    def __init__(self, settings: Network, nominal_voltage_v: float, step_s: float) -> None:
        self.settings = settings
        self.losses_w_by_phase: ByPhase = NONE
        self.losses_var_by_phase: ByPhase = NONE
        self.unsolved = 0
        self.steps_between = max(1, round(settings.interval_s / step_s))
        self._nominal_v = nominal_voltage_v
        self._node_ids = {node: number for number, node in enumerate(settings.nodes)}
        self._ratios: dict[str, ByPhase] = dict.fromkeys(settings.nodes, ALL)
        self._used = [node for node in settings.nodes if node != settings.connection]
        self._grid = _Grid(settings, self._node_ids, self._used, nominal_voltage_v)

    def node_of(self, device: str) -> str:
        """Where a device sits."""
        return self.settings.devices.get(device, self.settings.connection)

    @property
    def load_node(self) -> str:
        """Where the uncontrolled load is."""
        return self.settings.load or self.settings.connection

    def voltages(self, device: str, connection_v: ByPhase) -> ByPhase:
        """Phase voltages at a device while these are at the connection point."""
        (r1, r2, r3), (v1, v2, v3) = self._ratios[self.node_of(device)], connection_v
        return (r1 * v1, r2 * v2, r3 * v3)

    def voltages_by_node(self, connection_v: ByPhase) -> dict[str, ByPhase]:
        """Phase voltages at every node."""
        v1, v2, v3 = connection_v
        return {node: (r1 * v1, r2 * v2, r3 * v3) for node, (r1, r2, r3) in self._ratios.items()}

    def rest(self) -> None:
        """Nothing flows: the site is without a grid."""
        self._ratios = dict.fromkeys(self._ratios, ALL)
        self.losses_w_by_phase = self.losses_var_by_phase = NONE

    def solve(self, connection_v: ByPhase, drawn: Mapping[str, Powers]) -> None:
        """Take these powers at these nodes, in W and var, for what is drawn from now on."""
        if not all(volts > 0.0 for volts in connection_v):
            self.rest()
            return
        # The library's source is symmetrical. A phase at a volts with the power S has the currents and ratios of one at
        # the mean with S / a^2, exactly where phases do not couple; the neutral of unequal phases is left an error of
        # second order.
        mean_v = sum(connection_v) / 3.0
        one, two, three = ((volts / mean_v) ** 2 for volts in connection_v)
        squares = (one, two, three)
        powers = [drawn.get(node, (NONE, NONE)) for node in self._used]
        p_w, q_var = ([_divided(by_phase, squares) for by_phase in each] for each in zip(*powers, strict=True))
        found = self._grid.solved(mean_v / self._nominal_v, p_w, q_var)
        if found is None:
            self.unsolved += 1
            return
        node_v, source_w, source_var = found
        each_v = (mean_v,) * 3
        self._ratios = {node: _divided(node_v[number], each_v) for node, number in self._node_ids.items()}
        self._ratios[self.settings.connection] = ALL
        self.losses_w_by_phase = _beyond(source_w, squares, [p for p, _ in powers])
        self.losses_var_by_phase = _beyond(source_var, squares, [q for _, q in powers])


class _Grid:
    """The library's model: nodes by number, one load at each node that is used, a source at the connection point."""

    def __init__(self, settings: Network, nodes: Mapping[str, int], used: list[str], nominal_voltage_v: float) -> None:
        try:
            import power_grid_model as pgm
            from power_grid_model import errors
        except ImportError:
            raise NetworkError(NO_LIBRARY) from None
        self._pgm = pgm
        self._no_solution = (errors.IterationDiverge, errors.SparseMatrixError)
        self._u_rated_v = nominal_voltage_v * math.sqrt(3.0)
        ids = count(len(nodes))
        made: dict[str, list[dict[str, Any]]] = {
            "node": [{"id": number, "u_rated": self._u_rated_v} for number in nodes.values()],
            "line": [_line(next(ids), cable, nodes) for cable in settings.cables],
            "transformer": [self._transformer(next(ids), each, nodes) for each in settings.transformers],
            "source": [self._source(next(ids), nodes[settings.connection])],
            "asym_load": [self._load(next(ids), nodes[node]) for node in used],
        }
        tables = {name: self._table(pgm.DatasetType.input, name, rows) for name, rows in made.items()}
        self._model = pgm.PowerGridModel(tables, system_frequency=50.0)
        self._update = {
            name: self._table(pgm.DatasetType.update, name, [{"id": row["id"]} for row in made[name]])
            for name in ("source", "asym_load")
        }

    def solved(self, source_pu: float, p_w: Sequence[ByPhase], q_var: Sequence[ByPhase]) -> _Solution | None:
        """The state at this voltage of the source with these loads, node by node; None: there is none."""
        self._update["source"]["u_ref"] = source_pu
        self._update["asym_load"]["p_specified"] = p_w
        self._update["asym_load"]["q_specified"] = q_var
        self._model.update(update_data=self._update)
        try:
            found = self._model.calculate_power_flow(symmetric=False, output_component_types=["node", "source"])
        except self._no_solution:
            return None
        node_v = [_three(volts) for volts in found["node"]["u"]]
        most_v = 2.0 * source_pu * self._u_rated_v
        if not all(0.0 < volts < most_v for by_phase in node_v for volts in by_phase):
            return None
        return node_v, _three(found["source"]["p"][0]), _three(found["source"]["q"][0])

    def _table(self, dataset: Any, name: str, rows: list[dict[str, Any]]) -> Any:
        table = self._pgm.initialize_array(dataset, name, len(rows))
        for at, row in enumerate(rows):
            for key, value in row.items():
                table[key][at] = value
        return table

    def _source(self, number: int, node: int) -> dict[str, Any]:
        return {"id": number, "node": node, "status": 1, "u_ref": 1.0, "sk": STIFF_VA}

    def _load(self, number: int, node: int) -> dict[str, Any]:
        constant_power = self._pgm.LoadGenType.const_power
        return {"id": number, "node": node, "status": 1, "type": constant_power, "p_specified": 0.0, "q_specified": 0.0}

    def _transformer(self, number: int, made: Transformer, nodes: Mapping[str, int]) -> dict[str, Any]:
        winding = self._pgm.WindingType
        return {
            **_ends(number, made, nodes),
            "u1": self._u_rated_v,
            "u2": self._u_rated_v,
            "sn": made.rating_va,
            "uk": made.short_circuit_pu,
            "pk": made.load_loss_w,
            "i0": made.no_load_loss_w / made.rating_va,
            "p0": made.no_load_loss_w,
            "winding_from": winding.wye_n if made.vector_group == "YNyn0" else winding.delta,
            "winding_to": winding.wye_n,
            "clock": _CLOCKS[made.vector_group],
            "tap_side": self._pgm.BranchSide.from_side,
            **dict.fromkeys(("tap_pos", "tap_min", "tap_max", "tap_nom", "tap_size"), 0),
        }


def _line(number: int, cable: Cable, nodes: Mapping[str, int]) -> dict[str, Any]:
    r, x, km = cable.r_ohm_per_km, cable.x_ohm_per_km, cable.length_m / 1000.0
    neutral_r = r if cable.neutral_r_ohm_per_km is None else cable.neutral_r_ohm_per_km
    neutral_x = x if cable.neutral_x_ohm_per_km is None else cable.neutral_x_ohm_per_km
    return {
        **_ends(number, cable, nodes),
        "r1": r * km,
        "x1": x * km,
        "r0": (r + 3.0 * neutral_r) * km,
        "x0": (x + 3.0 * neutral_x) * km,
        **dict.fromkeys(("c1", "tan1", "c0", "tan0"), 0.0),
    }


def _ends(number: int, branch: Cable | Transformer, nodes: Mapping[str, int]) -> dict[str, Any]:
    one, other = branch.between
    return {"id": number, "from_node": nodes[one], "to_node": nodes[other], "from_status": 1, "to_status": 1}


def _divided(values: Sequence[float], by: ByPhase) -> ByPhase:
    return (values[0] / by[0], values[1] / by[1], values[2] / by[2])


def _beyond(source: ByPhase, squares: ByPhase, drawn: Sequence[ByPhase]) -> ByPhase:
    """What the source gives, by phase, beyond what is drawn at the nodes."""
    return _three([source[at] * squares[at] - sum(each[at] for each in drawn) for at in range(3)])


def _three(values: Any) -> ByPhase:
    one, two, three = (float(value) for value in values)
    return (one, two, three)

"""The twins of several sites: what a child draws is summed at its parent's bus in the same step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.loading import check_site, load_site, shipped_sites
from config.site import Site
from gateway.bench.tiers.demo import shipped_tiers
from sim_devices.endpoints import TwinError
from sim_devices.tiers import TieredPhysics, order_of_tiers

TOP = "tiers_microgrid"
QUIET = {"load": {"series": None, "constant_w": 3000.0}, "load_steps": None, "clouds": None}


def raw(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(shipped_sites()[name].read_text(encoding="utf-8"))
    return data


def example() -> dict[str, Site]:
    return {tier.name: tier.site for tier in shipped_tiers()}


def quiet() -> dict[str, Site]:
    """The example without weather and without a day."""
    sites = {}
    for name in example():
        data = raw(name) | {"simulation": QUIET}
        for device in data["devices"].values():
            device["twin"] = {key: value for key, value in device.get("twin", {}).items() if key != "series"}
        sites[name] = Site.model_validate(data)
    return sites


def test_the_example_has_three_tiers_and_about_forty_devices() -> None:
    tiers = shipped_tiers()
    assert [(tier.depth, tier.name) for tier in tiers] == [
        (0, TOP),
        *((1, f"tiers_building_{letter}") for letter in "abc"),
    ]
    devices = sum(len(tier.site.devices) for tier in tiers) - 3
    assert 38 <= devices <= 42


def test_children_step_before_their_parents() -> None:
    order, below = order_of_tiers(example())
    assert order[-1] == TOP
    assert {(each.parent, each.child) for each in below} == {(TOP, f"tiers_building_{letter}") for letter in "abc"}


def test_a_meter_above_sees_what_its_children_draw_in_the_same_step() -> None:
    physics = TieredPhysics(quiet(), 100.0)
    top = physics.sites[TOP]
    for count in range(50):
        if count == 20:
            physics.sites["tiers_building_a"].inject_load_step(7000.0)
        physics.step()
        children_w = sum(physics.sites[f"tiers_building_{letter}"].net_w for letter in "abc")
        own_w = sum(device.power_w for device in top.devices.values()) + top.load_w
        assert top.net_w == pytest.approx(children_w + own_w, abs=1e-6)
    assert top.meters["grid_meter"].valid
    assert physics.sites["tiers_building_a"].load_w == pytest.approx(10_000.0)


def test_the_meter_above_turns_bad_where_a_child_is_not_simulated() -> None:
    sites = quiet()
    del sites["tiers_building_c"]
    physics = TieredPhysics(sites, 100.0)
    physics.step()
    assert not physics.sites[TOP].meters["grid_meter"].valid


def test_sites_that_lie_below_each_other_are_refused() -> None:
    sites = example()
    data = raw("tiers_building_a")
    data["devices"]["upside_down"] = copy.deepcopy(raw(TOP)["devices"]["building_a"])
    data["devices"]["upside_down"]["address"]["layer"] = TOP
    sites["tiers_building_a"] = Site.model_validate(data)
    with pytest.raises(TwinError, match="lies below another"):
        order_of_tiers(sites)


def test_a_site_below_two_others_is_refused() -> None:
    sites = example()
    data = raw("tiers_building_b")
    data["devices"]["shared"] = copy.deepcopy(raw(TOP)["devices"]["building_c"])
    sites["tiers_building_b"] = Site.model_validate(data)
    with pytest.raises(TwinError, match="tiers_building_c: a site lies below one other at most"):
        order_of_tiers(sites)


# What `gateway check` knows of layers


def findings(tmp_path: Path, change: dict[str, Any], **more: Any) -> list[str]:
    data = raw(TOP)
    data["devices"]["building_b"]["address"] |= change
    data |= more
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return [str(finding) for finding in check_site(path)]


def test_a_layer_is_one_child(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, {"layer": "tiers_building_a"})
    assert "devices.building_b.address.layer: layer 'tiers_building_a' is device 'building_a' already" in found


def test_no_site_is_its_own_child(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, {"layer": TOP})
    assert "'tiers_microgrid' is this site itself" in found


def test_a_parent_below_is_warned_of(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, {"layer": "dso"})
    assert "warning" in found
    assert "can't be above and below another" in found


def test_what_a_layer_does_without_its_parent_is_to_be_known(tmp_path: Path) -> None:
    data = raw(TOP)
    del data["devices"]["building_a"]["acknowledged_on_silence"]
    (found,) = findings(tmp_path, {}, devices=data["devices"])
    assert "inside its own fallback" in found


def test_the_shipped_sites_fit_each_other() -> None:
    """Each child's parent, time-out and rating are what its own site file says."""
    sites = example()
    for device in load_site(shipped_sites()[TOP]).devices.values():
        if device.address.driver == "layer":
            below = sites[device.address.layer]
            (parent,) = below.parents
            assert (parent.name, parent.heartbeat_timeout_s) == (
                device.address.source,
                device.address.heartbeat_timeout_s,
            )
            assert below.connection.rating_w == device.rating_w

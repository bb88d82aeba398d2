"""What a site file may say of the layers below it: pure checks on what of it validates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from config.findings import Path, Problem, Severity, shown
from config.partial import known
from config.site import Site
from config.strict import Rule


def _children(site: Site) -> Iterator[tuple[str, Path, Any]]:
    """Each child's device name, the path of its layer's name, and its address."""
    for name, device in site.devices.items():
        if not (known(device, "address") and known(device.address, "driver") and device.address.driver == "layer"):
            continue
        if known(device.address, "layer"):
            yield name, ("devices", name, "address", "layer"), device.address


def _a_layer_is_one_child(site: Site) -> Iterator[Problem]:
    first: dict[str, tuple[str, Path]] = {}
    for name, path, address in _children(site):
        other, see = first.setdefault(address.layer, (name, path))
        if other != name:
            yield Problem(path, f"layer {shown(address.layer)} is device '{other}' already", see=see)


def _no_layer_is_its_own_child(site: Site) -> Iterator[Problem]:
    parents = [parent.name for parent in site.parents if known(parent, "name")] if known(site, "parents") else []
    for _, path, address in _children(site):
        if known(site, "site") and address.layer == site.site:
            yield Problem(
                path, f"{shown(address.layer)} is this site itself", "the name of another site", see=("site",)
            )
        elif address.layer in parents:
            words = f"{shown(address.layer)} is a parent of this site, too: a layer can't be above and below another"
            see = ("parents", parents.index(address.layer), "name")
            yield Problem(path, words, "the name of a site below", Severity.WARNING, see)


LAYER_RULES: Final[tuple[Rule, ...]] = (_a_layer_is_one_child, _no_layer_is_its_own_child)

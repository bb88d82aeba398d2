"""What `gateway twins` tells people while it starts, and once everything serves: on standard error."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config.site import Site
from gateway.cli.run import ALL, BadRequestError, twin_names
from gateway.cli.sites import end, no_such_device, tell

_PIPED_WIDTH = 200


def chosen_twins(site: Site, names: Iterable[str]) -> tuple[str, ...]:
    """The devices named by --twin, none for all; or an end that names what there is."""
    named = tuple(names)
    if unknown := set(named) - {ALL, *site.devices}:
        end(f"--twin {no_such_device(site, unknown)}")
    try:
        twin_names(site, named)
    except BadRequestError as error:
        end(str(error))
    return () if ALL in named else named


def tell_starting(site: Site, names: Iterable[str]) -> None:
    """What is being started, at once: the processes need some seconds, most of them for OPC UA."""
    there = list(names) or sorted(twin_names(site, (ALL,)))
    counts = Counter(site.devices[name].address.driver for name in there)
    kinds = ", ".join(f"{count} over {driver}" for driver, count in sorted(counts.items()))
    tell(f"starting {len(there)} twin{'s' * (len(there) != 1)} of {site.site} ({kinds}); this takes some seconds")


def tell_serving(site: Site, announcement: Mapping[str, Any]) -> None:
    """Where each twin is, as a table."""
    table = Table("twin", "profile", "protocol", "where", title=escape(f"{site.site}: the twins serve"), box=None)
    for name, address in announcement.get("endpoints", {}).items():
        profile = site.devices[name].profile if name in site.devices else ""
        table.add_row(escape(name), escape(profile), escape(str(address.get("driver", ""))), escape(_place(address)))
    console = Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=_PIPED_WIDTH)
    console.print(table)
    tell("Ctrl-C ends them")


def _place(address: Mapping[str, Any]) -> str:
    """An endpoint as people write it."""
    if "url" in address:
        return str(address["url"])
    if "listen_port" in address:
        return f"calls {address.get('listen_host')}:{address['listen_port']} as {address.get('charge_point')}"
    place = str(address["device"]) if "device" in address else f"{address.get('host')}:{address.get('port')}"
    if "unit" in address:
        return f"{place} unit {address['unit']}"
    parameters = address.get("parameters") or {}
    return " ".join([place, *(f"{name}={text}" for name, text in parameters.items())])

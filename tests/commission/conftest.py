from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.commission.bench import site_content, twins, write_site


class Yard(NamedTuple):
    """The site file, where its twins are, and the file that says so."""

    site: Path
    endpoints: dict[str, Any]
    addresses: Path

    def target(self, device: str) -> str:
        address = self.endpoints[device]
        return f"{address['host']}:{address['port']}"


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A site with its twins at work, for everything that leaves them as they were."""
    folder = tmp_path_factory.mktemp("yard")
    site = write_site(folder, site_content())
    with twins(site) as said:
        addresses = folder / "addresses.json"
        addresses.write_text(json.dumps(said), encoding="utf-8")
        yield Yard(site, said["endpoints"], addresses)

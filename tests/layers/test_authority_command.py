"""The operator hands dispatch over at the site: an explicit word, in a higher epoch, that survives a restart."""

from __future__ import annotations

import importlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config.messages import AckStatus, DispatchOrder
from gateway.journal import Journal
from gateway.orders.admission import Refused
from gateway.orders.book import OrderBook
from gateway.orders.held import Outcome, ParentState
from gateway.orders.operator import OperatorDesk


class Site:
    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder, time.monotonic, time.time)
        self.book = new_book()
        self.woken: list[str] = []
        self.concluded: list[Outcome] = []
        self.desk = OperatorDesk(
            self.book, self.journal, time.time, {}, lambda _: None, self.woken.append, self.concluded.append
        )

    async def ask(self, **request: Any) -> str:
        return str((await self.desk.answer({"command": "authority"} | request))["text"])


def new_book() -> OrderBook:
    parents = {"dso": ParentState(60.0, True), "aggregator": ParentState(60.0, False)}
    return OrderBook(100e3, parents, time.monotonic, time.time)


def dispatch(order_id: str, epoch: int) -> DispatchOrder:
    return DispatchOrder(id=order_id, issued_at=datetime.now(UTC), epoch=epoch, net_power_w=1000.0)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.journal.close()


async def test_without_a_parent_it_says_who_has_it_and_changes_nothing(site: Site) -> None:
    assert await site.ask() == "dso dispatches, in epoch 0"
    assert site.woken == []


async def test_a_hand_over_ends_the_dispatch_and_fences_off_whoever_had_it(site: Site) -> None:
    site.book.take_dispatch("dso", dispatch("d-1", 0))
    assert await site.ask(parent="aggregator", epoch=8) == "aggregator dispatches, in epoch 8"
    assert [(one.order_id, one.status) for one in site.concluded] == [("d-1", AckStatus.SUPERSEDED)]
    assert len(site.woken) == 1
    with pytest.raises(Refused, match="no dispatch authority"):
        site.book.take_dispatch("dso", dispatch("d-2", 8))
    site.book.take_dispatch("aggregator", dispatch("a-1", 8))
    stored, unreadable = site.journal.stored_orders()
    assert not unreadable
    again = new_book()
    assert again.restore(stored) == []
    assert (again.dispatcher, again.epoch) == ("aggregator", 8)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"parent": "stranger"}, "not a parent of this site; there are dso, aggregator"),
        ({"parent": "aggregator", "epoch": 0}, "epoch 0 is not above 0"),
        ({"parent": "aggregator", "epoch": -3}, "a whole number"),
        ({"parent": "aggregator", "epoch": "7"}, "a whole number"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_text(site: Site, request_: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await site.ask(**request_)
    assert (site.book.dispatcher, site.book.epoch) == ("dso", 0)


def test_the_command_says_so_where_no_gateway_runs(tmp_path: Path) -> None:
    app = importlib.import_module("gateway.cli.main").app
    done = CliRunner().invoke(app, ["authority", "demo", "dso", "--state", str(tmp_path)])
    assert done.exit_code == 1
    assert "is the gateway running" in done.output

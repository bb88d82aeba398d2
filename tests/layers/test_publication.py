"""When parents are told what, and that each hears only of its own dispatch; and our epochs at the layers below."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from config.messages import Acknowledgement, AckStatus, Down, Offer, OfferInterval, Telemetry
from gateway.child_epochs import FILE, next_epochs
from gateway.control.orders_in_force import DispatchInForce
from gateway.parent.publication import Publication
from tests.layers.messages import NOW, interval, offer, telemetry

DISPATCH = DispatchInForce("dso", "d-1", 5000.0, 0.0, None, 0.0, 0.0, None)


@dataclass
class Heard:
    telemetry: list[Telemetry] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)

    def tell(self, message: Telemetry) -> None:
        self.telemetry.append(message)

    def offer(self, message: Offer) -> None:
        self.offers.append(message)


def test_each_parent_hears_only_of_its_own_dispatch() -> None:
    publication, dso, other = Publication(1000.0), Heard(), Heard()
    publication.tell({"dso": dso, "aggregator": other}, 0.0, telemetry(NOW), DISPATCH)
    publication.tell({"dso": dso, "aggregator": other}, 0.0, telemetry(NOW), None)
    assert [each.dispatch_id for each in dso.telemetry] == ["d-1", None]
    assert [each.dispatch_id for each in other.telemetry] == [None, None]


@pytest.mark.parametrize(
    ("now_s", "net_w", "state", "regulated", "due"),
    [
        (10.5, 5000.0, "compliant", False, False),
        (10.5, 5900.0, "compliant", False, False),
        (10.5, 6000.0, "compliant", False, True),
        (10.5, None, "compliant", False, True),
        (10.5, 5000.0, "unmet", False, True),
        (10.5, 5000.0, "compliant", True, True),
        (11.0, 5000.0, "compliant", False, True),
    ],
)
def test_telemetry_is_due_each_second_and_on_change(
    now_s: float, net_w: float | None, state: str, regulated: bool, due: bool
) -> None:
    publication = Publication(1000.0)
    publication.tell({}, 10.0, telemetry(NOW, 5000.0), None)
    assert publication.telemetry_is_due(now_s, net_w, state, regulated=regulated) is due


def test_an_offer_is_told_each_minute_on_change_and_to_whoever_takes_authority() -> None:
    publication, heard = Publication(1000.0), Heard()
    made: list[Offer | None] = [None]

    def look(now_s: float) -> int:
        before = len(heard.offers)
        publication.offer({"dso": heard}, now_s, lambda: made[0])
        return len(heard.offers) - before

    assert look(0.0) == 0, "nothing is measured yet"
    made[0] = offer(NOW)
    assert [look(at_s) for at_s in (0.5, 1.0, 2.0, 6.5, 59.0, 66.0)] == [0, 1, 0, 0, 0, 1]
    # One step is what the grid hides anyway; two are told.
    made[0] = offer(NOW, interval(NOW, upper_w=31_000.0))
    assert look(72.0) == 0
    made[0] = offer(NOW, interval(NOW, upper_w=32_000.0))
    assert look(78.0) == 1
    taken = Acknowledgement(order_id="a", kind=Down.AUTHORITY, status=AckStatus.ACCEPTED, issued_at=NOW)
    publication.acknowledged(taken)
    assert look(78.1) == 1
    publication.acknowledged(taken.model_copy(update={"kind": Down.DISPATCH}))
    publication.acknowledged(taken.model_copy(update={"status": AckStatus.REJECTED}))
    assert look(78.2) == 0


def test_an_interval_to_come_that_is_new_or_has_changed_is_told_before_its_minute() -> None:
    publication, heard = Publication(1000.0), Heard()
    later = NOW + timedelta(seconds=300)

    def told(now_s: float, *to_come: OfferInterval) -> bool:
        return publication.offer({"dso": heard}, now_s, lambda: offer(NOW, interval(NOW), *to_come)) is not None

    assert told(0.0)
    assert told(6.0, interval(later))
    assert not told(12.0, interval(later, upper_w=31_000.0))
    assert told(18.0, interval(later, upper_w=32_000.0))
    assert not told(24.0, interval(later, upper_w=32_000.0), interval(later + timedelta(seconds=300)))
    assert len(heard.offers) == 3


def test_an_epoch_is_above_all_before_it_whatever_is_lost(tmp_path: Path) -> None:
    start = (NOW + timedelta()).timestamp()
    first = next_epochs(tmp_path, ["building"], start)["building"]
    assert next_epochs(tmp_path, ["building", "other"], start)["building"] == first + 1
    # A clock that was set back.
    assert next_epochs(tmp_path, ["building"], 1000.0)["building"] == first + 2
    assert json.loads((tmp_path / FILE).read_text())["other"] == first
    # A file that is lost, or torn.
    (tmp_path / FILE).write_text("{")
    assert next_epochs(tmp_path, ["building"], start + 60.0)["building"] == first + 60
    # A disk that can't be written: the clock goes on.
    assert next_epochs(tmp_path / "nowhere", ["building"], start + 61.0)["building"] == first + 61
    assert next_epochs(tmp_path / "nowhere", [], start) == {}

"""Real processes and a broker: the planner's offers reach the parent, and outlive the planner for a while."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import aiomqtt
import pytest

pytest.importorskip("cvxpy")

from config.messages import AuthorityOrder, Down, Offer, Up, down_topic, up_topic
from tests.drivers.mqtt_field import MOSQUITTO, Mosquitto
from tests.planning.test_process import LOADING_S, planned_site, planner_of, planner_pid
from tests.system.processes import Started
from tests.system.sites import written


@pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
async def test_planned_intervals_are_told_before_they_begin_and_after_the_planner_is_gone(
    started: Started, tmp_path: Path
) -> None:
    broker = Mosquitto(tmp_path)
    await broker.start()
    site = planned_site(horizon_h=4, offer={"intervals": 2, "every_s": 5.0, "gate_s": 0})
    site["parents"] = [{"name": "dso", "dispatch": True, "heartbeat_timeout_s": 600}]
    path = written(site, started.folder)
    twins = await started.twins(path)
    gateway = started.gateway(
        path, started.folder / "state", "--twin", "all", "--broker", f"127.0.0.1:{broker.port}", twins=twins
    )
    await gateway.ready()
    try:
        async with asyncio.timeout(LOADING_S), aiomqtt.Client("127.0.0.1", broker.port) as dso:
            await dso.subscribe(up_topic(site["site"], "dso", Up.OFFER), qos=1)
            told = await planned(dso)
            assert [one.duration_s for one in told.intervals[:3]] == [900.0] * 3
            assert told.intervals[0].start <= told.issued_at < told.intervals[1].start
            assert told.intervals[1].forecast is not None
            assert len(told.intervals) > 3, "what is planned after them"
            assert told.intervals[1].upper_w > told.intervals[1].lower_w
            assert planner_of(gateway)["refused"] == 0, planner_of(gateway)
            # The planner stops: the intervals that are told stand.
            os.kill(planner_pid(gateway), signal.SIGSTOP)
            taken = AuthorityOrder(id="dso-a", issued_at=datetime.now(UTC), parent="dso", epoch=1)
            topic = down_topic(site["site"], "dso", Down.AUTHORITY)
            await dso.publish(topic, taken.model_dump_json(exclude_none=True), qos=1)
            again = await planned(dso)
            assert again.intervals[-1].start >= told.intervals[-1].start
            assert len(again.intervals) > 3
        assert gateway.journal("crash") == []
    finally:
        await broker.stop()


async def planned(dso: aiomqtt.Client) -> Offer:
    """The next offer with planned intervals."""
    async for message in dso.messages:
        made = Offer.model_validate_json(message.payload)  # type: ignore[arg-type]
        if len(made.intervals) > 2:
            return made
    raise AssertionError("the broker is gone")

"""Stories of the OCPP driver, with the ocpp package's charge point on the other side of real WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import structlog.testing
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from config.loading import check_profile, check_site
from config.profile import Profile
from config.site import OcppConnector
from config.vocabulary import LinkState, Quality, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.inspection import InspectionFailed
from drivers.ocpp.charging_profile import Life, Limit, setpoint_profile
from drivers.ocpp.driver import OcppDriver
from drivers.ocpp.inspection import ocpp_inspector
from drivers.ocpp.messages import LARGEST_MESSAGE, Request, decode, objection
from drivers.ocpp.meter_values import ChargerClock, meterings
from tests.drivers.field import Field, Wire, free_port
from tests.drivers.mqtt_field import make_certificate
from tests.drivers.ocpp_field import Charger, authorization, dial, frame, online, power

PROFILE = Path("config/profiles/ocpp16_charger.yaml")
WORD = "a good password"


def charger(name: str = "charger", **changes: Any) -> DeviceBinding:
    raw: dict[str, Any] = yaml.safe_load(PROFILE.read_text())
    raw["pace"] = {"timeout_s": 1, "silence_s": 20, "publishing_interval_s": 5} | changes.pop("pace", {})
    raw |= changes.pop("profile", {})
    where: dict[str, Any] = {"listen_host": "127.0.0.1", "listen_port": 0, "charge_point": "CP1"}
    address = OcppConnector(driver="ocpp", **(where | changes.pop("address", {})))
    return DeviceBinding(name, Profile.model_validate(raw), address, 22_080.0, **({"reversion_s": 60.0} | changes))


def setpoint(power_w: float, sequence: int = 1, life_s: float = 5.0, device: str = "charger") -> Setpoint:
    return Setpoint(device, power_w, "test", time.monotonic() + life_s, sequence)


@contextlib.asynccontextmanager
async def running(field: Field, *bindings: DeviceBinding) -> AsyncIterator[OcppDriver]:
    """The driver at work; once cancelled, it has left no task behind and has given its port back."""
    driver = OcppDriver("ocpp", bindings or (charger(),), field, time.monotonic, random.Random(1))
    before = asyncio.all_tasks()
    task = asyncio.create_task(driver.run())
    try:
        await field.until(lambda: driver.stats.state is not LinkState.CONNECTING)
        yield driver
    finally:
        port = driver.port
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    assert [left for left in asyncio.all_tasks() - before if "ocpp" in left.get_name()] == []
    if port:
        (await asyncio.start_server(lambda *_: None, "127.0.0.1", port)).close()


# What a charger says


async def test_a_charger_boots_and_is_set_up(tmp_path: Path) -> None:
    field = Field()
    async with running(field) as driver, online(driver.port, boots=False) as device:
        answer = await device.boots()
        assert (answer.status, answer.interval) == ("Accepted", 10)
        await device.is_set_up()
        assert device.configuration["HeartbeatInterval"] == "10"
        assert device.configuration["MeterValueSampleInterval"] == "5"
        sampled = "Power.Active.Import,Energy.Active.Import.Register,Current.Import,Voltage"
        assert device.configuration["MeterValuesSampledData"] == sampled
        assert [payload["requestedMessage"] for payload in device.all("TriggerMessage")] == [
            "StatusNotification",
            "MeterValues",
        ]
        assert driver.stats.identities == {"charger": "Vendor Model 1.2"}
        assert field.present == [("charger", True, "answers")]
        assert driver.poll() == ()


async def test_a_measurand_that_the_charger_does_not_have_costs_no_other() -> None:
    field = Field()

    def has_no_voltage(device: Charger) -> None:
        device.unsupported = {"Voltage", "Current.Import"}

    async with running(field) as driver, online(driver.port, prepared=has_no_voltage) as device:
        await device.until(lambda: "MeterValuesSampledData" in device.configuration)
        assert device.configuration["MeterValuesSampledData"] == "Power.Active.Import,Energy.Active.Import.Register"


async def test_meter_values_are_samples_with_quality_and_age() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.measures(
            power(11.04, unit="kW"),
            {"value": "2500"},
            {"value": "16.1", "measurand": "Current.Import", "unit": "A", "phase": "L1"},
            {"value": "231.5", "measurand": "Voltage", "unit": "V", "phase": "L1-N"},
            {"value": "4", "measurand": "Current.Import", "unit": "W", "phase": "L2"},
            {"value": "many", "measurand": "Current.Import", "unit": "A", "phase": "L3"},
            {"value": "nonsense", "measurand": "No.Such"},
        )
        assert field.sample("charger", "power_w").value == pytest.approx(11_040.0)
        assert field.sample("charger", "energy_import_wh").value == 2500.0
        assert field.sample("charger", "current_l1_a").value == 16.1
        assert field.sample("charger", "voltage_v").value == 231.5
        assert field.sample("charger", "current_l2_a").quality is Quality.BAD
        assert field.sample("charger", "current_l3_a").quality is Quality.BAD
        assert time.monotonic() - field.sample("charger", "power_w").measured_s < 0.5

        await device.measures(power(7000), age_s=3.0)
        sample = field.sample("charger", "power_w")
        assert sample.quality is Quality.GOOD
        assert 2.9 < time.monotonic() - sample.measured_s < 3.5


async def test_power_by_phase_adds_up_to_the_power() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.measures(*(power(1000, phase=f"L{phase}") for phase in (1, 2, 3)))
        assert field.sample("charger", "power_w").value == 3000.0
        await device.measures(power(1000, phase="L1"), {**power(0, phase="L2"), "value": "?"})
        assert field.sample("charger", "power_w").quality is Quality.BAD


@pytest.mark.parametrize(
    ("status", "state"),
    {
        "Available": "A",
        "Preparing": "B",
        "Charging": "C",
        "SuspendedEV": "B",
        "SuspendedEVSE": "B",
        "Finishing": "B",
        "Reserved": "A",
        "Unavailable": "E",
        "Faulted": "F",
    }.items(),
)
async def test_a_status_is_a_charging_state(status: str, state: str) -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.status(status)
        assert field.sample("charger", "charging_state").value == state
        # Where nothing is supplied, the power is known without a meter value.
        idle = status not in ("Charging", "Faulted")
        assert field.sample("charger", "power_w").quality is (Quality.GOOD if idle else Quality.BAD)
        told_s = field.sample("charger", "charging_state").measured_s
        await device.beats()
        assert field.sample("charger", "charging_state").measured_s > told_s


async def test_what_a_charger_kept_while_it_was_offline_is_no_measurement() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        for age_s in (600, 590, 580):
            await device.measures(power(9000), age_s=age_s)
        assert field.sample("charger", "power_w").quality is Quality.BAD
        assert driver.stats.rejected == 3
        await device.measures(power(4000))
        assert field.sample("charger", "power_w").value == 4000.0


def test_a_clock_that_is_wrong_but_steady_is_made_out() -> None:
    now = [1_000_000.0]
    clock = ChargerClock(lambda: now[0], 10.0)

    def age_s(delay_s: float) -> float | None:
        return clock.age_s(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now[0] - delay_s)))

    assert age_s(3600) is None  # it might be of an hour ago
    now[0] += 5
    assert age_s(3600) == 0.0  # it is not: the charger says 5 s later, 5 s later
    now[0] += 5
    assert age_s(3602) == 2.0
    now[0] += 5
    assert age_s(-20) is None  # somebody has set the clock
    now[0] += 5
    assert age_s(0) is None
    now[0] += 5
    assert age_s(0) == 0.0
    assert clock.age_s("yesterday") is None
    assert clock.age_s(12) is None


async def test_a_transaction_has_a_number_and_an_energy() -> None:
    field = Field()
    address = {"id_tags": ["TAG"]}
    async with running(field, charger(address=address)) as driver, online(driver.port) as device:
        refused = await device.starts("STRANGER")
        assert refused.id_tag_info["status"] == "Invalid"
        first = await device.starts(timestamp="2024-01-01T00:00:00Z")
        again = await device.starts(timestamp="2024-01-01T00:00:00Z")
        assert first.id_tag_info["status"] == "Accepted"
        assert first.transaction_id == again.transaction_id > refused.transaction_id
        await device.measures(power(5000), {"value": "1.75", "unit": "kWh"})
        assert field.sample("charger", "session_energy_wh").value == 750.0
        await device.stops()
        assert (await device.starts()).transaction_id > first.transaction_id


async def test_a_charger_that_falls_silent_is_absent_until_it_speaks() -> None:
    field = Field()
    async with running(field, charger(pace={"silence_s": 0.3})) as driver, online(driver.port) as device:
        await device.status("Charging")
        await device.measures(power(7000))
        await field.until(lambda: field.present[-1] == ("charger", False, "no sign of life for 0.3 s"))
        assert field.sample("charger", "power_w").quality is Quality.BAD
        assert field.sample("charger", "charging_state").quality is Quality.BAD
        assert driver.stats.state is LinkState.UP
        await device.beats()
        assert field.present[-1] == ("charger", True, "answers")
        assert field.sample("charger", "charging_state").value == "C"


async def test_a_charger_that_hangs_up_is_absent_at_once() -> None:
    field = Field()
    async with running(field) as driver:
        async with online(driver.port) as device:
            await device.status("Charging")
        await field.until(lambda: field.present[-1][1] is False)
        assert field.sample("charger", "charging_state").quality is Quality.BAD
        async with online(driver.port, boots=False) as device:
            await device.beats()
            # What it said before may have changed since.
            assert field.sample("charger", "charging_state").quality is Quality.BAD
            assert (driver.stats.lost, driver.stats.reconnects) == (1, 1)


async def test_a_line_that_goes_dark_is_found_by_pings() -> None:
    field = Field()
    async with running(field, charger(pace={"silence_s": 3})) as driver:
        wire = Wire(driver.port)
        await wire.start()
        try:
            async with online(wire.port):
                wire.go_dark()
                await field.until(lambda: "keepalive ping timeout" in field.present[-1][2])
        finally:
            await wire.stop()


# What it is told


async def test_a_setpoint_is_a_charging_profile_that_ends_by_itself() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.is_set_up()
        assert device.limit() == 6.0  # the fallback
        driver.write(setpoint(11_040.0))
        await field.until(lambda: bool(field.results))
        assert field.results[-1].status is WriteStatus.ACKNOWLEDGED
        profile = device.setpoints()[-1]
        assert profile["chargingProfilePurpose"] == "TxDefaultProfile"
        assert profile["chargingSchedule"]["chargingRateUnit"] == "A"
        assert profile["stackLevel"] == 8
        assert device.limit() == 16.0
        assert device.limit(after_s=55) == 16.0
        # Without us, the charger goes to what was stated.
        assert device.limit(after_s=62) == 6.0

        driver.write(setpoint(0.0, 2))
        await field.until(lambda: len(field.results) == 2)
        assert device.limit() == 0.0
        await driver.rest(1.0)
        assert device.limit() == 6.0


async def test_a_running_transaction_has_a_profile_of_its_own() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.is_set_up()
        driver.write(setpoint(11_040.0))
        await device.until(lambda: device.limit() == 16.0)
        number = (await device.starts()).transaction_id
        await device.until(lambda: device.setpoints()[-1]["chargingProfilePurpose"] == "TxProfile")
        assert device.setpoints()[-1]["transactionId"] == number
        driver.write(setpoint(6900.0, 2))
        await field.until(lambda: len(field.results) == 2)
        assert device.limit() == 10.0
        await driver.rest(1.0)
        assert [payload["id"] for payload in device.all("ClearChargingProfile")] == [12, 13]
        assert device.limit() == 6.0
        driver.write(setpoint(13_800.0, 3))
        await field.until(lambda: len(field.results) == 3)
        await device.stops()
        await device.until(lambda: device.limit() == 20.0)
        assert device.setpoints()[-1]["chargingProfilePurpose"] == "TxDefaultProfile"


async def test_a_transaction_that_began_before_us_is_found_in_meter_values() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port, boots=False) as device:
        device.transaction = 4711
        await device.measures(power(5000), {"value": "2000", "unit": "Wh"})
        await device.is_set_up()
        driver.write(setpoint(11_040.0))
        await device.until(lambda: bool(device.setpoints()))
        assert device.setpoints()[-1]["transactionId"] == 4711
        # Where it began is not known, so neither is its energy.
        assert field.sample("charger", "session_energy_wh").quality is Quality.BAD


async def test_a_profile_may_keep_to_default_profiles() -> None:
    field = Field()
    asked = {"ocpp": {"running": "tx_default_profile", "configuration": {"VendorKey": "on"}}}
    async with running(field, charger(profile=asked)) as driver, online(driver.port) as device:
        await device.starts()
        driver.write(setpoint(11_040.0))
        await field.until(lambda: bool(field.results))
        assert device.setpoints()[-1]["chargingProfilePurpose"] == "TxDefaultProfile"
        await device.is_set_up()
        assert device.configuration["VendorKey"] == "on"


async def test_a_charger_that_takes_watts_gets_watts() -> None:
    field = Field()

    def takes_watts(device: Charger) -> None:
        device.configuration["ChargingScheduleAllowedChargingRateUnit"] = "Power"

    async with running(field) as driver, online(driver.port, prepared=takes_watts) as device:
        await device.is_set_up()
        assert device.limit() == 4140.0
        driver.write(setpoint(7333.33))
        await field.until(lambda: bool(field.results))
        schedule = device.setpoints()[-1]["chargingSchedule"]
        assert schedule["chargingRateUnit"] == "W"
        assert schedule["chargingSchedulePeriod"][0]["limit"] == 7333.3


async def test_a_charger_without_a_fallback_gets_setpoints_without_an_end() -> None:
    field = Field()

    def refuses(device: Charger) -> None:
        device.refuses["SetChargingProfile 1"] = "NotSupported"

    with structlog.testing.capture_logs() as logs:
        async with running(field) as driver, online(driver.port, prepared=refuses) as device:
            await device.is_set_up()
            driver.write(setpoint(11_040.0))
            await field.until(lambda: bool(field.results))
            assert device.limit(after_s=10_000) == 16.0
            await driver.rest(1.0)
            assert device.limit(after_s=10_000) == 6.0
    assert [log["reason"] for log in logs if "no fallback" in log["event"]] == ["NotSupported"]


async def test_a_charger_with_one_level_has_no_fallback_either() -> None:
    field = Field()

    def has_one_level(device: Charger) -> None:
        device.configuration["ChargeProfileMaxStackLevel"] = "0"

    async with running(field) as driver, online(driver.port, prepared=has_one_level) as device:
        await device.is_set_up()
        driver.write(setpoint(11_040.0))
        await field.until(lambda: bool(field.results))
        assert device.limit(after_s=10_000) == 16.0
        assert device.setpoints()[-1]["stackLevel"] == 0


async def test_a_refusal_is_told_with_its_reason() -> None:
    field = Field()

    def refuses(device: Charger) -> None:
        device.refuses["SetChargingProfile 2"] = "Rejected"

    async with running(field) as driver, online(driver.port, prepared=refuses) as device:
        driver.write(setpoint(11_040.0))
        await field.until(lambda: bool(field.results))
        assert field.results[-1].status is WriteStatus.REFUSED
        assert field.results[-1].detail == "SetChargingProfile: Rejected"
        assert field.present[-1][1] is True
        device.refuses["SetChargingProfile 2"] = "No such verdict"  # its own library refuses that, with a CALLERROR
        driver.write(setpoint(11_040.0, 2))
        await field.until(lambda: len(field.results) == 2)
        assert field.results[-1].status is WriteStatus.REFUSED
        assert driver.stats.exceptions == 1


async def test_without_an_answer_the_write_is_indeterminate_and_the_next_connection_begins_with_it() -> None:
    field = Field()
    async with running(field, charger(pace={"timeout_s": 0.2})) as driver:
        async with online(driver.port) as device:
            await device.is_set_up()
            device.deaf_to = {"SetChargingProfile"}
            driver.write(setpoint(11_040.0))
            await field.until(lambda: bool(field.results))
            assert field.results[-1].status is WriteStatus.INDETERMINATE
            assert "no answer within 0.2 s" in field.results[-1].detail
            await field.until(lambda: field.present[-1][1] is False)
            await device.socket.wait_closed()
        async with online(driver.port, boots=False) as device:
            await device.until(lambda: bool(device.setpoints()))
            writes = [action for action, _ in device.asked if action in ("SetChargingProfile", "ChangeConfiguration")]
            assert device.limit() == 16.0
            assert writes == ["SetChargingProfile"]


async def test_after_a_reboot_the_current_setpoint_goes_before_the_fallback() -> None:
    field = Field()
    async with running(field) as driver:
        driver.write(setpoint(11_040.0))
        async with online(driver.port) as device:
            await device.is_set_up()
            ids = [payload["csChargingProfiles"]["chargingProfileId"] for payload in device.all("SetChargingProfile")]
            assert ids == [12, 11]
            device.profiles.clear()
            await device.boots()
            await device.until(lambda: len(device.all("SetChargingProfile")) == 4)
            ids = [payload["csChargingProfiles"]["chargingProfileId"] for payload in device.all("SetChargingProfile")]
            assert ids[2:] == [12, 11]


async def test_setpoints_expire_and_the_newest_goes_out() -> None:
    field = Field()

    def slow_to_learn(device: Charger) -> None:
        device.deaf_to = {"GetConfiguration"}

    async with running(field, charger(pace={"timeout_s": 0.3})) as driver:
        driver.write(setpoint(4140.0, 1, life_s=0.05))
        await field.until(lambda: bool(field.results))
        assert field.results[-1].status is WriteStatus.EXPIRED
        async with online(driver.port, prepared=slow_to_learn) as device:
            driver.write(setpoint(4140.0, 2))
            driver.write(setpoint(6900.0, 3))
            driver.write(setpoint(11_040.0, 4))
            await field.until(lambda: len(field.results) == 4)
            assert [(result.sequence, result.status) for result in field.results[1:]] == [
                (2, WriteStatus.SUPERSEDED),
                (3, WriteStatus.SUPERSEDED),
                (4, WriteStatus.ACKNOWLEDGED),
            ]
            assert len(device.setpoints()) == 1


async def test_a_setpoint_that_expires_while_another_request_is_under_way_is_not_sent() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.is_set_up()
        device.deaf_to = {"RemoteStartTransaction"}
        asking = asyncio.create_task(driver.command("charger", "remote_start", 1.0))
        await device.until(lambda: bool(device.all("RemoteStartTransaction")))
        driver.write(setpoint(11_040.0, life_s=0.1))
        await field.until(lambda: bool(field.results))
        assert field.results[-1].status is WriteStatus.EXPIRED
        assert (await asking).status is WriteStatus.INDETERMINATE
        assert device.setpoints() == []


async def test_transactions_are_started_and_stopped_from_here() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        assert (await driver.command("charger", "remote_stop", 1)).status is WriteStatus.REFUSED
        assert (await driver.command("charger", "remote_start", 1)).status is WriteStatus.ACKNOWLEDGED
        assert device.all("RemoteStartTransaction") == [{"connectorId": 1, "idTag": "LAMINA"}]
        await device.starts()
        assert (await driver.command("charger", "remote_stop", 1)).status is WriteStatus.ACKNOWLEDGED
        assert device.all("RemoteStopTransaction") == [{"transactionId": device.transaction}]


async def test_a_read_only_charger_is_asked_and_never_told() -> None:
    field = Field()
    async with running(field, charger(writable=False)) as driver, online(driver.port) as device:
        await device.until(lambda: len(device.all("TriggerMessage")) == 2)
        driver.write(setpoint(11_040.0))
        assert field.results[-1].status is WriteStatus.REFUSED
        await device.beats()
        await device.measures(power(1))
        assert {action for action, _ in device.asked} == {"GetConfiguration", "TriggerMessage"}


async def test_a_setpoint_takes_hardly_longer_than_the_charger_s_own_question_and_answer() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.is_set_up()
        took: list[float] = []
        beats: list[float] = []
        for sequence in range(20):
            began = time.perf_counter()
            driver.write(setpoint(4140.0 + 690 * sequence, sequence))
            await device.until(lambda: len(device.setpoints()) == len(took) + 1)
            took.append(time.perf_counter() - began)
            await field.until(lambda: len(field.results) == len(took))
            began = time.perf_counter()
            await device.beats()
            beats.append(time.perf_counter() - began)
        assert min(took) < 5.0 * median(beats)


# Who may call


async def test_two_connectors_share_the_charger_and_two_chargers_the_port() -> None:
    field = Field()
    bindings = [
        charger("left"),
        charger("right", address={"connector": 2}),
        charger("other", address={"charge_point": "CP2"}),
    ]
    async with running(field, *bindings) as driver, online(driver.port) as one, online(driver.port, "CP2") as two:
        await one.is_set_up()
        await one.status("Charging", connector=2)
        await two.status("Available")
        await one.measures(power(7000), connector=2)
        assert field.sample("right", "power_w").value == 7000.0
        assert field.sample("left", "power_w").quality is Quality.BAD
        assert field.sample("other", "charging_state").value == "A"
        driver.write(setpoint(11_040.0, device="right"))
        await field.until(lambda: bool(field.results))
        assert one.all("SetChargingProfile")[-1]["connectorId"] == 2
        driver.write(setpoint(0, device="nobody"))
        assert field.results[-1].status is WriteStatus.REFUSED


async def test_a_second_connection_takes_the_place_of_the_first() -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as first, online(driver.port) as second:
        await second.is_set_up()
        await second.status("Available")
        await first.socket.wait_closed()
        assert field.present[-1] == ("charger", True, "answers")
        assert any("taken its place" in reason for _, _, reason in field.present)


async def test_only_a_known_charger_with_its_password_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_TEST_WORD", WORD)
    monkeypatch.setenv("LAMINA_TEST_HEX", "00ff10")
    field = Field()
    bindings = [
        charger(address={"password_env": "LAMINA_TEST_WORD"}),
        charger("hex", address={"charge_point": "CP2", "password_env": "LAMINA_TEST_HEX"}),
        charger("unset", address={"charge_point": "CP3", "password_env": "LAMINA_TEST_UNSET"}),
    ]
    with structlog.testing.capture_logs() as logs:
        async with running(field, *bindings) as driver:
            for identity, headers, code in (
                ("STRANGER", {}, 404),
                ("STRANGER", {}, 404),
                ("CP1", {}, 401),
                ("CP1", authorization("CP1", "wrong"), 401),
                ("CP1", authorization("CP2", WORD), 401),
                ("CP1", {"Authorization": "Basic no base64!"}, 401),
                ("CP1", {"Authorization": "Bearer x"}, 401),
                ("CP3", authorization("CP3", ""), 401),
            ):
                with pytest.raises(InvalidStatus) as refused:
                    async with dial(driver.port, identity, headers=headers):
                        pass
                assert refused.value.response.status_code == code
            assert not any(present for _, present, _ in field.present)
            assert driver.stats.refused == 8
            async with online(driver.port, headers=authorization("CP1", WORD)):
                pass
            async with online(driver.port, "CP2", headers=authorization("CP2", b"\x00\xff\x10")):
                pass
    said = [(log["event"], log["charge_point"]) for log in logs if log["event"].startswith("charger refused")]
    assert said == [
        ("charger refused: it is not in the site file", "STRANGER"),
        ("charger refused: wrong password", "CP1"),
        ("charger refused: the environment variable LAMINA_TEST_UNSET is not set", "CP3"),
    ]


async def test_a_stranger_does_not_take_the_place_of_a_charger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_TEST_WORD", WORD)
    field = Field()
    async with (
        running(field, charger(address={"password_env": "LAMINA_TEST_WORD"})) as driver,
        online(driver.port, headers=authorization("CP1", WORD)) as device,
    ):
        await device.is_set_up()
        for _ in range(3):
            with pytest.raises(InvalidStatus):
                async with dial(driver.port, headers=authorization("CP1", "guess")):
                    pass
        assert driver.stats.refused == 3
        assert await device.beats()
        assert field.present == [("charger", True, "answers")]
        assert driver.stats.lost == 0


async def test_a_charger_that_was_cut_off_takes_over_from_its_dead_connection() -> None:
    """It calls again while its old connection hangs in a line that has gone dark, with a setpoint under way in it."""
    field = Field()
    async with running(field, charger(pace={"timeout_s": 20, "silence_s": 60})) as driver:
        wire = Wire(driver.port)
        await wire.start()
        try:
            async with online(wire.port) as first:
                await first.is_set_up()
                await first.beats()
                wire.go_dark()
                driver.write(setpoint(11_040.0, 1, life_s=60))
                driver.write(setpoint(6_900.0, 2, life_s=60))
                async with online(driver.port, boots=False) as second:
                    await field.until(lambda: any(r.sequence == 2 for r in field.results))
                    await second.until(lambda: bool(second.setpoints()))
                    assert {r.sequence: r.status for r in field.results} == {
                        1: WriteStatus.SUPERSEDED,
                        2: WriteStatus.INDETERMINATE,
                    }
                    assert second.limit() == 10.0
                    assert len(second.setpoints()) == 1
                    assert first.setpoints() == []
                    assert (driver.stats.lost, driver.stats.reconnects) == (1, 1)
        finally:
            await wire.stop()


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_TEST_WORD", WORD)
    context = make_certificate(tmp_path / "tls")
    files = {"cert_file": str(tmp_path / "tls/cert.pem"), "key_file": str(tmp_path / "tls/key.pem")}
    field = Field()
    async with running(field, charger(address={"password_env": "LAMINA_TEST_WORD", "tls": files})) as driver:
        with pytest.raises((InvalidMessage, ConnectionClosed, OSError)):
            async with dial(driver.port, headers=authorization("CP1", WORD)):
                pass
        async with online(driver.port, headers=authorization("CP1", WORD), tls=context) as device:
            await device.is_set_up()
            driver.write(setpoint(11_040.0))
            await field.until(lambda: bool(field.results))
            assert field.results[-1].status is WriteStatus.ACKNOWLEDGED
        with pytest.raises(InvalidStatus) as refused:
            async with dial(driver.port, headers=authorization("CP1", "wrong"), tls=context):
                pass
        assert refused.value.response.status_code == 401
        stranger = make_certificate(tmp_path / "stranger")
        with pytest.raises(ssl.SSLCertVerificationError):
            async with dial(driver.port, headers=authorization("CP1", WORD), tls=stranger):
                pass
        assert driver.stats.state is LinkState.UP


async def test_a_key_that_does_not_belong_to_its_certificate_is_told(tmp_path: Path) -> None:
    make_certificate(tmp_path / "tls")
    make_certificate(tmp_path / "other")
    files = {"cert_file": str(tmp_path / "tls/cert.pem"), "key_file": str(tmp_path / "other/key.pem")}
    field = Field()
    async with running(field, charger(address={"tls": files})):
        assert "key values mismatch" in field.links[-1][1]


async def test_a_certificate_or_a_port_that_cannot_be_had_is_told_and_tried_again() -> None:
    field = Field()
    files = {"cert_file": "/nowhere/cert.pem", "key_file": "/nowhere/key.pem"}
    async with running(field, charger(address={"tls": files})):
        assert "No such file" in field.links[-1][1]
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    field = Field()
    async with running(field, charger(address={"listen_port": port})) as driver:
        await field.until(field.is_lost)
        assert str(port) in field.links[-1][1]
        taken.close()
        await taken.wait_closed()
        await field.until(lambda: driver.stats.state is LinkState.UP)


@pytest.mark.parametrize("offered", [(), ("ocpp2.0.1",)])
async def test_another_protocol_is_shown_out(offered: tuple[str, ...]) -> None:
    field = Field()
    async with running(field) as driver, dial(driver.port, subprotocols=offered) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        assert field.present == []


# Nonsense

NONSENSE: dict[str, str | bytes] = {
    "no JSON": "power!",
    "a number too long": "[" + "9" * 5000 + "]",
    "too deep": "[" * 100_000,
    "no list": '{"a": 1}',
    "an empty list": "[]",
    "another type": '[9, "a", "Heartbeat", {}]',
    "no payload": '[2, "a", "Heartbeat"]',
    "no name": '[2, "a", ["Heartbeat"], {}]',
    "an id that is none": '[2, {}, "Heartbeat", {}]',
    "a payload that is none": '[2, "a", "Heartbeat", []]',
    "bytes": b"\x00\xff",
    "an answer nobody asked for": '[3, "a", {"status": "Accepted"}]',
    "meter values of nothing": frame("MeterValues", {}),
    "a meter value without time": frame(
        "MeterValues", {"connectorId": 1, "meterValue": [{"sampledValue": [power(9)]}]}
    ),
    "a status without a connector": frame("StatusNotification", {"status": "Charging", "errorCode": "NoError"}),
    "a status of another world": frame(
        "StatusNotification", {"connectorId": 1, "status": "Levitating", "errorCode": "NoError"}
    ),
    "a start of the wrong type": frame("StartTransaction", {"connectorId": "one"}),
    "a meter beyond all numbers": frame(
        "StartTransaction",
        {"connectorId": 1, "idTag": "T", "meterStart": 10**400, "timestamp": "2024-01-01T00:00:00Z"},
    ),
}


@pytest.mark.parametrize("case", NONSENSE)
async def test_nonsense_is_no_value_and_the_charger_goes_on(case: str) -> None:
    field = Field()
    async with running(field) as driver, online(driver.port) as device:
        await device.socket.send(NONSENSE[case])
        assert await device.beats()
        assert all(sample.quality is Quality.BAD for sample in field.points.get("charger", {}).values())
        assert driver.stats.lost == 0


async def test_what_is_no_request_is_answered_so_and_told_once() -> None:
    field = Field()
    with structlog.testing.capture_logs() as logs:
        async with running(field) as driver, dial(driver.port) as socket:
            for action, payload, code in (
                ("StatusNotification", {"connectorId": 1}, "OccurenceConstraintViolation"),
                ("StatusNotification", {"connectorId": "1"}, "TypeConstraintViolation"),
                ("ReserveNow", {}, "NotImplemented"),
            ):
                sent = frame(action, payload)
                await socket.send(sent)
                while (answer := json.loads(await socket.recv()))[0] == 2:
                    pass
                assert answer[:3] == [4, json.loads(sent)[1], code] or answer[2].endswith("ConstraintViolation")
    assert len([log for log in logs if log["event"] == "charger talks nonsense"]) == 1


async def test_an_oversized_frame_costs_the_connection_and_no_more() -> None:
    field = Field()
    async with running(field) as driver:
        async with online(driver.port) as device:
            await device.socket.send("[" + " " * LARGEST_MESSAGE + "]")
            await field.until(lambda: field.present[-1][1] is False)
        async with online(driver.port):
            assert field.present[-1][1] is True


async def test_bytes_that_are_no_websocket_harm_nobody() -> None:
    field = Field()
    rng = random.Random(7)
    async with running(field) as driver, online(driver.port) as device:
        for size in (1, 100, 5000):
            reader, writer = await asyncio.open_connection("127.0.0.1", driver.port)
            writer.write(rng.randbytes(size) + b"\r\n\r\n")
            with contextlib.suppress(OSError):
                await writer.drain()
                await asyncio.wait_for(reader.read(), 10)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        transport = device.socket.transport
        transport.write(rng.randbytes(500))  # in the midst of a conversation
        await field.until(lambda: field.present[-1][1] is False)
        assert driver.stats.state is LinkState.UP


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
SAMPLED = st.fixed_dictionaries(
    {},
    optional={
        "value": st.text(max_size=12) | JSON,
        "measurand": st.sampled_from(["Power.Active.Import", "Voltage"]) | JSON,
        "unit": st.sampled_from(["W", "kW", "V"]) | JSON,
        "phase": st.sampled_from(["L1", "L1-N"]) | JSON,
        "location": JSON,
        "format": JSON,
    },
)


@given(st.text(max_size=200) | st.binary(max_size=200) | st.lists(JSON, max_size=5).map(json.dumps))
@settings(max_examples=300, deadline=None)
def test_any_frame_is_a_message_or_none(data: str | bytes) -> None:
    message = decode(data)
    if isinstance(message, Request):
        objection(message)


@given(
    st.sampled_from(["BootNotification", "StatusNotification", "StartTransaction", "StopTransaction", "MeterValues"]),
    st.dictionaries(st.sampled_from(["connectorId", "status", "idTag", "meterValue", "timestamp"]), JSON),
)
@settings(max_examples=200, deadline=None)
def test_any_payload_is_taken_or_refused(action: str, payload: dict[str, Any]) -> None:
    objection(Request("1", action, payload))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"timestamp": JSON | st.just("1970-01-01T00:00:00Z"), "sampledValue": JSON | st.lists(SAMPLED, max_size=3)}
        )
        | JSON,
        max_size=3,
    )
    | JSON
)
@settings(max_examples=300, deadline=None)
def test_any_meter_value_is_read_or_left(payload: Any) -> None:
    for metering in meterings(payload, ChargerClock(lambda: 0.0, 10.0)):
        for reading in metering.readings if metering is not None else ():
            assert reading.value is None or abs(reading.value) < float("inf")


@given(st.floats(0, 400_000), st.floats(1, 86_400), st.floats(1.7e9, 2e9))
def test_a_limit_is_never_above_what_was_asked_and_has_one_decimal(value: float, life_s: float, now: float) -> None:
    payload = setpoint_profile(1, Limit("W", value, 3), 1, Life(now, life_s), None)
    limit = payload["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"]
    assert value - 0.1 < limit <= value + 1e-6
    assert round(limit, 1) == limit


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=80) | st.lists(JSON, max_size=5).map(json.dumps), max_size=20))
def test_a_charger_that_babbles_is_served_on(frames: list[str]) -> None:
    async def story() -> None:
        field = Field()
        async with running(field) as driver, dial(driver.port) as socket:
            for text in frames:
                await socket.send(text)
            await socket.send(frame("Heartbeat", {}))
            await field.until(lambda: bool(field.present) and field.present[-1][1])
            assert all(sample.quality is Quality.BAD for sample in field.points.get("charger", {}).values())

    asyncio.run(story())


# In the site file


def site_with(tmp_path: Path, *addresses: dict[str, Any], profile: str = "ocpp16_charger") -> list[str]:
    """What is found in the demo site with such chargers in it."""
    raw: dict[str, Any] = yaml.safe_load(Path("config/sites/demo.yaml").read_text())
    for at, address in enumerate(addresses):
        raw["devices"][f"ocpp_{at}"] = {
            "profile": profile,
            "address": {"driver": "ocpp", "listen_port": 9000, "charge_point": "CP1"} | address,
            "rating_w": 11_000,
        }
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(raw))
    return [f"{finding.severity} {finding}" for finding in check_site(path) if "ocpp_" in str(finding)]


def test_chargers_that_share_a_port_agree_on_it(tmp_path: Path) -> None:
    word = {"password_env": "WORD"}
    tls = {"tls": {"cert_file": "a.pem", "key_file": "b.pem"}}
    assert site_with(tmp_path, word, word | {"connector": 2}, word | {"charge_point": "CP2"}) == []
    (same,) = site_with(tmp_path, word, word)
    assert "the same address as device 'ocpp_0'" in same
    (other,) = site_with(tmp_path, word, word | {"charge_point": "CP2"} | tls)
    assert "address.tls: is not that of device 'ocpp_0' at the same listener" in other
    (third,) = site_with(tmp_path, word, {"password_env": "OTHER", "connector": 2})
    assert "at the same charge point" in third
    (warned,) = site_with(tmp_path, {})
    assert warned.startswith("warning")
    assert "whoever reaches the port" in warned
    assert site_with(tmp_path, {"listen_host": "127.0.0.1"}) == []
    (wrong,) = site_with(tmp_path, word | {"charge_point": "a/b"})
    assert "charge_point" in wrong
    assert any("does not speak mqtt" in found for found in site_with(tmp_path, word, profile="goe_charger"))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("points", "power_w", "ocpp"), {"measurand": "Power"}, "Energy.Active.Import.Register"),
        (("points", "power_w", "ocpp"), {"measurand": "Voltage", "status": True}, "exactly one"),
        (("points", "power_w", "ocpp"), {"status": True, "phase": "L1"}, "is for a measurand"),
        (("points", "limit_a", "access"), "rw", "a command cannot be read"),
        (("points", "power_w", "access"), "rw", "cannot be written"),
        (("points", "charging_state", "values"), None, "a charging state is a letter"),
        (("control", "writes"), [{"point": "remote_start", "quantity": "power_w"}], "is no part of a setpoint"),
        (("control", "writes"), [{"point": "limit_a", "value": 6}], "a charging profile is sent whole"),
        (("control", "writes"), [{"point": "limit_duration_s", "quantity": "reversion_s"}], "sets no limit"),
        (("protocol",), "mqtt", "does not address points by ocpp"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(
    tmp_path: Path, place: tuple[str, ...], value: Any, words: str
) -> None:
    raw: dict[str, Any] = yaml.safe_load(PROFILE.read_text())
    inner = raw
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    path = tmp_path / "ocpp16_charger.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert words in "\n".join(str(finding) for finding in check_profile(path))


# By hand


async def test_a_charger_is_looked_at_by_hand() -> None:
    port = free_port()
    binding = charger(address={"listen_port": port}, pace={"silence_s": 1})

    async def calls(act: Callable[[Charger], Any]) -> None:
        while True:
            try:
                async with online(port) as device:
                    await act(device)
            except OSError:
                await asyncio.sleep(0.01)

    async def measures(device: Charger) -> None:
        await device.until(lambda: len(device.all("TriggerMessage")) >= 2)
        await device.status("Charging")
        await device.measures(power(5000))
        await device.socket.wait_closed()

    calling = asyncio.create_task(calls(measures))
    try:
        address = binding.address
        assert isinstance(address, OcppConnector)
        async with ocpp_inspector(binding.profile, address, time.monotonic) as inspector:
            readings = await inspector.read()
            assert inspector.identity[0] == "Vendor Model 1.2"
            assert readings["charging_state"].sample.value == "C"
            assert readings["power_w"].sample.value == 5000.0
            assert readings["voltage_v"].reason == "the charger did not send it"
            assert inspector.encoded("limit_a", 10) == "10 by limit_a"
            assert (await inspector.write("limit_a", 10)).status is WriteStatus.ACKNOWLEDGED
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    try:
        with pytest.raises(InspectionFailed, match="is the gateway running"):
            async with ocpp_inspector(binding.profile, address, time.monotonic):
                pass
    finally:
        taken.close()

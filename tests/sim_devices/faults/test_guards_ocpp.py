"""What the gateway's checks of OCPP are good for: with each of them out, its fault does harm."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from ocpp.exceptions import OCPPError
from ocpp.messages import unpack
from ocpp.routing import on
from ocpp.v16 import call_result

from config.vocabulary import WriteStatus
from drivers.ocpp import messages as messages_module
from drivers.ocpp import session as session_module
from drivers.ocpp.charge_point import ChargePoint
from drivers.ocpp.driver import OcppDriver
from drivers.ocpp.messages import Answer, Failure, Payload
from drivers.ocpp.session import Session
from drivers.writer import ConnectionBroken
from sim_devices.faults import Target, TcpFaultProxy
from sim_devices.faults.ocpp_speech import OcppUnderstanding
from sim_devices.faults.points import known_device
from sim_devices.faults.registry import OCPP
from tests.drivers.field import Field
from tests.drivers.ocpp_field import Charger, online
from tests.drivers.test_ocpp import charger, running, setpoint
from tests.sim_devices.faults.field import until
from tests.sim_devices.faults.test_ocpp_wire import site_at

LONG_S, SHORT_S = 10.0, 0.5
TIMEOUT_S = 0.4


class Bench(NamedTuple):
    """The driver, the proxy where the charger calls it, and the charger."""

    field: Field
    driver: OcppDriver
    proxy: TcpFaultProxy
    charger: Charger

    def set(self, fault: str, **options: Any) -> None:
        site, profiles = site_at(9_000)
        device = known_device(site, profiles["left"], "left")
        self.proxy.faults.set_by(fault, options, Target((OCPP,), "left", device, understood=True))

    async def came(self, condition: Callable[[], bool], wait_s: float) -> bool:
        """Whether the charger was asked for, or the driver told, something within this time."""
        try:
            async with asyncio.timeout(wait_s):
                await until(condition)
        except TimeoutError:
            return False
        return True


class Rebooting(Charger):
    """A charger that forgets its profiles when it is told to boot, and says that it has."""

    @on("Reset")
    def on_reset(self, type: str) -> Any:
        self.profiles.clear()
        return call_result.Reset("Accepted")


@asynccontextmanager
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("tests.drivers.ocpp_field.Charger", Rebooting)
    field = Field()
    binding = charger("left", address={"charge_point": "CP-1"}, pace={"timeout_s": TIMEOUT_S})
    async with running(field, binding) as driver:
        site, profiles = site_at(9_000)
        understanding = OcppUnderstanding([known_device(site, profiles["left"], "left")])
        proxy = TcpFaultProxy(
            ("127.0.0.1", driver.port), protocol=OCPP, understanding=understanding, called_by_device=True
        )
        await proxy.listen()
        try:
            async with online(proxy.port, "CP-1") as device:
                await device.is_set_up()
                yield Bench(field, driver, proxy, device)
        finally:
            await proxy.close()


# What is taken out


def refusals_are_consent(patch: pytest.MonkeyPatch) -> None:
    asked = Session.call

    async def call(self: Session, action: str, payload: Payload) -> Answer | Failure:
        answer = await asked(self, action, payload)
        return Answer(answer.unique_id, {"status": "Accepted"}) if isinstance(answer, Failure) else answer

    patch.setattr(Session, "call", call)


def every_frame_is_json(patch: pytest.MonkeyPatch) -> None:
    def decode(frame: Any) -> Any:
        try:
            unpack(frame)
        except OCPPError as error:
            raise ConnectionBroken(str(error)) from error
        return messages_module.decode(frame)

    patch.setattr(session_module, "decode", decode)


def no_start_is_remembered(patch: pytest.MonkeyPatch) -> None:
    starts = ChargePoint._starts

    def anew(self: ChargePoint, payload: Payload) -> Payload:
        self._last_start = None
        return starts(self, payload)

    patch.setattr(ChargePoint, "_starts", anew)


def any_answer_is_the_one(patch: pytest.MonkeyPatch) -> None:
    received = Session.receive

    async def receive(self: Session) -> Any:
        message = await received(self)
        if isinstance(message, Answer | Failure) and self._waiting is not None and not self._waiting[1].done():
            self._waiting[1].set_result(message)
        return message

    patch.setattr(Session, "receive", receive)


def a_boot_changes_nothing(patch: pytest.MonkeyPatch) -> None:
    boots = ChargePoint._boots

    def unheard(self: ChargePoint, payload: Payload) -> Payload:
        answer = boots(self, payload)
        for connector in self._connectors.values():
            connector.is_due = False
        return answer

    patch.setattr(ChargePoint, "_boots", unheard)


# The harm


async def a_refused_limit_counts(it: Bench, wait_s: float) -> bool:
    it.set("call_error")
    it.driver.write(setpoint(11_040.0, device="left"))
    assert await it.came(lambda: bool(it.field.results), LONG_S)
    assert not it.charger.setpoints(), "the charger never heard of it"
    return it.field.results[-1].status is WriteStatus.ACKNOWLEDGED


async def garbage_costs_the_connection(it: Bench, wait_s: float) -> bool:
    it.set("malformed_json", count=1)
    with contextlib.suppress(Exception):
        await it.charger.socket.send('[2, "x", "Heartbeat", {}]')
    return await it.came(lambda: it.proxy.state()["connected"] == 0, SHORT_S)


async def a_transaction_is_another(it: Bench, wait_s: float) -> bool:
    it.set("duplicate_id", count=1)
    answer = await it.charger.starts()
    it.driver.write(setpoint(11_040.0, device="left"))

    def limited() -> list[int]:
        return [profile["transactionId"] for profile in it.charger.setpoints() if "transactionId" in profile]

    assert await it.came(lambda: bool(limited()), LONG_S)
    return not await it.came(lambda: limited()[-1] == answer.transaction_id, wait_s)


async def a_late_answer_is_taken_for_another(it: Bench, wait_s: float) -> bool:
    (point,) = it.driver.charge_points.values()
    session = point.session
    assert session is not None
    is_set_up = await it.came(lambda: len(it.charger.all("TriggerMessage")) > 1 and session._waiting is None, LONG_S)
    assert is_set_up, "else what it still asks would take the answer"
    it.set("late_result", delay_s=1.5 * TIMEOUT_S)
    assert await session.try_call("TriggerMessage", {"requestedMessage": "Heartbeat", "connectorId": 1}) is None
    it.proxy.faults.clear("late_result")
    it.charger.deaf_to = {"SetChargingProfile"}
    it.driver.write(setpoint(11_040.0, device="left"))
    assert await it.came(lambda: bool(it.field.results), LONG_S)
    return it.field.results[-1].status is WriteStatus.ACKNOWLEDGED


async def a_charger_charges_without_its_limit(it: Bench, wait_s: float) -> bool:
    it.driver.write(setpoint(11_040.0, device="left"))
    assert await it.came(lambda: bool(it.charger.setpoints()), LONG_S)
    it.set("charger_reboot")
    assert await it.came(lambda: bool(it.charger.all("Reset")) and not it.charger.profiles, LONG_S)
    before = len(it.charger.setpoints())
    await it.charger.boots()
    return not await it.came(lambda: len(it.charger.setpoints()) > before, wait_s)


class Guard(NamedTuple):
    """A fault, the check that makes it harmless, and how that is taken out."""

    fault: str
    check: str
    out: Callable[[pytest.MonkeyPatch], None]
    harm: Callable[[Bench, float], Awaitable[bool]]


OCPP_GUARDS = (
    Guard("call_error", "an error is no consent", refusals_are_consent, a_refused_limit_counts),
    Guard("malformed_json", "what is no JSON is no message", every_frame_is_json, garbage_costs_the_connection),
    Guard(
        "duplicate_id", "a start that comes again gets the number it had", no_start_is_remembered,
        a_transaction_is_another,
    ),
    Guard(
        "late_result", "an answer is of the request with its id", any_answer_is_the_one,
        a_late_answer_is_taken_for_another,
    ),
    Guard(
        "charger_reboot", "a charger that has booted is told its limit anew", a_boot_changes_nothing,
        a_charger_charges_without_its_limit,
    ),
)  # fmt: skip


@pytest.mark.parametrize("guard", OCPP_GUARDS, ids=lambda guard: guard.fault)
async def test_a_fault_of_ocpp_does_harm_only_when_its_check_is_taken_out(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(monkeypatch) as it:
        assert not await guard.harm(it, LONG_S), f"although {guard.check}"
    guard.out(monkeypatch)
    async with bench(monkeypatch) as it:
        assert await guard.harm(it, SHORT_S), f"unless {guard.check}"

"""OCPP-J frames: text to requests and answers, held against the published JSON schemas, and back.

Frame and error code names follow the OCPP-J 1.6 specification, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from ocpp.exceptions import OCPPError
from ocpp.messages import Call, CallError, CallResult, MessageType, get_validator, unpack

SUBPROTOCOL: Final = "ocpp1.6"
LARGEST_MESSAGE: Final = 256 * 1024
_LONGEST_ID: Final = 64
_LONGEST_WORDS: Final = 120

Payload: TypeAlias = Mapping[str, Any]

CHECKED: Final = (
    "Authorize",
    "BootNotification",
    "DataTransfer",
    "DiagnosticsStatusNotification",
    "FirmwareStatusNotification",
    "Heartbeat",
    "StartTransaction",
    "StatusNotification",
    "StopTransaction",
)
"""Requests of a charger that are held against their schema."""
_UNREAD: Final = {"StopTransaction": ("transactionData",)}
_CODES: Final = {
    "type": "TypeConstraintViolation",
    # The misspelling is the standard's own.
    "required": "OccurenceConstraintViolation",
}


class Request(NamedTuple):
    """A CALL."""

    unique_id: str
    action: str
    payload: Payload

    def text(self) -> str:
        """The frame."""
        return str(Call(self.unique_id, self.action, dict(self.payload)).to_json())


class Answer(NamedTuple):
    """A CALLRESULT."""

    unique_id: str
    payload: Payload

    def text(self) -> str:
        """The frame."""
        return str(CallResult(self.unique_id, dict(self.payload)).to_json())


class Failure(NamedTuple):
    """A CALLERROR: `code` is one of the standard's, `description` says more."""

    unique_id: str
    code: str
    description: str = ""

    def text(self) -> str:
        """The frame."""
        return str(CallError(self.unique_id, self.code, self.description[:_LONGEST_WORDS], {}).to_json())

    def words(self) -> str:
        """For people."""
        return f"{self.code}: {self.description}" if self.description else self.code


Message: TypeAlias = Request | Answer | Failure


def decode(frame: str | bytes) -> Message | None:
    """The message in a frame; None if there is none. Never raises."""
    if not isinstance(frame, str):
        return None  # OCPP-J is text
    try:
        found = unpack(frame)
    except (OCPPError, ValueError, TypeError, RecursionError):
        return None
    identifier = found.unique_id
    if not isinstance(identifier, str) or not 0 < len(identifier) <= _LONGEST_ID:
        return None
    if isinstance(found, CallError):
        code, words = found.error_code, found.error_description
        if not isinstance(code, str):
            return None
        return Failure(identifier, code[:_LONGEST_WORDS], words[:_LONGEST_WORDS] if isinstance(words, str) else "")
    if not isinstance(found.payload, dict):
        return None
    if isinstance(found, CallResult):
        return Answer(identifier, found.payload)
    return Request(identifier, found.action, found.payload) if isinstance(found.action, str) else None


def load_schemas() -> None:
    """Read the schemas of `CHECKED` from disk; later uses are from memory."""
    for action in CHECKED:
        get_validator(MessageType.Call, action, "1.6")


def objection(request: Request) -> Failure | None:
    """Why a known request is none: something required is missing, or of the wrong type, by its schema.

    Names and lengths beyond the schema are let pass, because chargers send them and whoever reads them looks them up.
    MeterValues is judged value by value where it is read, so that one wrong value doesn't cost the others.
    """
    if request.action == "MeterValues":
        number, values = request.payload.get("connectorId"), request.payload.get("meterValue")
        if not isinstance(number, int) or not isinstance(values, list):
            return Failure(request.unique_id, _CODES["type"], "connectorId and meterValue are asked for")
        return None
    if request.action not in CHECKED:
        return None
    unread = _UNREAD.get(request.action, ())
    payload = {key: value for key, value in request.payload.items() if key not in unread}
    errors: Iterable[Any] = get_validator(MessageType.Call, request.action, "1.6").iter_errors(payload)
    for error in errors:
        if error.validator in _CODES:
            place = ".".join(str(step) for step in error.absolute_path)
            words = f"{place}: {error.message}" if place else str(error.message)
            return Failure(request.unique_id, _CODES[error.validator], words)
    return None

"""How the account's parts are written in the store, and read back. What does not make sense is no entry."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from kata_node_agent.capacity.free import Backing
from kata_node_agent.ledger.book import Admission, Device, Origin
from kata_node_agent.ledger.decide import MAX_BYTES
from kata_node_agent.ledger.gate import Decision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_node_agent.ledger.change import Change, Note
    from kata_node_agent.ledger.recover import Body

ADMISSION = "admission/"
DEVICE = "device/"
SETTING = "setting/"
# Written to see whether there is room, and struck out at once.
PROBE = "probe"

_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Admission)
    if field.default is not dataclasses.MISSING
}
_FIELDS = tuple(field.name for field in dataclasses.fields(Admission))
_ABSENT = tuple(_DEFAULTS.get(name, dataclasses.MISSING) for name in _FIELDS)
_values = attrgetter(*_FIELDS)
_DECIDED = tuple(field.name for field in dataclasses.fields(Decision))
_decided = attrgetter(*_DECIDED)


def admission_key(sandbox: str) -> str:
    """Where an admission is kept."""
    return ADMISSION + sandbox


def device_key(index: int) -> str:
    """Where a device is kept."""
    return f"{DEVICE}{index}"


def encode_admission(admission: Admission) -> Body:
    """All of its fields that say something."""
    return {
        name: value
        for name, value, default in zip(_FIELDS, _values(admission), _ABSENT, strict=True)
        if value != default
    }


def decode_admission(key: str, body: Body) -> Admission | None:
    """The admission; ``None`` for what is none."""
    values = _DEFAULTS | body
    try:
        values["origin"] = Origin(values["origin"])
        values["backing"] = Backing(values["backing"])
        admission = Admission(**values)
    except (KeyError, TypeError, ValueError):
        return None
    amounts = (
        admission.vm_bytes,
        admission.overhead_bytes,
        admission.pod_fixed_bytes or 0,
        admission.limits_bytes or 0,
    )
    good = (
        key == admission_key(admission.sandbox)
        and all(type(amount) is int and 0 <= amount <= MAX_BYTES for amount in amounts)
        and _is_time(admission.since)
        and (admission.released is None or _is_time(admission.released))
        and all(type(text) is str for text in (admission.pod_uid, admission.pod, admission.handler))
        and all(type(flag) is bool for flag in (admission.confirmed, admission.seen, admission.lapsed))
    )
    return admission if good else None


def encode_device(device: Device) -> Body:
    """A device."""
    return {"since": device.since, "pod": device.pod}


def entries_of_devices(held: Iterable[Device], gone: Iterable[int] = ()) -> dict[str, Body | None]:
    """The store's entries of these devices; ``None`` for those that nobody holds any more."""
    entries: dict[str, Body | None] = {device_key(device.index): encode_device(device) for device in held}
    return entries | dict.fromkeys(map(device_key, gone))


def decode_device(key: str, body: Body) -> Device | None:
    """The device; ``None`` for what is none."""
    number, since, pod = key.removeprefix(DEVICE), body.get("since"), body.get("pod")
    if not (number.isascii() and number.isdigit() and len(number) < 10 and _is_time(since)):
        return None
    return Device(int(number), float(since or 0), pod) if type(pod) is str else None


def entries_of(change: Change) -> dict[str, Body | None]:
    """What a change makes of the store's entries; ``None`` for what is struck out."""
    entries: dict[str, Body | None] = {
        admission_key(one.sandbox): encode_admission(one) for one in change.put
    }
    return entries | dict.fromkeys(map(admission_key, change.drop))


def encode_note(note: Note, unix_seconds: float) -> Body:
    """A line of the history."""
    return {
        "unix_seconds": round(unix_seconds, 3),
        "what": note.what,
        "sandbox": note.sandbox,
        "pod": note.pod,
        **dict(zip(_DECIDED, _decided(note.decision), strict=True)),
    }


def _is_time(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value < 1e12

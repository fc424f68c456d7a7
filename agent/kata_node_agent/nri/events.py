"""The runtime's events by number, and which of them we ask for.

Source: github.com/containerd/nri, pkg/api/api.proto, enum Event.
"""

from __future__ import annotations

import enum
import re


class Event(enum.IntEnum):
    """Those that we know what to do with."""

    RUN_POD_SANDBOX = 1
    STOP_POD_SANDBOX = 2
    REMOVE_POD_SANDBOX = 3
    CREATE_CONTAINER = 4
    UPDATE_CONTAINER = 8
    STOP_CONTAINER = 10
    REMOVE_CONTAINER = 11
    UPDATE_POD_SANDBOX = 12


# A runtime of before this version refuses the whole plugin for a bit that it does not know.
_UPDATE_POD_SANDBOX_SINCE = (0, 10)
# Known to every runtime that has NRI 0.3 or newer: containerd 1.7, CRI-O 1.26.
_ALWAYS = tuple(event for event in Event if event is not Event.UPDATE_POD_SANDBOX)


def events_for(nri_version: str) -> int:
    """The mask for a runtime with this version of NRI (``v0.12.3``); where it is not known, what all of them know."""
    match = re.match(r"v?([0-9]{1,6})\.([0-9]{1,6})", nri_version)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    events = (*Event,) if version >= _UPDATE_POD_SANDBOX_SINCE else _ALWAYS
    return sum(1 << (event - 1) for event in events)

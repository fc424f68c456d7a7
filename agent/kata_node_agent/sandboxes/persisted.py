"""What Kata's Go runtime writes down of a sandbox, on the tmpfs that it keeps for itself. Only what /proc does not say.

Source: Kata's src/runtime/virtcontainers/persist (persist.json: HypervisorState, Config.HypervisorConfig).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

_MAX_BYTES = 1 << 20
# More MiB are no size of a VM.
_MAX_MIB = 1 << 40


@dataclass(frozen=True, slots=True)
class Persisted:
    """What is written down.

    Attributes:
        virtio_mem: whether memory is plugged into one virtio-mem device; else each step is a DIMM.
        hotplugged_bytes: what the guest was asked to have beyond its memory at boot.
    """

    virtio_mem: bool
    hotplugged_bytes: int


def read_persisted(root: HostRoot, sandbox_id: str) -> Persisted | None:
    """What is written down of a sandbox; ``None`` where nothing is, or nothing that can be understood."""
    text = root.try_read_text(_path(sandbox_id), _MAX_BYTES)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        # It is written anew in place: half of it may be there.
        return None
    state, settings = _within(document, "HypervisorState"), _within(document, "Config", "HypervisorConfig")
    mib, virtio_mem = state.get("HotpluggedMemory"), settings.get("VirtioMem")
    if type(mib) is not int or not 0 <= mib < _MAX_MIB or not isinstance(virtio_mem, bool):
        return None
    return Persisted(virtio_mem, mib << 20)


def stamp(root: HostRoot, sandbox_id: str) -> tuple[int, int, int] | None:
    """Another value when it was written anew; ``None`` while there is none."""
    # With its size, as half of it may be there at the same tick of the clock as all of it.
    try:
        status = os.stat(root.resolve(_path(sandbox_id)))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _path(sandbox_id: str) -> str:
    return f"/run/vc/sbs/{sandbox_id}/persist.json"


def _within(document: Any, *names: str) -> dict[str, Any]:
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}

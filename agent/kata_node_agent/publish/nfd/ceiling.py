"""The static number of VMs behind an extended resource: what it says, and when it may not be lowered. Pure.

NFD makes the extended resource from a feature of ours. When the feature lapses or falls, so does the node's capacity,
and a kubelet that restarts then kills running pods whose overhead no longer fits. So this file has no expiry time,
nothing but a person's command changes it, and the command refuses what would kill.
"""

from __future__ import annotations

import re

from kata_node_agent.errors import AgentError

FILE_NAME = "kata-node-agent.ceiling"
RESOURCE = "katacontainers.io/sandbox-overhead"
# More VMs than any node has memory for; beyond it a number is a mistake.
MAX_CEILING = 1_000_000

_TEXT = """\
# Written by kata-node-agent label ceiling, and changed by nothing else. It never expires, on purpose: the node's
# extended resource comes from it, and kubelet kills running pods at its next restart when that falls below their sum.
# +no-label
{resource}={ceiling}
"""
_LINE = re.compile(rf"^{re.escape(RESOURCE)}=([0-9]{{1,7}})$", re.MULTILINE)


class CeilingError(AgentError):
    """The ceiling may not be changed like this."""

    reason = "CeilingRefused"


def ceiling_text(ceiling: int) -> str:
    """The file."""
    return _TEXT.format(resource=RESOURCE, ceiling=ceiling)


def read_ceiling(text: str | None) -> int | None:
    """The number in the file; ``None`` where there is none."""
    match = _LINE.search(text or "")
    return int(match[1]) if match else None


def node_ceiling(allocatable_bytes: int, cost_of_one_bytes: int) -> int:
    """How many VMs the allocatable memory holds at most, were there nothing else on the node."""
    return allocatable_bytes // cost_of_one_bytes


def danger(present: int | None, wanted: int | None, in_use: int | None) -> str:
    """What a change may do to pods that run; empty where it does them no harm.

    Args:
        present: the ceiling now; ``None`` where none is set.
        wanted: the ceiling to be; ``None`` removes it.
        in_use: how many sandboxes run; ``None`` where that is not known.
    """
    if present is None and wanted is None:
        return ""
    if present is not None and wanted is not None and wanted >= present:
        return ""
    if in_use is None and present is None:
        return ""
    deed = f"{_number(present)} → {_number(wanted)}"
    how = f"kubelet, when it next restarts, kills running pods whose overhead of {RESOURCE} no longer fits (OutOf{RESOURCE})"
    if in_use is None:
        return f"{deed}: how many Kata pods run here is not known; {how}"
    beyond = in_use - (wanted or 0)
    if beyond <= 0:
        return ""
    return f"{deed}: {in_use} Kata sandbox{'es run' if in_use > 1 else ' runs'} here; {how}: up to {beyond} of them"


def check_change(present: int | None, wanted: int | None, in_use: int | None) -> None:
    """Refuses a change that may kill.

    Raises:
        CeilingError: says what would be killed, and what to do instead.
    """
    text = danger(present, wanted, in_use)
    if not text:
        return
    force = "--force if you accept that they are killed"
    if in_use is None:
        hint = f"run it where the node's processes can be seen, on the host or with --host-root; {force}"
        raise CeilingError(text, hint=hint, reason="CeilingUseUnknown")
    raise CeilingError(
        text, hint=f"drain the node of Kata pods, then repeat this; {force}", reason="CeilingBelowUse"
    )


def _number(ceiling: int | None) -> str:
    return "no ceiling" if ceiling is None else str(ceiling)

"""RHCOS before OpenShift 4.23: the reservation that kubelet's unit takes from an environment file.

Source: machine-config-operator: a service writes the file before kubelet starts, from the size of the node or from
/etc/node-sizing-enabled.env, and kubelet's unit passes it on as ``--system-reserved``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.nodeconfig.document import check_amounts
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.document import Value

# What was computed; before the service ran once, what it is told to write.
FILES = ("/etc/node-sizing.env", "/etc/node-sizing-enabled.env")
_UNIT = "/etc/systemd/system/kubelet.service"
_RESOURCES = {
    "SYSTEM_RESERVED_CPU": "cpu",
    "SYSTEM_RESERVED_MEMORY": "memory",
    "SYSTEM_RESERVED_ES": "ephemeral-storage",
}
_MAX_FILE_BYTES = 64 * 1024


def read_node_sizing(root: HostRoot) -> tuple[Mapping[str, Value], str] | None:
    """What kubelet will be given as ``--system-reserved`` when it starts, and the file that says so.

    Returns:
        ``None`` where kubelet's unit does not take it from there, or nothing is there to take.

    Raises:
        QuantityError: the file's amounts are none.
    """
    unit = root.try_read_text(_UNIT, _MAX_FILE_BYTES) or ""
    # Units of the first releases pass on no ephemeral storage, those from 4.23 on nothing.
    passed = {name: resource for name, resource in _RESOURCES.items() if f"${{{name}}}" in unit}
    if not passed:
        return None
    for path in FILES:
        given: dict[str, str | None] = {}
        automatic = False
        for line in (root.try_read_text(path, _MAX_FILE_BYTES) or "").splitlines():
            name, _, value = line.strip().partition("=")
            value = value.strip().strip("\"'")
            automatic = automatic or (name, value) == ("NODE_SIZING_ENABLED", "true")
            if name in passed and value:
                given[passed[name]] = printable(value, 100)
        # Automatic sizing is going to write other amounts than these.
        if given and not automatic:
            fields: dict[str, Value] = {"systemReserved": given}
            check_amounts(fields)
            return fields, path
    return None

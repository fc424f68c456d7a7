"""Which operating system the node runs, by os-release: RHCOS, and what is easily taken for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

PATHS = ("/etc/os-release", "/usr/lib/os-release")
_LINE = re.compile(r"([A-Z][A-Z0-9_]{0,63})=(.*)")


@dataclass(frozen=True, slots=True)
class OsRelease:
    """The few lines of os-release that tell systems apart; empty where a line is missing."""

    id: str
    variant_id: str = ""
    version_id: str = ""
    pretty_name: str = ""
    openshift_version: str = ""

    @property
    def family(self) -> str:
        """``rhcos``, ``rhel``, ``scos``, ``fcos`` or ``other``.

        Since OpenShift 4.19 RHCOS calls itself ``ID=rhel`` with ``VARIANT_ID=coreos``. Its siblings on CentOS
        Stream and Fedora do the like, and are neither RHCOS nor RHEL.
        """
        coreos = self.variant_id == "coreos"
        if self.id == "rhcos":
            return "rhcos"
        if self.id == "rhel":
            return "rhcos" if coreos else "rhel"
        if self.id == "scos" or (self.id == "centos" and coreos):
            return "scos"
        if self.id == "fcos" or (self.id == "fedora" and coreos):
            return "fcos"
        return "other"

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        return self.pretty_name or " ".join(part for part in (self.id, self.version_id) if part)


def parse_os_release(text: str) -> OsRelease | None:
    """The system that an os-release names, or ``None`` when it has no ID: the text is then no os-release."""
    values: dict[str, str] = {}
    for line in text.split("\n"):
        match = _LINE.fullmatch(line.strip())
        if match:
            values[match[1]] = _unquote(match[2])
    if not values.get("ID"):
        return None
    return OsRelease(
        id=values["ID"].lower(),
        variant_id=values.get("VARIANT_ID", "").lower(),
        version_id=values.get("VERSION_ID", ""),
        pretty_name=values.get("PRETTY_NAME", "") or values.get("NAME", ""),
        openshift_version=values.get("OPENSHIFT_VERSION", ""),
    )


def read_os_release(root: HostRoot) -> OsRelease | None:
    """The node's operating system, or ``None``."""
    for path in PATHS:
        text = root.try_read_text(path, 1 << 16)
        if text is not None and (found := parse_os_release(text)) is not None:
            return found
    return None


def _unquote(value: str) -> str:
    """The shell's quotes and escapes taken off, as os-release(5) allows them; at most 256 characters."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        quote, value = value[0], value[1:-1]
        if quote == '"':
            value = re.sub(r'\\(["$`\\])', r"\1", value)
    return value[:256]

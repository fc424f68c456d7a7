"""What a process says it is, by its command line. Pure; whether that is believed is another room's matter.

Sources: Kata's src/runtime/virtcontainers (qemu.go, virtiofsd.go, clh.go, fc.go) and src/runtime-rs/crates/hypervisor.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_node_agent.sandboxes.model import Vmm

Role = Literal["vmm", "virtiofsd", "shim"]

# A container runtime's ids are 64 hexadecimal digits; others choose their own. Not "." nor "..": it becomes a path.
_ID = r"(?P<id>[0-9A-Za-z_][0-9A-Za-z_.-]{0,127})"
_SANDBOX_ID = re.compile(_ID)
_NAME = re.compile(rf"(?:guest=)?sandbox-{_ID}(?:,.*)?", re.DOTALL)
# Where Kata puts what belongs to one sandbox: sockets, and the folder that virtiofsd shares.
_PLACE = re.compile(
    rf"/run/(?:vc/(?:sbs|vm|firecracker)|kata|kata-containers/shared/sandboxes)/{_ID}(?:/.*)?", re.DOTALL
)
_QEMU = re.compile(r"qemu-system-[0-9a-z_]+(?:-[0-9a-z.-]+)?|qemu-kvm|qemu-kata|kata-qemu")
# kata-deploy installs the shim also under names such as containerd-shim-kata-qemu-v2.
SHIM = re.compile(r"containerd-shim-kata(-[a-z0-9-]+)?-v2")
_ASK_FOR_ID = ("-id", "--id")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process says it is: its part in which sandbox; ``vmm`` for one that runs guests."""

    role: Role
    sandbox_id: str
    vmm: Vmm | None = None


def split_command_line(content: bytes, limit: int) -> list[str]:
    """The words of a command line as /proc has it: separated by NULs.

    What reaches `limit` was cut there: its last word may be a part of one, and is left out.
    """
    words = content.decode("utf-8", errors="replace").split("\0")
    return words[:-1] if len(words) > 1 or len(content) >= limit else words


def is_sandbox_id(text: str) -> bool:
    """Whether this may be the id of a sandbox, or of a VM of Kata's factory."""
    return _SANDBOX_ID.fullmatch(text) is not None


def claim_of(words: Sequence[str]) -> Claim | None:
    """What a command line claims; ``None`` for any other program."""
    # A program that writes its own title has all of it in the first word.
    program = words[0].partition(" ")[0].rpartition("/")[2] if words else ""
    claim: Claim | None = None
    if _QEMU.fullmatch(program):
        if match := _NAME.fullmatch(_after(words, "-name", "--name")):
            claim = Claim("vmm", match["id"], "qemu")
    elif program == "cloud-hypervisor":
        claim = _by_place(_after(words, "--api-socket").removeprefix("path="), "vmm", "cloud-hypervisor")
    elif program == "firecracker":
        claim = _by_place(_after(words, "--api-sock"), "vmm", "firecracker")
        claim = claim or _by_id(words, "vmm", "firecracker")
    elif program == "virtiofsd":
        places = (place for word in words[1:] for place in (word, word.partition("=")[2]))
        claim = next((found for place in places if (found := _by_place(place, "virtiofsd"))), None)
    elif SHIM.fullmatch(program) and words[-1] not in {"start", "delete"}:
        # Those two words are said to a shim that starts, or clears up after, the real one.
        claim = _by_id(words, "shim")
    return claim


def _after(words: Sequence[str], *flags: str) -> str:
    """The value of an option, as a word of its own or behind an equals sign; the last one counts, as for QEMU."""
    found = ""
    for place, word in enumerate(words):
        if word in flags and place + 1 < len(words):
            found = words[place + 1]
        elif word.startswith(tuple(f"{flag}=" for flag in flags)):
            found = word.partition("=")[2]
    return found


def _by_place(path: str, role: Role, vmm: Vmm | None = None) -> Claim | None:
    match = _PLACE.fullmatch(path.removeprefix("unix:"))
    return Claim(role, match["id"], vmm) if match else None


def _by_id(words: Sequence[str], role: Role, vmm: Vmm | None = None) -> Claim | None:
    match = _SANDBOX_ID.fullmatch(_after(words, *_ASK_FOR_ID))
    return Claim(role, match["id"], vmm) if match else None

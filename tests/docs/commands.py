"""The commands that the documentation shows: each indented line that begins with a program, and what is given with arguments between
backticks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.cli.group import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
OURS = "kata-node-agent"
# What a line must begin with to be a command, and not a file's content or a program's output.
PROGRAMS = frozenset(
    f"{OURS} apt apt-get bash busctl buildah butane cat chmod chown cp crictl ctr curl df dnf echo grep groupadd grpcurl "
    "grpc_health_probe grpc-health-probe getenforce head install journalctl jq kubectl ln ls make man mkdir mount mv npm oc openssl pip "
    "podman promtool prometheus ps python python3 restorecon rm rpm rpm-ostree rpmbuild runc sed semodule source ss ssh sudo "
    "sysctl systemctl systemd-analyze systemd-sysusers systemd-tmpfiles tar tee test touch umount unshare usermod".split()
)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Command:
    """One command line as it is printed, without prompt and comment."""

    where: str
    line: str

    @property
    def program(self) -> str:
        """Its first word, without folders."""
        return self.line.split()[0].rpartition("/")[2]


def documents() -> list[Path]:
    """The pages that people read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[Command]:
    """All of them, each line once a page."""
    found = [command for page in documents() for command in in_page(page.name, page.read_text())]
    return list(dict.fromkeys(found))


def in_page(name: str, text: str) -> Iterator[Command]:
    """The commands of one page."""
    for line in _joined(text):
        if line.startswith("    "):
            bare = re.sub(r"\s+#\s.*$", "", line.strip().removeprefix("$ "))
            if bare and Command(name, bare).program in PROGRAMS:
                yield Command(name, bare)
        for inline in _INLINE.findall(line):
            words = inline.split()
            ours = {*COMMANDS, "--help", "--version"}
            # With an argument at the least: else it is the name of a program.
            if len(words) > 1 and words[0] in PROGRAMS and (words[0] != OURS or words[1] in ours):
                yield Command(name, inline)


def _joined(text: str) -> Iterator[str]:
    """The lines, those that end in a backslash together with the next."""
    return iter(re.sub(r" *\\\n +", " ", text).split("\n"))


def page(name: str) -> str:
    """The text of one page of docs/."""
    return (ROOT / "docs" / name).read_text()

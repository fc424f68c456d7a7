"""Reads the Quadlet file, and makes of it what podman's generator makes: podman here may be too old to have one."""

from __future__ import annotations

import shlex
from pathlib import Path

FILE = Path(__file__).parents[2] / "systemd" / "quadlet" / "kata-node-agent.container"

# The keys of [Container] in podman-systemd.unit(5) of podman 4.4, the first with Quadlet; each with the option of podman run.
OPTIONS = {
    "AddCapability": "--cap-add",
    "ContainerName": "--name",
    "DropCapability": "--cap-drop",
    "Environment": "--env",
    "Network": "--network",
    "Volume": "--volume",
}
SWITCHES = {"ReadOnly": "--read-only", "NoNewPrivileges": "--security-opt=no-new-privileges"}
OTHERS = {"Image", "Exec", "Notify", "PodmanArgs", "SecurityLabelType", "SecurityLabelLevel"}
KEYS_OF_4_4 = {*OPTIONS, *SWITCHES, *OTHERS} | {
    "AddDevice",
    "Annotation",
    "EnvironmentFile",
    "EnvironmentHost",
    "ExposeHostPort",
    "Group",
    "Label",
    "PublishPort",
    "RemapGid",
    "RemapUid",
    "RemapUsers",
    "RunInit",
    "SeccompProfile",
    "SecurityLabelDisable",
    "SecurityLabelFileType",
    "Timezone",
    "User",
    "VolatileTmp",
}


def sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """The file as systemd reads it: sections with keys, each as often as it stands there."""
    found: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(section, []).append((key, " ".join(value.split())))
    return found


def podman_arguments(container: list[tuple[str, str]]) -> list[str]:
    """Options of podman run for the keys of [Container]; without SELinux, which only a host that has it can give."""
    arguments = []
    for key, value in container:
        if key in OPTIONS:
            words = value.split() if key in {"AddCapability", "DropCapability"} else [value]
            arguments += [f"{OPTIONS[key]}={word}" for word in words]
        elif key in SWITCHES:
            assert value == "true"
            arguments.append(SWITCHES[key])
        elif key == "PodmanArgs":
            arguments += shlex.split(value)
        else:
            assert key in OTHERS, key
    return arguments

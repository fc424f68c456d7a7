"""The flags that override settings, as data; and how the daemon's own are read without a library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# flag -> (dotted key of the configuration, what --help says)
SETTING_FLAGS = {
    "--host-root": ("host_root", "DIR", "Read the host's /proc, /sys, /dev and /etc below DIR."),
    "--device-plugin-dir": ("device_plugin.directory", "DIR", "Kubelet's device plugin folder."),
    "--run-dir": ("run_dir", "DIR", "Folder of agent.sock, lock and ledger."),
    "--state-dir": ("state_dir", "DIR", "Folder of what outlives a boot."),
    "--profile": ("eligibility.profile", "NAME", "openshift, upstream or auto."),
    "--mode": ("mode", "enforce|warn|off", "What to do with a decision against a pod."),
    "--log-level": ("log_level", "LEVEL", "debug, info, warning or error."),
}

# What a shell offers for those that take one of a few words.
SETTING_VALUES = {
    "--profile": ("openshift", "upstream", "auto"),
    "--mode": ("enforce", "warn", "off"),
    "--log-level": ("debug", "info", "warning", "error"),
}


def plain_run_flags(arguments: Sequence[str]) -> tuple[Path | None, dict[str, object]] | None:
    """The configuration file and the settings of a plain command line: known flags, each with its value.

    Returns:
        ``None`` for anything else, which is then read, or refused, in the ordinary way.
    """
    config_file: Path | None = None
    settings: dict[str, object] = {}
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag != "--config" and flag not in SETTING_FLAGS:
            return None
        if not equals:
            if not rest or rest[0].startswith("-"):
                return None
            value = rest.pop(0)
        if flag == "--config":
            config_file = Path(value)
        else:
            settings[SETTING_FLAGS[flag][0]] = value
    return config_file, settings

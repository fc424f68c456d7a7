"""Which checks there are, and which of them a profile requires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.eligibility import cpu_checks, host_checks, kvm_checks, place_checks
from kata_node_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kata_node_agent.eligibility.model import Finding
    from kata_node_agent.eligibility.processor import Processor
    from kata_node_agent.host.facts import NodeFacts

# In the order in which they are listed: what proves most comes first.
CHECKS: dict[str, Callable[[NodeFacts, Processor], Finding]] = {
    "arch": cpu_checks.check_arch,
    "kvm.device": kvm_checks.check_device,
    "kvm.open": kvm_checks.check_open,
    "kvm.api-version": kvm_checks.check_api_version,
    "kvm.create-vm": kvm_checks.check_create_vm,
    "kvm.run-guest": kvm_checks.check_run_guest,
    "cpu.long-mode": cpu_checks.check_long_mode,
    "cpu.virtualization": cpu_checks.check_virtualization,
    "cpu.sse4": cpu_checks.check_sse4,
    "cpu.firmware": cpu_checks.check_firmware,
    "cpu.consistency": cpu_checks.check_consistency,
    "cpu.bare-metal": place_checks.check_bare_metal,
    "cpu.vendor": cpu_checks.check_vendor,
    "os": host_checks.check_os,
    "module.kvm": host_checks.check_module_kvm,
    "module.kvm-vendor": host_checks.check_module_vendor,
    "vhost.net": host_checks.check_vhost_net,
    "vhost.vsock": host_checks.check_vhost_vsock,
    "sysctl.overcommit-memory": host_checks.check_overcommit_memory,
    "sysctl.panic-on-oom": host_checks.check_panic_on_oom,
    "shm.ceiling": host_checks.check_shm_ceiling,
    "kata.runtime": host_checks.check_kata_runtime,
}

_EVERYWHERE = frozenset(
    ("arch", "kvm.device", "kvm.open", "kvm.api-version", "kvm.create-vm", "kvm.run-guest", "cpu.long-mode")
)
_OPENSHIFT = frozenset(
    (
        "os",
        "cpu.virtualization",
        "cpu.sse4",
        "cpu.firmware",
        "cpu.consistency",
        "cpu.bare-metal",
        "module.kvm",
        "module.kvm-vendor",
    )
)
PROFILES = {"openshift": _EVERYWHERE | _OPENSHIFT, "upstream": _EVERYWHERE}


def required_checks(profile: str, require: Sequence[str] = (), waive: Sequence[str] = ()) -> frozenset[str]:
    """The ids that decide under a profile, with those that a person adds and takes away.

    Raises:
        ConfigError: a name that does not exist, or one that is both required and waived.
    """
    check_policy(profile=profile, require=require, waive=waive)
    return (PROFILES[profile] | frozenset(require)) - frozenset(waive)


def check_policy(*, profile: str | None, require: Sequence[str] = (), waive: Sequence[str] = ()) -> None:
    """Whether the names exist and do not contradict each other; ``profile=None`` is the automatic choice.

    Raises:
        ConfigError: says which does not, with the nearest that does.
    """
    if profile is not None and profile not in PROFILES:
        raise _no_such("profile", profile, PROFILES)
    for name in (*require, *waive):
        if name not in CHECKS:
            raise _no_such("check", name, CHECKS)
    for name in require:
        if name in waive:
            raise ConfigError(f"check {name!r} is both required and waived", hint="name it once")


def check_id(name: str) -> str:
    """The name, if it is that of a check.

    Raises:
        ConfigError: it is not.
    """
    if name not in CHECKS:
        raise _no_such("check", name, CHECKS)
    return name


def describe_requirement(name: str) -> str:
    """Which profiles require a check, in a sentence."""
    profiles = [profile for profile, required in PROFILES.items() if name in required]
    if not profiles:
        return "Required by no profile: where it does not hold, that is a warning."
    if len(profiles) == len(PROFILES):
        return "Required by every profile."
    return f"Required by profile {profiles[0]}; elsewhere a warning."


def _no_such(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    from difflib import get_close_matches

    names = list(known)
    nearest = get_close_matches(name, names, 1, 0.4)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(names)}"
    return ConfigError(f"there is no {kind} {name!r}", hint=hint)

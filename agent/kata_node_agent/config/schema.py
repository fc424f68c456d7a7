"""What can be configured: one dataclass a section, one field a setting, with its documentation beside it.

A setting's value is checked here, alone (`parse`), and together with the others (`Config.validate`). Where a value
comes from is not known here.
"""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TYPE_CHECKING

from kata_node_agent.config import values
from kata_node_agent.config.values import setting
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# Below this a number was meant in another unit: Kata's own are MiB.
_MIN_VM_BYTES = 1024 * 1024

# Kubelet's gRPC client refuses messages above 4 MiB, and ListAndWatch always sends the whole list. A device takes 26 bytes
# when all are unhealthy, the longer word: tag and length (2 bytes) before the device, its id and its health, an id like
# kata-000000 (11) and "Unhealthy" (9).
MAX_SLOTS = 4 * 1024 * 1024 // 26


class Mode(enum.StrEnum):
    """What the agent does with a decision against a pod."""

    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


def _mode(raw: object) -> Mode:
    return Mode(values.one_of(*Mode)(raw))


@dataclass(frozen=True, slots=True)
class DevicePluginConfig:
    """How the agent appears to kubelet."""

    resource: str = setting(
        "katacontainers.io/sandbox",
        values.resource,
        "extended resource under which free VMs are advertised",
        live=False,
    )
    directory: Path = setting(
        "/var/lib/kubelet/device-plugins",
        values.path,
        "kubelet's device plugin folder (on the host; not below host_root)",
        live=False,
    )
    max_slots: int = setting(1000, values.integer(0, 999_999), "never advertise more VMs than this")
    containers_only: bool = setting(
        False,
        values.boolean,
        "pods ask for the resource in a container only, no RuntimeClass has it as overhead: a VM whose pod holds no device "
        "takes no place",
    )


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """Where kubelet's settings are, and what to believe instead of them. Empty means: as kubelet has it."""

    config_file: Path | None = setting(
        "", values.optional_path, "KubeletConfiguration file; empty: the usual places, below host_root"
    )
    pod_resources_socket: Path = setting(
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        values.path,
        "kubelet's pod resources API (on the host; not below host_root)",
    )
    configz_url: str = setting(
        "",
        values.configz_url,
        "ask kubelet itself, such as https://localhost:10250/configz; empty: files and flags only",
    )
    configz_token_file: Path | None = setting(
        "", values.optional_path, "token for configz_url, below host_root"
    )
    configz_ca_file: Path | None = setting(
        "", values.optional_path, "who signed kubelet's certificate; the same"
    )
    system_reserved_memory: int | None = setting("", values.optional_amount, "memory of systemReserved")
    kube_reserved_memory: int | None = setting("", values.optional_amount, "memory of kubeReserved")
    eviction_hard_memory: str = setting(
        "", values.eviction, "evictionHard memory.available: an amount or a percentage"
    )


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What one Kata VM costs the node."""

    vm_memory: int | None = setting(
        "",
        values.optional_amount,
        "memory of a VM at boot, with its unit; empty: default_memory of Kata's settings, 2Gi where there are none",
    )
    host_overhead: int | None = setting(
        "",
        values.optional_amount,
        "VMM, virtiofsd and shim, without the VM's memory; empty: the p99 that was observed, 60Mi before that",
    )
    follow: bool = setting(
        True,
        values.boolean,
        "follow the VMs that run, their size and their cost (2 MiB of memory)",
        live=False,
    )


@dataclass(frozen=True, slots=True)
class AccountingConfig:
    """How memory is promised; docs/accounting.md has the model."""

    drain: bool = setting(False, values.boolean, "let no new VM in; those that run stay")
    share: float = setting(
        1.0,
        values.ratio(0.01, 10.0),
        "share of allocatable memory that may be promised; above 1.0 overcommits it",
    )
    margin: int = setting("256Mi", values.amount, "memory kept free beyond kubelet's eviction threshold")
    rise_seconds: int = setting(
        60, values.integer(0, 3600), "room that others left is given out after it was there for so long"
    )
    boot_grace_seconds: int = setting(
        60, values.integer(1, 3600), "an admission without a VM counts for so long"
    )
    pressure_stop: bool = setting(True, values.boolean, "let no new VM in while memory is under pressure")


@dataclass(frozen=True, slots=True)
class EligibilityConfig:
    """Which checks decide."""

    profile: str = setting(
        "auto", values.text, "openshift, upstream, or auto: openshift on RHCOS, else upstream"
    )
    require: tuple[str, ...] = setting([], values.names, "ids of checks to require beyond the profile")
    waive: tuple[str, ...] = setting([], values.names, "ids of checks that shall not decide")
    interval_seconds: int = setting(60, values.integer(1, 3600), "how often the node is checked again")

    @property
    def chosen_profile(self) -> str | None:
        """The profile by name; ``None`` where the operating system chooses it."""
        return None if self.profile == "auto" else self.profile


@dataclass(frozen=True, slots=True)
class NfdConfig:
    """What Node Feature Discovery's worker reads of us, if it is installed."""

    publish: bool = setting(True, values.boolean, "keep our features file, where NFD's folder exists")
    features_dir: Path = setting(
        "/etc/kubernetes/node-feature-discovery/features.d",
        values.path,
        "folder of NFD's local source, below host_root",
    )
    label: str = setting(
        "auto",
        values.one_of("auto", "always", "never"),
        "feature.node.kubernetes.io/runtime.kata=true when eligible; auto: in profile openshift only",
    )
    expiry_seconds: int = setting(
        3600,
        values.integer(60, 86400),
        "what we published lapses so long after the agent's last sign of life",
    )


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """Where hints to look again come from, beside the interval and changes in /dev."""

    kernel: bool = setting(True, values.boolean, "follow kernel events (2 MiB of memory)", live=False)


@dataclass(frozen=True, slots=True)
class NriConfig:
    """Where the container runtime asks us before it creates VMs and containers."""

    enabled: bool = setting(True, values.boolean, "answer the runtime, where its socket exists", live=False)
    socket: Path = setting(
        "/var/run/nri/nri.sock",
        values.path,
        "the runtime's NRI socket (on the host; not below host_root)",
        live=False,
    )
    handlers: tuple[str, ...] = setting(
        [],
        values.names,
        "runtime handlers that are Kata's; empty: as the runtime's configuration says, and by name",
    )
    when_undecided: str = setting(
        "allow",
        values.one_of("allow", "refuse"),
        "a VM on which the account does not decide in time: let it through and count it, or refuse it",
    )


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Health for probes that cannot reach a Unix socket."""

    tcp_address: str = setting(
        "", values.address, "address for grpc.health.v1 alone, such as 127.0.0.1:9440", live=False
    )


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Metrics for Prometheus, over HTTP."""

    socket: bool = setting(True, values.boolean, "serve on metrics.sock in run_dir")
    tcp_address: str = setting(
        "", values.address, "serve on an address, too, such as 127.0.0.1:9441; empty: on none"
    )
    tls_cert: Path | None = setting(
        "", values.optional_path, "certificate of tcp_address, in PEM (the agent's file; not below host_root)"
    )
    tls_key: Path | None = setting("", values.optional_path, "its key, without a passphrase; the same")
    tls_client_ca: Path | None = setting(
        "", values.optional_path, "who signs the certificates of those that may scrape; empty: anybody may"
    )
    page: bool = setting(True, values.boolean, "answer / with a page for people, pods' names included")
    each_sandbox: bool = setting(True, values.boolean, "series of each sandbox, not only their sums")


def refuse_tiny_vm(name: str, vm_bytes: int) -> None:
    """Refuses what was written without its unit.

    Raises:
        ConfigError: no VM is so small.
    """
    if vm_bytes < _MIN_VM_BYTES:
        raise ConfigError(
            f"{name} {vm_bytes}: no VM boots with so few bytes",
            hint="write the unit: Kata's default_memory = 2048 is 2048Mi here",
        )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Paths are the host's; see each section."""

    mode: Mode = setting("enforce", _mode, "enforce; warn: decide and record, refuse nothing; off")
    log_level: str = setting(
        "info", values.one_of("debug", "info", "warning", "error"), "least severe message that is logged"
    )
    drop_capabilities: bool = setting(
        False,
        values.boolean,
        "give up all capabilities but SYS_PTRACE at the start: for a container that is privileged",
        live=False,
    )
    host_root: Path = setting(
        "/", values.path, "folder where the host's /proc, /sys, /dev and /etc are found", live=False
    )
    run_dir: Path = setting(
        "/run/kata-node-agent", values.path, "socket, lock and ledger; must not outlive a boot", live=False
    )
    state_dir: Path = setting("/var/lib/kata-node-agent", values.path, "what outlives a boot", live=False)
    device_plugin: DevicePluginConfig = field(default_factory=DevicePluginConfig)
    kubelet: KubeletConfig = field(default_factory=KubeletConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    accounting: AccountingConfig = field(default_factory=AccountingConfig)
    eligibility: EligibilityConfig = field(default_factory=EligibilityConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    nfd: NfdConfig = field(default_factory=NfdConfig)
    nri: NriConfig = field(default_factory=NriConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    health: HealthConfig = field(default_factory=HealthConfig)

    def validate(self) -> None:
        """What only shows when the settings are seen together.

        Raises:
            ConfigError: they cannot work together; the message names the key.
        """
        vm_bytes = self.sandbox.vm_memory
        if vm_bytes:
            refuse_tiny_vm("sandbox.vm_memory =", vm_bytes)
        if vm_bytes == self.sandbox.host_overhead == 0:
            raise ConfigError(
                "sandbox.vm_memory and sandbox.host_overhead are both 0",
                hint="a VM that costs nothing cannot be counted",
            )
        metrics = self.metrics
        if (metrics.tls_cert is None) != (metrics.tls_key is None):
            raise ConfigError(
                "metrics.tls_cert and metrics.tls_key: only one of them is set", hint="TLS needs both files"
            )
        if metrics.tls_client_ca is not None and metrics.tls_cert is None:
            raise ConfigError(
                "metrics.tls_client_ca is set, and no certificate of ours",
                hint="without TLS nobody shows a certificate: set metrics.tls_cert and metrics.tls_key",
            )
        if self.device_plugin.max_slots > MAX_SLOTS:
            raise ConfigError(
                f"device_plugin.max_slots = {self.device_plugin.max_slots}: kubelet takes at most 4 MiB a message, "
                f"which holds {MAX_SLOTS} devices",
                hint=f"set device_plugin.max_slots to {MAX_SLOTS} or less",
            )

"""Pages of the system around KVM."""

from __future__ import annotations

from kata_node_agent.eligibility.page import Page, Reason

_RHCOS = "use RHCOS workers for OpenShift sandboxed containers; the profile upstream does not ask for it"
_LOADED = Reason("ModuleLoaded", "It is loaded.")
_BUILT_IN = Reason("ModuleBuiltIn", "It is built into the kernel.")


def _device(name: str, module: str) -> tuple[Reason, ...]:
    return (
        Reason("DevicePresent", f"/dev/{name} is there."),
        Reason(
            "DeviceMissing",
            f"There is no /dev/{name}.",
            f"modprobe {module}; for every boot: echo {module} > /etc/modules-load.d/{module}.conf",
        ),
        Reason(
            "DeviceNotCharacter",
            "Something else lies at its path.",
            f"remove /dev/{name} and load {module} anew",
        ),
    )


PAGES = (
    Page(
        "os",
        "Does the node run RHCOS?",
        "/etc/os-release: ID=rhcos, or ID=rhel with VARIANT_ID=coreos as since OpenShift 4.19.",
        (
            Reason("Rhcos", "It does."),
            Reason(
                "RhelNotSupported", "A RHEL worker: not supported by OpenShift sandboxed containers.", _RHCOS
            ),
            Reason("ScosNotRhcos", "CentOS Stream CoreOS (of OKD) is a sibling, not RHCOS.", _RHCOS),
            Reason("FcosNotRhcos", "Fedora CoreOS is a sibling, not RHCOS.", _RHCOS),
            Reason("NotRhcos", "Another system.", _RHCOS),
        ),
    ),
    Page(
        "module.kvm",
        "Has the kernel KVM?",
        "/sys/module, and modules.builtin of the running release. Nothing is loaded.",
        (
            _LOADED,
            _BUILT_IN,
            Reason(
                "KvmModuleMissing",
                "It is neither loaded nor built in.",
                "modprobe kvm_intel or kvm_amd, and read dmesg",
            ),
        ),
    ),
    Page(
        "module.kvm-vendor",
        "Has the kernel the half of KVM that drives this processor?",
        "kvm_intel with VMX, kvm_amd with SVM, kvm_hv on POWER; loaded or built in. The evidence shows "
        "its parameters "
        "(nested, ept, npt, unrestricted_guest, vgif, sev …).",
        (
            _LOADED,
            _BUILT_IN,
            Reason(
                "KvmVendorModuleMissing",
                "It is neither loaded nor built in; it refuses to load where firmware switched the "
                "extension off.",
                "modprobe kvm_intel or kvm_amd, and read dmesg",
            ),
            Reason(
                "KvmVendorModuleOther",
                "KVM is driven by another module than this processor's. Guests may run; the documented "
                "rule does not hold.",
                "nothing, if a guest runs (kvm.run-guest) and the profile is upstream; else use a stock "
                "kernel on bare metal",
            ),
        ),
    ),
    Page(
        "vhost.net",
        "Is /dev/vhost-net there, for the network of VMs?",
        "Looked at, not opened. The evidence tells of /dev/net/tun as well.",
        _device("vhost-net", "vhost_net"),
    ),
    Page(
        "vhost.vsock",
        "Is /dev/vhost-vsock there, for the connection to the agent in the guest?",
        "Looked at, not opened.",
        _device("vhost-vsock", "vhost_vsock"),
    ),
    Page(
        "sysctl.overcommit-memory",
        "Is vm.overcommit_memory 1, as kubelet sets it?",
        "/proc/sys/vm/overcommit_memory.",
        (
            Reason("OvercommitAlways", "It is."),
            Reason(
                "OvercommitRestricted",
                "With 0 or 2 the kernel may refuse a VM's memory although it fits.",
                "sysctl -w vm.overcommit_memory=1; kubelet sets it unless protectKernelDefaults forbids that",
            ),
        ),
    ),
    Page(
        "sysctl.panic-on-oom",
        "Is vm.panic_on_oom 0, as kubelet sets it?",
        "/proc/sys/vm/panic_on_oom.",
        (
            Reason("PanicOnOomOff", "It is."),
            Reason(
                "PanicOnOomOn",
                "When memory runs out the node panics, with all its VMs.",
                "sysctl -w vm.panic_on_oom=0; kubelet sets it unless protectKernelDefaults forbids that",
            ),
        ),
    ),
    Page(
        "shm.ceiling",
        "Does /dev/shm hold as much guest memory as the node hands out?",
        "With virtio-fs guest memory lives in that tmpfs, half of the memory by default. Past it a new "
        "VM fails to boot "
        "and a running one is killed (SIGBUS). Compared with the allocatable memory, or with all of it "
        "where kubelet's "
        "settings are not known.",
        (
            Reason("SharedMemoryHoldsAll", "It does."),
            Reason(
                "SharedMemoryBelowMemory",
                "Fewer VMs fit than the memory suggests.",
                "remount it larger (mount -o remount,size=100% /dev/shm, and a systemd unit for it), or "
                "count with less",
            ),
        ),
    ),
    Page(
        "kata.runtime",
        "Is Kata Containers installed, with a handler that leads to it?",
        "The shim in its usual places, a configuration.toml, and a handler in CRI-O's or containerd's "
        "configuration. "
        "Never required: the operator installs Kata after the node was found eligible.",
        (
            Reason("KataFound", "It is."),
            Reason(
                "KataNotInstalled",
                "No containerd-shim-kata-v2 was found.",
                "on OpenShift create a KataConfig; elsewhere install Kata Containers (kata-deploy)",
            ),
            Reason(
                "KataConfigurationMissing",
                "The shim is there, its configuration is not.",
                "install the configuration to /etc/kata-containers/configuration.toml",
            ),
            Reason(
                "KataHandlerMissing",
                "No handler leads to it, so no RuntimeClass can.",
                "add a handler to CRI-O (/etc/crio/crio.conf.d) or containerd (config.toml), and restart it",
            ),
        ),
    ),
)

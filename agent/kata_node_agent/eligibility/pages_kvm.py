"""Pages of the architecture and of the steps of KVM."""

from __future__ import annotations

from kata_node_agent.eligibility.page import Page, Reason

_LOAD = "load the vendor's module (modprobe kvm_intel or kvm_amd) and read dmesg for why it was refused"
_AS_ROOT = "run the check as root, or as a user who may read and write /dev/kvm"
_REPORT = (
    "read dmesg; a guest this small always runs, so kernel, microcode or firmware is at fault: update them"
)

_FORBIDDEN = Reason(
    "KvmIoctlForbidden",
    "The device can be opened, and may not be used: a seccomp filter or security module is in the way.",
    "run the check outside of that sandbox, or permit ioctl on /dev/kvm",
)
_SHORTAGE = Reason(
    "VmShortage",
    "Memory or descriptors ran out at this moment; that says nothing of the node's ability.",
    "free memory or raise the limits of the process, then check again",
)

PAGES = (
    Page(
        "arch",
        "Does Kata Containers exist for this architecture?",
        "Read from /proc/sys/kernel/arch, else from the shape of /proc/cpuinfo.",
        (
            Reason("ArchitectureSupported", "x86_64, aarch64, s390x or ppc64le."),
            Reason(
                "ArchitectureUnsupported",
                "Kata Containers is not built for it.",
                "use a node with an x86_64, aarch64, s390x or ppc64le kernel",
            ),
        ),
    ),
    Page(
        "kvm.device",
        "Is /dev/kvm there, and is it what it should be?",
        "Looked at, not opened: type, number, mode and owner.",
        (
            Reason("KvmDevicePresent", "A character device with the number 10:232."),
            Reason(
                "KvmDeviceMissing",
                "There is no /dev/kvm: KVM is not loaded, or the container was not given the device.",
                f"{_LOAD}; in a container pass the device in",
            ),
            Reason(
                "KvmDeviceNotCharacter",
                "Something else lies at its path.",
                "remove it and let udev make the device, or make it: mknod /dev/kvm c 10 232",
            ),
            Reason(
                "KvmDeviceWrongNumber",
                "It is another device: KVM is always 10:232.",
                "remove it and make it anew: mknod /dev/kvm c 10 232",
            ),
            Reason(
                "KvmDeviceUnreachable",
                "The folder may not be searched, or the tree has no /dev.",
                "run the check as root on the node; a recorded tree does not tell of devices without "
                "its /dev",
            ),
        ),
    ),
    Page(
        "kvm.open",
        "Can /dev/kvm be opened for reading and writing?",
        "Opened as a VMM opens it, and closed again. A refusal that concerns only us leaves the answer open.",
        (
            Reason("KvmOpened", "It can."),
            Reason(
                "KvmDeviceMissing",
                "ENOENT: there is no /dev/kvm.",
                f"{_LOAD}; in a container pass the device in",
            ),
            Reason(
                "KvmPermissionDenied", "EACCES: this user may not open it, by mode or by SELinux.", _AS_ROOT
            ),
            Reason(
                "KvmNotPermitted",
                "EPERM: the device cgroup of a container, or a sandbox, forbids it.",
                "run the check on the host, or allow the device (c 10:232 rw) to the container",
            ),
            Reason(
                "KvmNoDevice",
                "ENODEV: the device node is there and no driver answers; mostly the vendor's module is "
                "missing.",
                _LOAD,
            ),
            Reason(
                "KvmNoDriver",
                "ENXIO: the device node is a leftover; nothing in the kernel is behind it.",
                _LOAD,
            ),
            Reason(
                "KvmBusy",
                "EBUSY: another hypervisor has taken the processor's extension.",
                "stop the other hypervisor (VirtualBox, VMware, …) and unload its modules",
            ),
            Reason(
                "KvmOpenShortage",
                "Memory or descriptors ran out at this moment; that says nothing of the node's ability.",
                "free memory or raise the limits of the process, then check again",
            ),
            Reason(
                "KvmDeviceNotCharacter",
                "Something else lies at its path.",
                "make the device: mknod /dev/kvm c 10 232",
            ),
            Reason(
                "KvmDeviceWrongNumber",
                "Another device lies at its path; it was not opened.",
                "remove it and make it anew: mknod /dev/kvm c 10 232",
            ),
            Reason(
                "KvmOpenFailed", "Another error, named in the message.", "read dmesg for what the kernel says"
            ),
        ),
    ),
    Page(
        "kvm.api-version",
        "Does KVM speak API version 12, with the capabilities that VMMs build on?",
        "Asked of the opened device. Every Linux since 2.6.22 has version 12.",
        (
            Reason("KvmApiVersion12", "It does."),
            Reason(
                "KvmApiVersionOther",
                "It has another version; no VMM of today can use it.",
                "use a mainline kernel's KVM",
            ),
            Reason(
                "KvmCapabilityMissing",
                "A capability is missing that QEMU, Cloud Hypervisor and Firecracker need.",
                "use a kernel whose KVM is built with interrupt controller and event descriptors",
            ),
            Reason(
                "KvmNotAnswering",
                "What was opened does not answer as KVM does.",
                "make the device anew: mknod /dev/kvm c 10 232",
            ),
            _FORBIDDEN,
        ),
    ),
    Page(
        "kvm.create-vm",
        "Does KVM make a VM?",
        "An empty VM is made and closed again.",
        (
            Reason("VmCreated", "It does."),
            Reason(
                "VmHardwareBusy",
                "EBUSY: another hypervisor has taken the processor's extension.",
                "stop the other hypervisor (VirtualBox, VMware, …) and unload its modules",
            ),
            Reason(
                "VmCreationFailed",
                "The kernel refused, with the error in the message.",
                "read dmesg; see whether firmware switched virtualization off on some CPUs",
            ),
            _SHORTAGE,
            _FORBIDDEN,
        ),
    ),
    Page(
        "kvm.run-guest",
        "Does a guest really run?",
        "A few instructions run on a virtual CPU and compute a value nobody knows beforehand; the value "
        "is compared. "
        "The run is bounded in time, so a guest that loops is an answer too. It beats every flag.",
        (
            Reason("GuestRan", "It does, and computed the right value."),
            Reason("GuestMemoryRefused", "KVM did not take the VM's memory.", _REPORT),
            Reason("VcpuNotCreated", "KVM made no virtual CPU.", _REPORT),
            Reason("VcpuNotMapped", "The virtual CPU's state could not be mapped.", _REPORT),
            Reason("VcpuRegistersRefused", "KVM did not take the virtual CPU's registers.", _REPORT),
            Reason(
                "GuestRunFailed", "KVM refused to enter the guest, with the error in the message.", _REPORT
            ),
            Reason("GuestTimedOut", "The guest did not end in time and was stopped.", _REPORT),
            Reason("GuestUnexpectedExit", "The guest ended in a way that its program cannot cause.", _REPORT),
            Reason("GuestGaveNoValue", "The guest halted without giving a value.", _REPORT),
            Reason(
                "GuestWrongValue", "The guest computed a wrong value: VMs cannot be trusted here.", _REPORT
            ),
            Reason(
                "NoGuestForArchitecture",
                "There is no test guest for this architecture; a VM was made all the same.",
            ),
            _SHORTAGE,
            _FORBIDDEN,
        ),
    ),
)

"""Pages of the processors, and of where the node runs."""

from __future__ import annotations

from kata_node_agent.eligibility.page import Page, Reason

PAGES = (
    Page(
        "cpu.long-mode",
        "Can x86 processors run 64-bit guests?",
        "CPUID 0x80000001, or the kernel's flag lm.",
        (
            Reason("LongModePresent", "They can."),
            Reason(
                "LongModeMissing",
                "They run 32-bit code only; no guest kernel of Kata does.",
                "use a 64-bit processor",
            ),
        ),
    ),
    Page(
        "cpu.virtualization",
        "Have the processors an extension for virtualization?",
        "VMX or SVM by CPUID of every online CPU; in a recorded tree by the kernel's flags, where they "
        "show it. "
        "s390x has SIE; on aarch64 and ppc64le KVM has to tell. The evidence names confidential "
        "computing (SEV, "
        "SEV-ES, SEV-SNP, TDX) where the node offers it.",
        (
            Reason("VirtualizationSupported", "They have."),
            Reason(
                "VirtualizationProvenByKvm",
                "There is no bit to look at on this architecture, and KVM made a VM.",
            ),
            Reason(
                "VirtualizationMissing",
                "They have none, or a hypervisor below hides it.",
                "use a bare metal node; in a VM nested virtualization would have to be enabled, which "
                "is not supported",
            ),
            Reason(
                "VirtualizationOnSomeCpus",
                "Some CPUs have it and others do not.",
                "see the firmware's settings, update firmware and microcode, or take those CPUs offline",
            ),
        ),
    ),
    Page(
        "cpu.sse4",
        "Have x86 processors SSE4.1?",
        "CPUID leaf 1. Node Feature Discovery calls it SSE4, and the documented rule asks for it; "
        "SSE4.2 is shown beside it.",
        (
            Reason("Sse4Present", "They have."),
            Reason(
                "Sse4Missing",
                "They have not.",
                "use a processor of 2008 or later (Intel) or 2011 or later (AMD)",
            ),
        ),
    ),
    Page(
        "cpu.firmware",
        "Is what the processors have switched on?",
        "CPUID says what the processor has. Whether firmware switched it off is said by the lock "
        "register (MSR 0x3A "
        "or 0xC0010114, where /dev/cpu/N/msr can be read), by KVM's success through the vendor's "
        "module, and by the "
        "kernel's flag: kernels since 5.6 (vmx) and 6.7 (svm) drop it when firmware switched it off.",
        (
            Reason("VirtualizationEnabled", "It is on."),
            Reason(
                "VirtualizationDisabledByFirmware",
                "The processor has it, and firmware switched it off (or the kernel was told to hide it "
                "by clearcpuid=).",
                "enable Intel VT-x or AMD SVM in the firmware setup and switch the machine off and on",
            ),
            Reason(
                "FirmwareUnproven",
                "The flag is there, but this kernel keeps it when firmware switched the extension off.",
                "run the check as root with KVM loaded, or load the msr module (modprobe msr)",
            ),
            Reason("NothingToEnable", "The processors have no extension that could be switched off."),
        ),
    ),
    Page(
        "cpu.consistency",
        "Have all CPUs the same abilities?",
        "CPUID of every online CPU, each read on that CPU; for those that we may not run on, the "
        "kernel's flags.",
        (
            Reason("CpusAlike", "They have."),
            Reason(
                "CpusDiffer",
                "A VM that moves to another CPU would find other abilities.",
                "see the firmware's settings of each socket, and update firmware and microcode",
            ),
            Reason(
                "CpusNotAllSeen",
                "We may not run on some CPUs, and the kernel does not describe them.",
                "run the check without a CPU set, on the host",
            ),
        ),
    ),
    Page(
        "cpu.bare-metal",
        "Is this bare metal, of a kind that is supported?",
        "The hypervisor bit and signature of CPUID, /sys/hypervisor, and the firmware's names (DMI); on "
        "s390x "
        "/proc/sysinfo, on ppc64le the platform and the device tree. On Amazon EC2 the .metal types are "
        "bare metal.",
        (
            Reason("BareMetal", "No hypervisor below; a logical partition of s390x counts as that."),
            Reason(
                "NestedVirtualization",
                "The node is a VM itself, so its VMs would be nested. They may work, slowly; they are "
                "not supported.",
                "use a bare metal node; on AWS a .metal instance type",
            ),
            Reason(
                "UnsupportedCloudBareMetal",
                "Bare metal of a cloud other than AWS.",
                "use on-premises bare metal or an AWS .metal instance; elsewhere VMs may work, without "
                "support",
            ),
            Reason("LogicalPartition", "A partition of PowerVM is no bare metal.", "use a PowerNV machine"),
        ),
    ),
    Page(
        "cpu.vendor",
        "Is it a processor whose virtualization KVM drives?",
        "CPUID leaf 0, and the brand that the processor gives itself.",
        (
            Reason("VendorKnown", "Intel, AMD, Hygon, Centaur or Zhaoxin."),
            Reason(
                "VendorUnknown",
                "Another vendor; the message says what the processor offers.",
                "nothing, if a guest runs (kvm.run-guest)",
            ),
        ),
    ),
)

/* Names of the numbers that a probe reports. */
#include "kvm_names.h"
#include "node_agent.h"

#include <linux/kvm.h>
#include <stddef.h>

#define LENGTH(array) (int)(sizeof(array) / sizeof *(array))

static const char *const step_names[] = {
    [KNA_STEP_OPEN] = "open",
    [KNA_STEP_DEVICE] = "device",
    [KNA_STEP_API_VERSION] = "api-version",
    [KNA_STEP_CREATE_VM] = "create-vm",
    [KNA_STEP_MEMORY] = "memory",
    [KNA_STEP_CREATE_VCPU] = "create-vcpu",
    [KNA_STEP_MMAP] = "mmap",
    [KNA_STEP_REGISTERS] = "registers",
    [KNA_STEP_RUN] = "run",
    [KNA_STEP_VALUE] = "value",
    [KNA_STEP_DONE] = "done",
};

/*
 * What Kata's VMMs build on: guest memory (and how it follows the host's), limits, interrupts without a detour
 * through the VMM, an end to KVM_RUN without a signal; and what confidential VMs need.
 */
const struct capability capabilities[KNA_CAPABILITIES] = {
    {"user-memory", KVM_CAP_USER_MEMORY},
    {"sync-mmu", KVM_CAP_SYNC_MMU},
    {"readonly-mem", KVM_CAP_READONLY_MEM},
    {"nr-memslots", KVM_CAP_NR_MEMSLOTS},
    {"nr-vcpus", KVM_CAP_NR_VCPUS},
    {"max-vcpus", KVM_CAP_MAX_VCPUS},
    {"max-vcpu-id", KVM_CAP_MAX_VCPU_ID},
    {"irqchip", KVM_CAP_IRQCHIP},
    {"irqfd", KVM_CAP_IRQFD},
    {"ioeventfd", KVM_CAP_IOEVENTFD},
    {"signal-msi", KVM_CAP_SIGNAL_MSI},
    {"immediate-exit", KVM_CAP_IMMEDIATE_EXIT},
    {"mp-state", KVM_CAP_MP_STATE},
    {"vm-types", 235}, /* KVM_CAP_VM_TYPES; headers have it since Linux 6.8 */
};

static const char *const exit_names[] = {
#define NAMED(name) [name] = #name
    NAMED(KVM_EXIT_UNKNOWN),
    NAMED(KVM_EXIT_EXCEPTION),
    NAMED(KVM_EXIT_IO),
    NAMED(KVM_EXIT_HYPERCALL),
    NAMED(KVM_EXIT_DEBUG),
    NAMED(KVM_EXIT_HLT),
    NAMED(KVM_EXIT_MMIO),
    NAMED(KVM_EXIT_IRQ_WINDOW_OPEN),
    NAMED(KVM_EXIT_SHUTDOWN),
    NAMED(KVM_EXIT_FAIL_ENTRY),
    NAMED(KVM_EXIT_INTR),
    NAMED(KVM_EXIT_SET_TPR),
    NAMED(KVM_EXIT_TPR_ACCESS),
    NAMED(KVM_EXIT_S390_SIEIC),
    NAMED(KVM_EXIT_S390_RESET),
    NAMED(KVM_EXIT_DCR),
    NAMED(KVM_EXIT_NMI),
    NAMED(KVM_EXIT_INTERNAL_ERROR),
    NAMED(KVM_EXIT_OSI),
    NAMED(KVM_EXIT_PAPR_HCALL),
    NAMED(KVM_EXIT_S390_UCONTROL),
    NAMED(KVM_EXIT_WATCHDOG),
    NAMED(KVM_EXIT_S390_TSCH),
    NAMED(KVM_EXIT_EPR),
    NAMED(KVM_EXIT_SYSTEM_EVENT),
    NAMED(KVM_EXIT_S390_STSI),
    NAMED(KVM_EXIT_IOAPIC_EOI),
    NAMED(KVM_EXIT_HYPERV),
    [39] = "KVM_EXIT_MEMORY_FAULT", /* headers have it since Linux 6.8 */
#undef NAMED
};

static const char *name_of(const char *const names[], int length, int index) {
    return index >= 0 && index < length && names[index] ? names[index] : "";
}

const char *kna_step_name(int step) {
    return name_of(step_names, LENGTH(step_names), step);
}

const char *kna_capability_name(int index) {
    return index >= 0 && index < KNA_CAPABILITIES ? capabilities[index].name : "";
}

const char *kna_exit_name(int exit_reason) {
    return name_of(exit_names, LENGTH(exit_names), exit_reason);
}

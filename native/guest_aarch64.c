/*
 * The guest on arm64: at EL1 with the MMU off, as a vCPU starts. It writes its value to an address without memory,
 * which becomes an MMIO exit, and powers the machine off through PSCI, as WFI never leaves the kernel.
 */
#include "kvm_guest.h"
#include "node_agent.h"

#if defined(__aarch64__)

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#define MMIO_VALUE 0x10000000ul
#define MMIO_NOISE 0x10000008ul

#define DEFAULT_ADDRESS_BITS 40

/* w0: state, w1: factor, w2: rounds, x3: where to write */
GUEST_PROGRAM(compute, "1: mul w0, w0, w1\n"
                       "   add w0, w0, w2\n"
                       "   ror w0, w0, #27\n"
                       "   subs w2, w2, #1\n"
                       "   b.ne 1b\n"
                       "   str w0, [x3]\n"
                       "   mov w0, #0x0008\n" /* PSCI SYSTEM_OFF is 0x84000008 */
                       "   movk w0, #0x8400, lsl #16\n"
                       "   hvc #0\n"
                       "2: b 2b\n");
GUEST_PROGRAM(loop, "1: b 1b\n");
GUEST_PROGRAM(exits, "1: str w0, [x3, #8]\n"
                     "   b 1b\n");

const int guest_supported = 1;

unsigned long guest_vm_type(int device) {
    int bits = ioctl(device, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);

    /* The default of 40 bits is refused where the processor has fewer. */
    return bits > 0 && bits < DEFAULT_ADDRESS_BITS ? KVM_VM_TYPE_ARM_IPA_SIZE((unsigned long)bits) : 0;
}

int guest_prepare_vm(int vm) {
    (void)vm;
    return 0;
}

static int set_register(int vcpu, size_t offset, uint64_t value) {
    struct kvm_one_reg one = {.id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (offset / sizeof(uint32_t)),
                              .addr = (uintptr_t)&value};

    return ioctl(vcpu, KVM_SET_ONE_REG, &one) < 0 ? errno : 0;
}

static int set_general_register(int vcpu, size_t number, uint64_t value) {
    return set_register(vcpu, offsetof(struct kvm_regs, regs.regs) + number * sizeof(uint64_t), value);
}

int guest_start(int vm, int vcpu, struct kvm_run *run, unsigned char *memory, int program,
                const struct guest_input *input) {
    const uint64_t general[] = {input->state, input->factor, input->rounds, MMIO_VALUE};
    struct kvm_vcpu_init init;
    int error = 0;

    (void)run;
    if (program == KNA_GUEST_LOOP)
        COPY_GUEST_PROGRAM(memory, loop);
    else if (program == KNA_GUEST_EXITS)
        COPY_GUEST_PROGRAM(memory, exits);
    else
        COPY_GUEST_PROGRAM(memory, compute);
    /* The guest fetches past our data cache. */
    __builtin___clear_cache((char *)memory, (char *)memory + GUEST_MEMORY_BYTES);

    memset(&init, 0, sizeof init);
    if (ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) < 0)
        return errno;
    init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
    if (ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) < 0)
        return errno;
    for (size_t i = 0; i < sizeof general / sizeof *general && !error; i++)
        error = set_general_register(vcpu, i, general[i]);
    return error ? error : set_register(vcpu, offsetof(struct kvm_regs, regs.pc), GUEST_MEMORY_ADDRESS);
}

enum guest_event guest_exit(const struct kvm_run *run, uint32_t *value) {
    switch (run->exit_reason) {
    case KVM_EXIT_SYSTEM_EVENT:
        return run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN ? GUEST_HALTED : GUEST_WRONG;
    case KVM_EXIT_MMIO:
        if (!run->mmio.is_write || run->mmio.phys_addr != MMIO_VALUE || run->mmio.len != sizeof *value)
            return run->mmio.phys_addr == MMIO_NOISE ? GUEST_NOTHING : GUEST_WRONG;
        memcpy(value, run->mmio.data, sizeof *value);
        return GUEST_VALUE;
    case KVM_EXIT_INTR:
        return GUEST_NOTHING;
    default:
        return GUEST_WRONG;
    }
}

#endif

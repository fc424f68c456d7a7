/*
 * The guest on x86_64.
 *
 * It runs in 64-bit long mode, set up directly, and not in the real mode in which a vCPU is created: long mode is
 * what Kata's guests live in; it makes KVM translate through the guest's page tables; and every KVM runs it, whereas
 * real mode is emulated on processors without "unrestricted guest" and is the first thing that a KVM on other than
 * VMX or SVM has trouble with.
 */
#include "kvm_guest.h"
#include "node_agent.h"

#if defined(__x86_64__)

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

enum { PML4 = 0x1000, PDPT = 0x2000, PAGE_DIRECTORY = 0x3000, CODE = 0x4000 };

#define PAGE_PRESENT_WRITABLE 0x3u
#define PAGE_2MIB 0x80u

#define CR0_PE_ET_NE_PG 0x80000031u
#define CR4_PAE 0x20u
#define EFER_LME_LMA 0x500u
#define RFLAGS_NONE 0x2u /* bit 1 is always set; interrupts stay off */

/* Ports nobody has in a VM without devices. */
#define PORT_VALUE 0x3e9u
#define PORT_NOISE 0x3eau

/* Three pages below 4 GiB that Intel processors without unrestricted guest borrow; where QEMU has them, too. */
#define TSS_ADDRESS 0xfffbd000ul

/* eax: state, ebx: factor, ecx: rounds, dx: port */
GUEST_PROGRAM(compute, "1: imul %ebx, %eax\n"
                       "   add %ecx, %eax\n"
                       "   rol $5, %eax\n"
                       "   dec %ecx\n"
                       "   jnz 1b\n"
                       "   out %eax, %dx\n"
                       "   hlt\n");
GUEST_PROGRAM(loop, "1: jmp 1b\n");
GUEST_PROGRAM(exits, "   mov $0x3ea, %edx\n"
                     "1: out %eax, %dx\n"
                     "   jmp 1b\n");

const int guest_supported = 1;

unsigned long guest_vm_type(int device) {
    (void)device;
    return 0;
}

int guest_prepare_vm(int vm) {
    /* Without it, KVM on older Intel processors complains in the kernel's log. */
    return ioctl(vm, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0 ? errno : 0;
}

static void put_entry(unsigned char *memory, unsigned table, uint64_t entry) {
    memcpy(memory + table, &entry, sizeof entry);
}

static int set_long_mode(int vcpu) {
    struct kvm_segment code = {.limit = 0xffffffff, .selector = 0x8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {.limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_sregs registers;

    if (ioctl(vcpu, KVM_GET_SREGS, &registers) < 0)
        return errno;
    registers.cr3 = PML4;
    registers.cr4 = CR4_PAE;
    registers.cr0 = CR0_PE_ET_NE_PG;
    registers.efer = EFER_LME_LMA;
    registers.cs = code;
    registers.ds = registers.es = registers.fs = registers.gs = registers.ss = data;
    return ioctl(vcpu, KVM_SET_SREGS, &registers) < 0 ? errno : 0;
}

int guest_start(int vm, int vcpu, struct kvm_run *run, unsigned char *memory, int program,
                const struct guest_input *input) {
    struct kvm_regs registers = {.rip = CODE,
                                 .rflags = RFLAGS_NONE,
                                 .rax = input->state,
                                 .rbx = input->factor,
                                 .rcx = input->rounds,
                                 .rdx = PORT_VALUE};
    int error;

    (void)vm;
    (void)run;
    /* The first 2 MiB, one to one. */
    put_entry(memory, PML4, PDPT | PAGE_PRESENT_WRITABLE);
    put_entry(memory, PDPT, PAGE_DIRECTORY | PAGE_PRESENT_WRITABLE);
    put_entry(memory, PAGE_DIRECTORY, PAGE_PRESENT_WRITABLE | PAGE_2MIB);
    if (program == KNA_GUEST_LOOP)
        COPY_GUEST_PROGRAM(memory + CODE, loop);
    else if (program == KNA_GUEST_EXITS)
        COPY_GUEST_PROGRAM(memory + CODE, exits);
    else
        COPY_GUEST_PROGRAM(memory + CODE, compute);
    error = set_long_mode(vcpu);
    if (error)
        return error;
    return ioctl(vcpu, KVM_SET_REGS, &registers) < 0 ? errno : 0;
}

enum guest_event guest_exit(const struct kvm_run *run, uint32_t *value) {
    switch (run->exit_reason) {
    case KVM_EXIT_HLT:
        return GUEST_HALTED;
    case KVM_EXIT_IO:
        if (run->io.direction != KVM_EXIT_IO_OUT || run->io.port != PORT_VALUE || run->io.size != sizeof *value ||
            run->io.count != 1)
            return GUEST_NOTHING; /* as on any machine without that port */
        memcpy(value, (const unsigned char *)run + run->io.data_offset, sizeof *value);
        return GUEST_VALUE;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return GUEST_NOTHING;
    default:
        return GUEST_WRONG;
    }
}

#endif

/*
 * The guest on s390x: in supervisor state without address translation. It shows its value with a DIAGNOSE that the
 * kernel has no use for, which becomes an exit with the instruction, and ends by loading a disabled wait PSW.
 * Written from the Principles of Operation and the KVM API; no such machine has run it yet.
 *
 * Before Linux 6.5 or so KVM_CREATE_VM fails with EINVAL in a program that is not linked with --s390-pgste, as
 * Python is not, unless the sysctl vm.allocate_pgste is 1.
 */
#include "kvm_guest.h"
#include "node_agent.h"

#if defined(__s390x__)

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define CODE 0x10000ul /* above the low core and its fixed addresses */

#define PSW_64BIT 0x0000000180000000ul

#define INTERCEPT_INSTRUCTION 0x04
#define INTERCEPT_WAIT 0x1c
#define DIAGNOSE 0x83
#define DIAGNOSE_OF_R2 0x8320
#define DISPLACEMENT(ipb) (((ipb) >> 16) & 0xfff)
#define DIAGNOSE_VALUE 0x3e9
#define RESULT_REGISTER 2

/* r2: state, r3: factor, r4: rounds */
GUEST_PROGRAM(compute, "1: msr %r2, %r3\n"
                       "   ar %r2, %r4\n"
                       "   rll %r2, %r2, 5\n"
                       "   brct %r4, 1b\n"
                       "   diag %r2, %r0, 0x3e9\n"
                       "   larl %r1, 2f\n"
                       "   lpswe 0(%r1)\n"
                       "   .balign 8\n"
                       "2: .quad 0x0002000180000000, 0\n"); /* wait, all interrupts off */
GUEST_PROGRAM(loop, "1: j 1b\n");
GUEST_PROGRAM(exits, "1: diag %r2, %r0, 0x3ea\n"
                     "   j 1b\n");

const int guest_supported = 1;

unsigned long guest_vm_type(int device) {
    (void)device;
    return 0;
}

int guest_prepare_vm(int vm) {
    (void)vm;
    return 0;
}

int guest_start(int vm, int vcpu, struct kvm_run *run, unsigned char *memory, int program,
                const struct guest_input *input) {
    struct kvm_regs registers = {.gprs = {[2] = input->state, [3] = input->factor, [4] = input->rounds}};

    (void)vm;
    if (program == KNA_GUEST_LOOP)
        COPY_GUEST_PROGRAM(memory + CODE, loop);
    else if (program == KNA_GUEST_EXITS)
        COPY_GUEST_PROGRAM(memory + CODE, exits);
    else
        COPY_GUEST_PROGRAM(memory + CODE, compute);
    run->psw_mask = PSW_64BIT;
    run->psw_addr = CODE;
    return ioctl(vcpu, KVM_SET_REGS, &registers) < 0 ? errno : 0;
}

enum guest_event guest_exit(const struct kvm_run *run, uint32_t *value) {
    if (run->exit_reason == KVM_EXIT_INTR)
        return GUEST_NOTHING;
    if (run->exit_reason != KVM_EXIT_S390_SIEIC)
        return GUEST_WRONG;
    if (run->s390_sieic.icptcode == INTERCEPT_WAIT)
        return GUEST_HALTED;
    if (run->s390_sieic.icptcode != INTERCEPT_INSTRUCTION || run->s390_sieic.ipa >> 8 != DIAGNOSE)
        return GUEST_WRONG;
    if (run->s390_sieic.ipa != DIAGNOSE_OF_R2 || DISPLACEMENT(run->s390_sieic.ipb) != DIAGNOSE_VALUE)
        return GUEST_NOTHING;
    *value = (uint32_t)run->s.regs.gprs[RESULT_REGISTER];
    return GUEST_VALUE;
}

#endif

/* Architectures without a guest of ours (ppc64le among them): a VM and a vCPU are made, and not entered. */
#include "kvm_guest.h"
#include "node_agent.h"

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(__s390x__)

#include <errno.h>

const int guest_supported = 0;

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
    (void)vm;
    (void)vcpu;
    (void)run;
    (void)memory;
    (void)program;
    (void)input;
    return ENOSYS;
}

enum guest_event guest_exit(const struct kvm_run *run, uint32_t *value) {
    (void)run;
    (void)value;
    return GUEST_WRONG;
}

#endif

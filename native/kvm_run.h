/* The last steps of a probe, on a vCPU that stands at the start of its program. */
#ifndef KVM_RUN_H
#define KVM_RUN_H

#include "kvm_guest.h"
#include "node_agent.h"

struct guest_input choose_sum(void);

uint32_t compute_sum(const struct guest_input *input);

/* Enters the guest until it halts, fails, or its time is over, and notes in `probe` how that went. */
int run_guest(int vcpu, const struct kvm_run *run, int64_t budget_nanoseconds, struct kna_kvm_probe *probe);

int check_value(const struct kna_kvm_probe *probe);

#endif

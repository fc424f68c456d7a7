/* The guest's run: what it is to compute, how long it may take, and what came out. */
#include "kvm_run.h"

#include "kvm_budget.h"

#include <errno.h>
#include <sys/ioctl.h>

/* More work than a lucky guess, and a fraction of a millisecond where every guest instruction is emulated. */
#define ROUNDS 16

/* A sum whose result nobody knows beforehand: not a constant that could be there by accident, or from last time. */
struct guest_input choose_sum(void) {
    uint64_t now = (uint64_t)monotonic_nanoseconds();

    return (struct guest_input){.state = (uint32_t)now, .factor = (uint32_t)(now >> 20) | 1, .rounds = ROUNDS};
}

uint32_t compute_sum(const struct guest_input *input) {
    uint32_t state = input->state;

    for (uint32_t left = input->rounds; left; left--) {
        state = state * input->factor + left;
        state = state << 5 | state >> 27;
    }
    return state;
}

static uint64_t exit_detail(const struct kvm_run *run) {
    switch (run->exit_reason) {
    case KVM_EXIT_UNKNOWN:
        return run->hw.hardware_exit_reason;
    case KVM_EXIT_FAIL_ENTRY:
        return run->fail_entry.hardware_entry_failure_reason;
    case KVM_EXIT_INTERNAL_ERROR:
        return run->internal.suberror;
    case KVM_EXIT_IO:
        return run->io.port;
    case KVM_EXIT_MMIO:
        return run->mmio.phys_addr;
    case KVM_EXIT_SYSTEM_EVENT:
        return run->system_event.type;
    default:
        return 0;
    }
}

/* Enters the guest until it halts, fails, or its time is over. */
static int enter_guest(int vcpu, const struct kvm_run *run, const struct budget *budget, struct kna_kvm_probe *probe) {
    for (;;) {
        int error = ioctl(vcpu, KVM_RUN, 0) < 0 ? errno : 0;

        probe->exit_reason = error == EINTR ? KVM_EXIT_INTR : (int32_t)run->exit_reason;
        probe->exit_detail = error ? 0 : exit_detail(run);
        if (error && error != EINTR && error != EAGAIN)
            return error;
        if (!error) {
            enum guest_event event = guest_exit(run, &probe->value);

            if (event == GUEST_HALTED)
                return 0;
            if (event == GUEST_WRONG)
                return EIO;
            if (event == GUEST_VALUE)
                probe->has_value = 1;
        }
        if (budget_is_spent(budget))
            return ETIMEDOUT;
    }
}

int run_guest(int vcpu, const struct kvm_run *run, int64_t budget_nanoseconds, struct kna_kvm_probe *probe) {
    struct budget budget;
    int64_t start;
    int error = budget_start(&budget, vcpu, budget_nanoseconds);

    if (error)
        return error;
    start = monotonic_nanoseconds();
    error = enter_guest(vcpu, run, &budget, probe);
    probe->guest_nanoseconds = monotonic_nanoseconds() - start;
    budget_finish(&budget);
    return error;
}

int check_value(const struct kna_kvm_probe *probe) {
    if (!probe->has_value)
        return ENODATA;
    return probe->value == probe->expected ? 0 : EBADMSG;
}

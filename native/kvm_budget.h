/* A bound in time for KVM_RUN on the calling thread. */
#ifndef KVM_BUDGET_H
#define KVM_BUDGET_H

#include <signal.h>
#include <stdint.h>
#include <time.h>

struct budget {
    int64_t end;        /* CLOCK_MONOTONIC, nanoseconds */
    timer_t timer;
    sigset_t ours;      /* the one signal */
    sigset_t previous;  /* the thread's mask before */
};

int64_t monotonic_nanoseconds(void);

/*
 * From here to budget_finish, KVM_RUN on `vcpu` returns EINTR soon after `nanoseconds` have passed, and again and
 * again after that. Returns 0 or an errno; after an error there is nothing to finish.
 */
int budget_start(struct budget *budget, int vcpu, int64_t nanoseconds);

int budget_is_spent(const struct budget *budget);

void budget_finish(struct budget *budget);

#endif

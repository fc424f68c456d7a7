/*
 * How a guest that never exits is made to end.
 *
 * A timer sends this thread a real-time signal that is blocked everywhere except inside KVM_RUN, where
 * KVM_SET_SIGNAL_MASK lets it through: KVM_RUN then returns EINTR with the signal still pending, and as it is
 * blocked again by then, nothing is ever delivered. So no handler is installed (that would be the whole process's
 * business, of which this is a part), and a signal that comes just before KVM_RUN is not lost, as it stays pending.
 * A watchdog thread that sets kvm_run.immediate_exit would not interrupt a guest that is already running.
 */
#define _GNU_SOURCE
#include "kvm_budget.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid /* glibc has had the name since 2.37 or so */
#endif

#define SECOND 1000000000ll
#define REPEAT_NANOSECONDS 10000000l

/* A signal mask as the kernel has it: 64 signals on all architectures that we build for. */
#define KERNEL_MASK_BYTES 8

int64_t monotonic_nanoseconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* Takes what is pending, so that it is never delivered. Returns 0, or why it cannot. */
static int swallow(const struct budget *budget) {
    const struct timespec now = {0};

    while (sigtimedwait(&budget->ours, NULL, &now) > 0)
        ;
    return errno == EAGAIN ? 0 : errno;
}

static int set_vcpu_mask(int vcpu, sigset_t mask, int signal) {
    union {
        struct kvm_signal_mask mask;
        unsigned char bytes[sizeof(struct kvm_signal_mask) + KERNEL_MASK_BYTES];
    } argument;

    sigdelset(&mask, signal);
    argument.mask.len = KERNEL_MASK_BYTES;
    memcpy(argument.bytes + offsetof(struct kvm_signal_mask, sigset), &mask, KERNEL_MASK_BYTES);
    return ioctl(vcpu, KVM_SET_SIGNAL_MASK, &argument) < 0 ? errno : 0;
}

static int start_timer(struct budget *budget, int signal, int64_t nanoseconds) {
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(nanoseconds / SECOND),
                                           .tv_nsec = (long)(nanoseconds % SECOND)},
                              /* again and again, so that one that hits a moment between two runs does no harm */
                              .it_interval = {.tv_nsec = REPEAT_NANOSECONDS}};
    struct sigevent event;
    int error;

    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &budget->timer))
        return errno;
    if (timer_settime(budget->timer, 0, &when, NULL) == 0)
        return 0;
    error = errno;
    timer_delete(budget->timer);
    return error;
}

int budget_start(struct budget *budget, int vcpu, int64_t nanoseconds) {
    const int signal = SIGRTMAX; /* the last one: libraries that want one take the first */
    int error;

    sigemptyset(&budget->ours);
    sigaddset(&budget->ours, signal);
    error = pthread_sigmask(SIG_BLOCK, &budget->ours, &budget->previous);
    if (error)
        return error;
    /* Were a sandbox to forbid this, the end would be a signal that kills us: find out before there is a timer. */
    error = swallow(budget);
    if (!error)
        error = set_vcpu_mask(vcpu, budget->previous, signal);
    if (!error)
        error = start_timer(budget, signal, nanoseconds);
    if (error)
        pthread_sigmask(SIG_SETMASK, &budget->previous, NULL);
    budget->end = monotonic_nanoseconds() + nanoseconds;
    return error;
}

int budget_is_spent(const struct budget *budget) {
    if (monotonic_nanoseconds() >= budget->end)
        return 1;
    swallow(budget); /* a signal a moment too early: KVM_RUN would return at once until it is taken */
    return 0;
}

void budget_finish(struct budget *budget) {
    timer_delete(budget->timer);
    swallow(budget);
    pthread_sigmask(SIG_SETMASK, &budget->previous, NULL);
}

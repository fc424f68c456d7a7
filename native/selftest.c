/*
 * The C code tests itself: without Python, under sanitizers, and on other architectures under qemu-user.
 *
 *     selftest [--probes N] [--without-kvm]
 *
 * Prints what it found on this machine. Exits with 0 if all that can be tested here holds.
 */
#define _GNU_SOURCE
#include "node_agent.h"

#include <dirent.h>
#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MILLISECOND 1000000ll
#define SECOND (1000 * MILLISECOND)

static int failures;

static void check_at(int line, int holds, const char *what) {
    if (holds)
        return;
    failures++;
    fprintf(stderr, "selftest.c:%d: does not hold: %s\n", line, what);
}

#define CHECK(condition) check_at(__LINE__, (condition) != 0, #condition)

static int64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static int open_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    if (!directory)
        return -1;
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static void test_names(void) {
    for (int i = KNA_STEP_OPEN; i <= KNA_STEP_DONE; i++)
        CHECK(*kna_step_name(i));
    for (int i = 0; i < KNA_CAPABILITIES; i++)
        CHECK(*kna_capability_name(i));
    CHECK(!strcmp(kna_exit_name(KVM_EXIT_HLT), "KVM_EXIT_HLT"));
    for (int i = -2; i < 100; i++)
        CHECK(kna_step_name(i) && kna_capability_name(i) && kna_exit_name(i));
    CHECK(!*kna_step_name(-1) && !*kna_step_name(KNA_STEP_DONE + 1));
    CHECK(!*kna_exit_name(-1) && !*kna_exit_name(1000));
}

#if defined(__x86_64__)

static void test_cpuid(void) {
    struct kna_cpuid_leaf leaves[KNA_CPUID_MAX_LEAVES], one;
    cpu_set_t before, after;
    int64_t start;
    int count, read = 0;

    CHECK(kna_cpuid(0, 0, &one) == 0 && one.eax >= 1);
    CHECK(!sched_getaffinity(0, sizeof before, &before));
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        int error = kna_cpuid_read(cpu, leaves, &count);

        /* A cpuset may allow more CPUs than the mask that we were started with. */
        CHECK(!error || !CPU_ISSET((size_t)cpu, &before));
        CHECK(error ? count == 0 : count > 3 && count < KNA_CPUID_MAX_LEAVES);
        CHECK(error || (leaves[0].eax == one.eax && leaves[0].ebx == one.ebx));
        read += !error;
    }
    CHECK(kna_cpuid_read(1 << 30, leaves, &count) == EINVAL && count == 0);
    CHECK(!sched_getaffinity(0, sizeof after, &after) && CPU_EQUAL(&before, &after));
    start = now();
    CHECK(kna_cpuid_read(-1, leaves, &count) == 0);
    start = now() - start;
    printf("cpuid: %d CPUs, %d leaves, %lld ns a leaf\n", read, count, (long long)start / (count ? count : 1));
}

#else

static void test_cpuid(void) {
    struct kna_cpuid_leaf leaves[KNA_CPUID_MAX_LEAVES];
    int count = 1;

    CHECK(kna_cpuid(0, 0, leaves) == ENOSYS);
    CHECK(kna_cpuid_read(0, leaves, &count) == ENOSYS && count == 0);
    printf("cpuid: not on this architecture\n");
}

#endif

static void expect(const char *path, int step, int error) {
    struct kna_kvm_probe probe;

    CHECK(kna_kvm_probe(path, KNA_GUEST_COMPUTE, SECOND, &probe) == error);
    CHECK(probe.step == step && probe.error == error);
    CHECK(probe.exit_reason == -1 && probe.guest_nanoseconds == -1 && !probe.has_value);
}

static void test_what_is_no_kvm(int with_kvm) {
    char file[] = "/tmp/selftest-XXXXXX";
    int descriptor = mkstemp(file);

    expect("/nonexistent/kvm", KNA_STEP_OPEN, ENOENT);
    expect("/", KNA_STEP_OPEN, EISDIR);
    expect("", KNA_STEP_OPEN, ENOENT);
    /* qemu-user answers by itself for what it does not know. */
    expect("/dev/null", KNA_STEP_API_VERSION, with_kvm ? ENOTTY : ENOSYS);
    if (descriptor >= 0) {
        expect(file, KNA_STEP_DEVICE, ENODEV);
        remove(file);
    }
}

static void report(const struct kna_kvm_probe *probe, const char *what) {
    printf("%s: %s", what, kna_step_name(probe->step));
    if (probe->error)
        printf(": %s", strerror(probe->error));
    if (probe->exit_reason >= 0)
        printf(", %s %llu, %lld us", kna_exit_name(probe->exit_reason), (unsigned long long)probe->exit_detail,
               (long long)probe->guest_nanoseconds / 1000);
    printf("\n");
}

/* A guest that never ends, in what way ever, ends as a failure in time. */
static void test_endless(int guest, const char *what) {
    struct kna_kvm_probe probe;
    int64_t start = now();

    CHECK(kna_kvm_probe("/dev/kvm", guest, 200 * MILLISECOND, &probe) == ETIMEDOUT);
    start = now() - start;
    report(&probe, what);
    CHECK(probe.step == KNA_STEP_RUN && !probe.has_value);
    CHECK(start >= 200 * MILLISECOND && start < SECOND);
}

static void test_kvm(long probes) {
    struct kna_kvm_probe probe;
    sigset_t before, after, pending;
    int descriptors;

    kna_kvm_probe("/dev/kvm", KNA_GUEST_COMPUTE, SECOND, &probe);
    report(&probe, "/dev/kvm");
    if (probe.step == KNA_STEP_OPEN || (probe.step == KNA_STEP_RUN && !probe.guest_supported))
        return; /* nothing to test, and nothing wrong with the code */
    CHECK(probe.step == KNA_STEP_DONE && probe.error == 0 && probe.api_version == KNA_API_VERSION);
    CHECK(probe.has_value && probe.value == probe.expected);
    if (probe.error)
        return;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    test_endless(KNA_GUEST_LOOP, "looping guest");
    test_endless(KNA_GUEST_EXITS, "guest that exits for ever");
    descriptors = open_descriptors();
    for (long i = 0; i < probes && !failures; i++) {
        CHECK(kna_kvm_probe("/dev/kvm", KNA_GUEST_COMPUTE, SECOND, &probe) == 0);
        /* A run cut short at any moment leaves nothing behind, either. */
        if (i % 10 == 0)
            CHECK(kna_kvm_probe("/dev/kvm", KNA_GUEST_LOOP, 1, &probe) == ETIMEDOUT);
    }
    CHECK(open_descriptors() == descriptors);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number <= SIGRTMAX; number++)
        CHECK(sigismember(&before, number) == sigismember(&after, number));
    sigpending(&pending);
    CHECK(!sigismember(&pending, SIGRTMAX));
    printf("%ld probes: %d descriptors before and after\n", probes, descriptors);
}

int main(int argc, char **argv) {
    long probes = 100;
    int with_kvm = 1;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--without-kvm"))
            with_kvm = 0;
        else if (!strcmp(argv[i], "--probes") && i + 1 < argc)
            probes = strtol(argv[++i], NULL, 10);
        else
            return fprintf(stderr, "usage: selftest [--probes N] [--without-kvm]\n"), 2;
    }
    test_names();
    test_cpuid();
    test_what_is_no_kvm(with_kvm);
    if (with_kvm)
        test_kvm(probes);
    printf(failures ? "FAILED: %d\n" : "all that can be tested here holds\n", failures);
    return failures ? 1 : 0;
}

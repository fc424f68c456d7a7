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
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

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

static int put(const char *folder, const char *name, const char *text) {
    char path[200];
    FILE *file;
    int failed;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "w");
    if (!file)
        return 0;
    failed = fputs(text, file) < 0;
    return !fclose(file) && !failed;
}

/* A folder in the shape of /proc with one process, whole and then cut at each byte. */
static void test_process_files(void) {
    static const char stat[] = "41 (a) b) S 7 1 1 0 -1 0 100 0 20 0 5 5 0 0 20 0 3 0 12345 1048576 2 0 1 1 140000 1\n";
    static const char smaps[] = "7f0000000000-7f0001000000 rw-s 00000000 00:1b 17     /dev/shm/x (deleted)\n"
                                "Rss:    8 kB\nPss:    4 kB\nPrivate_Hugetlb:   4 kB\nVmFlags: rd\n"
                                "7f0001000000-7f0001001000 rw-s 00000000 00:10 3     anon_inode:kvm-vcpu:0\nRss:   4 kB\n";
    char folder[] = "/tmp/selftest-XXXXXX", path[100], cut[sizeof smaps];
    struct kna_process process = {.pid = 41};
    struct kna_mapping mappings[2];
    struct kna_memory memory;
    uint64_t sizes[2];
    int32_t pids[4], files[1] = {-1};
    int proc, count;

    CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/41", folder);
    CHECK(!mkdir(path, 0700));
    CHECK(put(path, "stat", stat) && put(path, "smaps", smaps) && put(path, "statm", "256 2 0\n"));
    CHECK(put(path, "status", "Name:\ta\nRssAnon:\t 4 kB\nRssFile:\t 8 kB\nVmPTE:\t 8 kB\nx\n"));
    proc = open(folder, O_RDONLY | O_DIRECTORY);
    CHECK(proc >= 0);

    CHECK(!kna_list_processes(proc, pids, 4, &count) && count == 1 && pids[0] == 41);
    CHECK(!kna_list_processes(proc, pids, 0, &count) && count == 1);
    kna_read_processes(proc, &process, 1);
    CHECK(!process.error && process.parent == 7 && process.started == 12345 && process.faults == 120);
    CHECK(process.image == 140000 && !strncmp(process.name, "a) b", sizeof process.name));
    kna_read_sizes(proc, pids, files, 1, sizes);
    CHECK(sizes[0] && sizes[0] == 128 * sizes[1]);
    files[0] = kna_open_sizes(proc, 41);
    CHECK(files[0] >= 0 && kna_open_sizes(proc, 42) == -1 && errno == ENOENT);
    pids[0] = 42;
    sizes[0] = sizes[1] = 0;
    kna_read_sizes(proc, pids, files, 1, sizes);
    CHECK(sizes[0] && sizes[0] == 128 * sizes[1]);
    close(files[0]);
    CHECK(!kna_read_memory(proc, 41, KNA_SMAPS, 1 << 20, UINT64_MAX, &memory, mappings, 2));
    CHECK(memory.resident_bytes == 12288 && memory.pss_bytes == 4096 && memory.huge_bytes == 4096);
    CHECK(memory.page_table_bytes == 8192 && memory.unshared_bytes == 12288 && memory.vcpus == 1 && memory.mappings == 1);
    CHECK(mappings[0].inode == 17 && mappings[0].device == 0x1b && mappings[0].resident_bytes == 8192);
    CHECK(!kna_read_memory(proc, 41, KNA_SMAPS, 1 << 20, 0x7f0000000000, &memory, mappings, 2));
    CHECK(memory.resident_bytes == 8192 && memory.vcpus == 0 && memory.mappings == 1);
    CHECK(kna_read_memory(proc, 42, KNA_SMAPS, 0, UINT64_MAX, &memory, mappings, 2) == ENOENT);
    CHECK(kna_read_memory(proc, 41, 7, 0, UINT64_MAX, &memory, mappings, 2) == EINVAL);
    for (size_t length = 0; length < sizeof smaps; length++) {
        memcpy(cut, smaps, length);
        cut[length] = '\0';
        CHECK(put(path, "smaps", cut));
        CHECK(kna_read_memory(proc, 41, KNA_SMAPS, 0, UINT64_MAX, &memory, mappings, 1) == (length ? 0 : ESRCH));
        CHECK(memory.mappings <= 2 && memory.resident_bytes <= 12288);
        CHECK(put(path, "stat", cut));
        process.pid = 41;
        kna_read_processes(proc, &process, 1);
        CHECK(process.error);
    }
    process.pid = 42;
    kna_read_processes(proc, &process, 1);
    CHECK(process.error == ENOENT);

    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"41/stat", "41/smaps", "41/statm", "41/status"};

        CHECK(!unlinkat(proc, names[i], 0));
    }
    CHECK(!unlinkat(proc, "41", AT_REMOVEDIR));
    close(proc);
    CHECK(!rmdir(folder));
    printf("process files: read whole, and cut at %zu places\n", sizeof smaps);
}

/* Last of all: what is given up does not come back. A user without any may do it as well. */
static void test_capabilities(void) {
    CHECK(kna_keep_capabilities(1u << 19) == 0);
    CHECK(kna_keep_capabilities(0) == 0);
    CHECK(kna_keep_capabilities(UINT64_MAX) == 0);
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
    test_process_files();
    if (with_kvm)
        test_kvm(probes);
    kna_give_back_memory();
    test_capabilities();
    printf(failures ? "FAILED: %d\n" : "all that can be tested here holds\n", failures);
    return failures ? 1 : 0;
}

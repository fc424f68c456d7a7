/*
 * The face of the native layer: what Python may call, and nothing else.
 *
 * Every function that returns a number returns 0 or an errno. None of them exits, prints, keeps state, installs a signal
 * handler or leaves a descriptor (but the one it was asked for), a mapping, a timer, a signal mask or a CPU affinity
 * behind, whatever fails. All may run on any thread, several at a time. kna_keep_capabilities alone is not so.
 *
 * What stands between the two "cffi" lines is also read by build.py: plain declarations, enum constants and
 * fixed-width types only.
 */
#ifndef NODE_AGENT_H
#define NODE_AGENT_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

/* ---- cpuid.c ---- */

enum { KNA_CPUID_MAX_LEAVES = 96 };

struct kna_cpuid_leaf {
    uint32_t leaf, subleaf;
    uint32_t eax, ebx, ecx, edx;
};

/* One leaf of the CPU that happens to run the calling thread. ENOSYS where there is no CPUID instruction. */
int kna_cpuid(uint32_t leaf, uint32_t subleaf, struct kna_cpuid_leaf *result);

/*
 * The leaves that eligibility needs, of one CPU, in one call: 0, 1, 7 (and 7.1), the hypervisor's from 0x40000000
 * if there is one, 0x80000000 to 0x80000008, 0x8000000A and 0x8000001F; none above the maximum the CPU states.
 * The calling thread, and only it, is moved to `cpu` and its affinity is restored; -1 stays where it is.
 * EINVAL: no such CPU, or the thread may not run there. ENOSYS: no CPUID instruction.
 */
int kna_cpuid_read(int cpu, struct kna_cpuid_leaf leaves[], int *count);

/* ---- kvm.c ---- */

/* In the order they are taken; names in kvm_names.c. */
enum kna_step {
    KNA_STEP_OPEN,
    KNA_STEP_DEVICE,
    KNA_STEP_API_VERSION,
    KNA_STEP_CREATE_VM,
    KNA_STEP_MEMORY,
    KNA_STEP_CREATE_VCPU,
    KNA_STEP_MMAP,
    KNA_STEP_REGISTERS,
    KNA_STEP_RUN,
    KNA_STEP_VALUE,
    KNA_STEP_DONE
};

/* Which program the guest runs. Only the first is for use; the others are for tests of the time limit. */
enum kna_guest { KNA_GUEST_COMPUTE, KNA_GUEST_LOOP, KNA_GUEST_EXITS };

enum { KNA_CAPABILITIES = 14, KNA_API_VERSION = 12 };

struct kna_kvm_probe {
    int32_t step;             /* enum kna_step: the first that failed, or KNA_STEP_DONE */
    int32_t error;            /* why: an errno, 0 when done. What kvm.c itself finds wrong: see there */
    int32_t api_version;      /* -1 before it is known */
    int32_t exit_reason;      /* KVM_EXIT_* of the last exit; -1 before the guest ran */
    uint64_t exit_detail;     /* what goes with it: hardware reason, suberror, port, address, event; else 0 */
    int64_t guest_nanoseconds; /* from entering the guest to its halt or its failure; -1 before it ran */
    uint32_t value, expected; /* what the guest computed, and what it should have */
    int32_t has_value;        /* 0: the guest gave none, `value` and `expected` mean nothing */
    int32_t guest_supported;  /* 0: we have no guest for this architecture, and stop before KNA_STEP_RUN */
    int32_t capabilities[KNA_CAPABILITIES]; /* KVM_CHECK_EXTENSION's answer, or -errno; names in kvm_names.c */
};

/*
 * Goes through the steps on the device at `path` and fills in `probe`. Returns probe->error.
 * `budget_nanoseconds` bounds the guest's run, whatever the guest does; it is kept between 1 ms and 60 s.
 */
int kna_kvm_probe(const char *path, int guest, int64_t budget_nanoseconds, struct kna_kvm_probe *probe);

/* ---- folder.c ---- */

/*
 * Watches what is made, removed, renamed or given another mode or owner in a folder, and the folder itself. EMFILE: the user's inotify
 * instances are used up.
 */
int kna_watch_folder(const char *path, int *descriptor);

/* ---- process_files.c ---- */

/* What stat says of one process. */
struct kna_process {
    int32_t pid, parent;
    int32_t error;           /* an errno; ESRCH or ENOENT: it is gone. Then the rest is 0 */
    int32_t threads;
    uint64_t started;        /* clock ticks since boot */
    uint64_t image;          /* where its stack begins: another one after exec. 0 where that is not told */
    uint64_t faults;         /* minor and major page faults of all its threads */
    uint64_t virtual_bytes;  /* 0: a thread of the kernel, or a process that has ended */
    uint64_t resident_bytes;
    char name[16];           /* not closed with a NUL when it has 16 bytes */
};

/* A mapping that may be read and written. */
struct kna_mapping {
    uint64_t start, end, inode;
    uint64_t device;         /* major number << 32 | minor number */
    uint64_t resident_bytes, pss_bytes, swap_bytes, huge_bytes, page_bytes; /* 0 where only maps was read */
    char permissions[8];
    char path[168];          /* cut where it is longer */
};

/* Sums over all mappings of a process. huge_bytes (hugetlb) are not in resident_bytes, nor in pss_bytes. */
struct kna_memory {
    uint64_t resident_bytes, pss_bytes, swap_bytes, huge_bytes;
    int64_t page_table_bytes; /* -1: not told */
    int64_t unshared_bytes;  /* resident, and neither shmem nor hugetlb; -1: not told */
    int32_t vcpus;           /* mappings of a vCPU of KVM */
    int32_t mappings;        /* how many were large enough; more than `capacity`: those beyond are missing */
};

enum kna_source { KNA_MAPS, KNA_SMAPS, KNA_SMAPS_ROLLUP };

/* `proc` is a descriptor of /proc, or of a folder of the same shape, in each of these. */

/* All numbers there. `count` may be more than `capacity`: then those beyond are missing. */
int kna_list_processes(int proc, int32_t pids[], int capacity, int *count);

/* Fills in what belongs to each `pid`. */
void kna_read_processes(int proc, struct kna_process processes[], int count);

/*
 * Virtual and resident size in bytes of each, from statm: half the price of stat. 0 and 0 for one that is gone.
 * Where `files` has an open statm, not -1, that is read: a quarter of the price again.
 */
void kna_read_sizes(int proc, const int32_t pids[], const int32_t files[], int count, uint64_t sizes[]);

/* A descriptor of the statm of a process, or -1 and errno. It stays that of this very process. */
int kna_open_sizes(int proc, int pid);

/*
 * Sums, and the mappings of at least `min_bytes` that may be read and written. What begins above `until` is not read, and
 * not in them: the kernel walks through the pages of a mapping when its lines are read. ESRCH: the process has ended.
 * EFBIG: larger than the file of any process should be.
 */
int kna_read_memory(int proc, int pid, int source, uint64_t min_bytes, uint64_t until, struct kna_memory *memory,
                    struct kna_mapping mappings[], int capacity);

/* ---- capabilities.c ---- */

/*
 * Keeps of its capabilities those in `keep` (bit: number of the capability), for the calling thread and what it starts, for good; nothing
 * that it executes gains any. To be called before there are other threads.
 */
int kna_keep_capabilities(uint64_t keep);

/* ---- memory.c ---- */

/* What the C library keeps of freed memory goes back to the kernel: milliseconds, for which other threads may wait to allocate. */
void kna_give_back_memory(void);

/* ---- kvm_names.c: never NULL; "" for a number without a name ---- */

const char *kna_step_name(int step);
const char *kna_capability_name(int index);
const char *kna_exit_name(int exit_reason);

/* cffi: end */

#endif

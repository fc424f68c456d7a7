/* CPUID leaves, of the CPU we are on or of one we move to. */
#define _GNU_SOURCE
#include "node_agent.h"

#include <errno.h>

#if defined(__x86_64__) || defined(__i386__)

#include <cpuid.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>

/* As many CPUs as any Linux for x86 is built for. The kernel refuses a mask smaller than its own. */
#define MASK_CPUS 8192
#define WORD_BITS (8 * sizeof(unsigned long))

#define HYPERVISOR_BIT (1u << 31)
/* Hypervisors state a maximum leaf like everyone else, but not all truthfully. */
#define HYPERVISOR_LEAVES 32u
/* With Hyper-V's interface at 0x40000000, KVM's own starts here. */
#define HYPERVISOR_SECOND_BASE 0x40000100u

/* Instead of cpu_set_t, which ends at 1,024 CPUs. */
struct affinity {
    unsigned long words[MASK_CPUS / WORD_BITS];
};

int kna_cpuid(uint32_t leaf, uint32_t subleaf, struct kna_cpuid_leaf *result) {
    result->leaf = leaf;
    result->subleaf = subleaf;
    __cpuid_count(leaf, subleaf, result->eax, result->ebx, result->ecx, result->edx);
    return 0;
}

struct list {
    struct kna_cpuid_leaf *leaves;
    int count;
};

static const struct kna_cpuid_leaf *add(struct list *list, uint32_t leaf, uint32_t subleaf) {
    struct kna_cpuid_leaf *next = &list->leaves[list->count];

    kna_cpuid(leaf, subleaf, next);
    if (list->count < KNA_CPUID_MAX_LEAVES - 1)
        list->count++;
    return next;
}

/* A block of leaves whose first states the last; beyond it, Intel repeats some other leaf, so what it states is judged. */
static void add_hypervisor(struct list *list, uint32_t base) {
    uint32_t last = add(list, base, 0)->eax;

    if (last < base || last > base + 0xff) {
        if (base == HYPERVISOR_SECOND_BASE)
            list->count--; /* nobody there */
        return;
    }
    for (uint32_t leaf = base + 1; leaf <= last && leaf < base + HYPERVISOR_LEAVES; leaf++)
        add(list, leaf, 0);
}

static void add_all(struct list *list) {
    uint32_t last = add(list, 0, 0)->eax;
    bool hypervisor = last >= 1 && (add(list, 1, 0)->ecx & HYPERVISOR_BIT);

    if (last >= 7 && add(list, 7, 0)->eax >= 1)
        add(list, 7, 1);
    if (hypervisor) {
        add_hypervisor(list, 0x40000000u);
        add_hypervisor(list, HYPERVISOR_SECOND_BASE);
    }
    last = add(list, 0x80000000u, 0)->eax;
    if (last < 0x80000000u || last > 0x8000ffffu) {
        list->count--; /* a processor without extended leaves */
        return;
    }
    for (uint32_t leaf = 0x80000001u; leaf <= last && leaf <= 0x80000008u; leaf++)
        add(list, leaf, 0);
    if (last >= 0x8000000au)
        add(list, 0x8000000au, 0);
    if (last >= 0x8000001fu)
        add(list, 0x8000001fu, 0);
}

static int get_affinity(struct affinity *mask) {
    memset(mask, 0, sizeof *mask); /* the kernel writes as many bytes as it has */
    return sched_getaffinity(0, sizeof *mask, (cpu_set_t *)mask->words) ? errno : 0;
}

static int set_affinity(const struct affinity *mask) {
    return sched_setaffinity(0, sizeof *mask, (const cpu_set_t *)mask->words) ? errno : 0;
}

/*
 * What the kernel told us as the thread's mask lacks CPUs that are offline just now. A thread that was free to run
 * anywhere would never again be so on a CPU that comes later, were that mask set. So "anywhere" is tried first.
 */
static int restore_affinity(const struct affinity *mask) {
    struct affinity anywhere, got;

    memset(&anywhere, 0xff, sizeof anywhere);
    if (set_affinity(&anywhere) == 0 && get_affinity(&got) == 0 && memcmp(&got, mask, sizeof got) == 0)
        return 0;
    return set_affinity(mask);
}

int kna_cpuid_read(int cpu, struct kna_cpuid_leaf leaves[], int *count) {
    struct list list = {leaves, 0};
    struct affinity before, there;
    int error;

    *count = 0;
    if (cpu >= 0) {
        if (cpu >= MASK_CPUS)
            return EINVAL;
        error = get_affinity(&before);
        if (error)
            return error;
        memset(&there, 0, sizeof there);
        there.words[(size_t)cpu / WORD_BITS] = 1ul << ((size_t)cpu % WORD_BITS);
        /* The thread has moved when this returns. */
        error = set_affinity(&there);
        if (error)
            return error;
    }
    add_all(&list);
    *count = list.count;
    return cpu >= 0 ? restore_affinity(&before) : 0;
}

#else /* no CPUID here: KVM itself decides */

int kna_cpuid(uint32_t leaf, uint32_t subleaf, struct kna_cpuid_leaf *result) {
    *result = (struct kna_cpuid_leaf){.leaf = leaf, .subleaf = subleaf};
    return ENOSYS;
}

int kna_cpuid_read(int cpu, struct kna_cpuid_leaf leaves[], int *count) {
    (void)cpu;
    (void)leaves;
    *count = 0;
    return ENOSYS;
}

#endif

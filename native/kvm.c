/*
 * Proves that this machine runs a VM: opens the device, makes a VM with one vCPU, and lets it compute something.
 *
 * What is wrong without a system call having failed is reported as
 *   KNA_STEP_DEVICE       ENODEV     the path is no character device
 *   KNA_STEP_API_VERSION  EPROTO     a version other than 12
 *   KNA_STEP_RUN          ENOSYS     guest_supported is 0: not attempted
 *   KNA_STEP_RUN          ETIMEDOUT  the guest did not end in time
 *   KNA_STEP_RUN          EIO        an exit our guest never causes: see exit_reason and exit_detail
 *   KNA_STEP_VALUE        ENODATA    it ended without a value
 *   KNA_STEP_VALUE        EBADMSG    `value` is not `expected`
 */
#define _GNU_SOURCE
#include "node_agent.h"

#include "kvm_guest.h"
#include "kvm_names.h"
#include "kvm_run.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MILLISECOND 1000000ll
#define SHORTEST_BUDGET MILLISECOND
#define LONGEST_BUDGET (60000 * MILLISECOND)

/* KVM_CREATE_VM gives up when the thread gets a signal; as often as this it is tried again. */
#define CREATE_ATTEMPTS 100

struct machine {
    int device, vm, vcpu;    /* -1: not open */
    void *mapping;           /* holds the guest's memory, and enough around it to align that */
    unsigned char *memory;
    struct kvm_run *run;
    size_t run_bytes;
};

static int open_device(struct machine *machine, const char *path) {
    /* A FIFO or a terminal in its place must neither hang us nor become ours. */
    machine->device = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return machine->device < 0 ? errno : 0;
}

static int check_device(const struct machine *machine) {
    struct stat status;

    if (fstat(machine->device, &status))
        return errno;
    return S_ISCHR(status.st_mode) ? 0 : ENODEV;
}

static int ask_api_version(const struct machine *machine, struct kna_kvm_probe *probe) {
    int version = ioctl(machine->device, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return errno;
    probe->api_version = version;
    if (version != KNA_API_VERSION)
        return EPROTO;
    for (int i = 0; i < KNA_CAPABILITIES; i++) {
        int answer = ioctl(machine->device, KVM_CHECK_EXTENSION, capabilities[i].number);

        probe->capabilities[i] = answer < 0 ? -errno : answer;
    }
    return 0;
}

static int create_vm(struct machine *machine) {
    unsigned long type = guest_vm_type(machine->device);

    for (int attempt = 0; attempt < CREATE_ATTEMPTS; attempt++) {
        machine->vm = ioctl(machine->device, KVM_CREATE_VM, type);
        if (machine->vm >= 0)
            return 0;
        if (errno != EINTR)
            break;
    }
    return errno;
}

static int give_memory(struct machine *machine) {
    struct kvm_userspace_memory_region region = {.guest_phys_addr = GUEST_MEMORY_ADDRESS,
                                                 .memory_size = GUEST_MEMORY_BYTES};
    uintptr_t start;

    machine->mapping =
        mmap(NULL, 2 * GUEST_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (machine->mapping == MAP_FAILED)
        return errno;
    start = ((uintptr_t)machine->mapping + GUEST_MEMORY_BYTES - 1) & ~(GUEST_MEMORY_BYTES - 1);
    machine->memory = (unsigned char *)machine->mapping + (start - (uintptr_t)machine->mapping);
    region.userspace_addr = start;
    if (ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return errno;
    return guest_prepare_vm(machine->vm);
}

static int create_vcpu(struct machine *machine) {
    machine->vcpu = ioctl(machine->vm, KVM_CREATE_VCPU, 0);
    return machine->vcpu < 0 ? errno : 0;
}

static int map_vcpu(struct machine *machine) {
    int bytes = ioctl(machine->device, KVM_GET_VCPU_MMAP_SIZE, 0);
    void *run;

    if (bytes < 0)
        return errno;
    if ((size_t)bytes < sizeof *machine->run)
        return EPROTO;
    run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, machine->vcpu, 0);
    if (run == MAP_FAILED)
        return errno;
    machine->run = run;
    machine->run_bytes = (size_t)bytes;
    return 0;
}

static int take_step(enum kna_step step, struct machine *machine, const char *path, int guest,
                     int64_t budget_nanoseconds, struct kna_kvm_probe *probe) {
    struct guest_input input;

    switch (step) {
    case KNA_STEP_OPEN:
        return open_device(machine, path);
    case KNA_STEP_DEVICE:
        return check_device(machine);
    case KNA_STEP_API_VERSION:
        return ask_api_version(machine, probe);
    case KNA_STEP_CREATE_VM:
        return create_vm(machine);
    case KNA_STEP_MEMORY:
        return give_memory(machine);
    case KNA_STEP_CREATE_VCPU:
        return create_vcpu(machine);
    case KNA_STEP_MMAP:
        return map_vcpu(machine);
    case KNA_STEP_REGISTERS:
        if (!guest_supported)
            return 0;
        input = choose_sum();
        probe->expected = compute_sum(&input);
        return guest_start(machine->vm, machine->vcpu, machine->run, machine->memory, guest, &input);
    case KNA_STEP_RUN:
        return guest_supported ? run_guest(machine->vcpu, machine->run, budget_nanoseconds, probe) : ENOSYS;
    case KNA_STEP_VALUE:
        return check_value(probe);
    case KNA_STEP_DONE:
        break;
    }
    return 0;
}

static void close_machine(const struct machine *machine) {
    if (machine->run)
        munmap(machine->run, machine->run_bytes);
    if (machine->vcpu >= 0)
        close(machine->vcpu);
    if (machine->vm >= 0)
        close(machine->vm);
    if (machine->device >= 0)
        close(machine->device);
    if (machine->mapping != MAP_FAILED)
        munmap(machine->mapping, 2 * GUEST_MEMORY_BYTES);
}

int kna_kvm_probe(const char *path, int guest, int64_t budget_nanoseconds, struct kna_kvm_probe *probe) {
    struct machine machine = {.device = -1, .vm = -1, .vcpu = -1, .mapping = MAP_FAILED};
    int step;

    memset(probe, 0, sizeof *probe);
    probe->api_version = probe->exit_reason = -1;
    probe->guest_nanoseconds = -1;
    probe->guest_supported = guest_supported;
    if (budget_nanoseconds < SHORTEST_BUDGET)
        budget_nanoseconds = SHORTEST_BUDGET;
    if (budget_nanoseconds > LONGEST_BUDGET)
        budget_nanoseconds = LONGEST_BUDGET;

    for (step = KNA_STEP_OPEN; step < KNA_STEP_DONE; step++) {
        probe->error = take_step((enum kna_step)step, &machine, path, guest, budget_nanoseconds, probe);
        if (probe->error)
            break;
    }
    probe->step = step;
    close_machine(&machine);
    return probe->error;
}

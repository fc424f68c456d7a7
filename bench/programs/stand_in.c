/*
 * Stands in for the processes of Kata sandboxes, with their command lines and mappings but next to no work: three
 * processes a sandbox, of which VMM and virtiofsd map the same guest RAM.
 *
 *     stand_in COUNT GUEST_MIB TOUCHED_MIB TEMPLATE_MIB
 *
 * As with Kata's templates, all VMs share the memory that they began with: resident in each, and there once.
 * Prints one line a sandbox: its id and the three process ids. Ends all of them when its standard input is closed.
 * A VMM that gets SIGUSR1 touches, or gives back, a few MiB; at SIGUSR2 it maps 128 MiB more.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1ul << 20)
#define MOVED (8 * MIB)

static volatile sig_atomic_t moves, plugs;

static void on_move(int number) {
    (void)number;
    moves = 1;
}

static void on_plug(int number) {
    (void)number;
    plugs = 1;
}

/* As many mappings as the real programs have: neighbours with the same rights would become one. */
static void map_much(int count) {
    for (int i = 0; i < count; i++)
        mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void vmm(char *ram, size_t size) {
    sigset_t both, none;
    int more = 0;

    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    sigprocmask(SIG_BLOCK, &both, &none);
    signal(SIGUSR1, on_move);
    signal(SIGUSR2, on_plug);
    for (;;) {
        sigsuspend(&none);
        if (moves) {
            moves = 0;
            more = !more;
            if (more)
                memset(ram + size - MOVED, 1, MOVED);
            else
                madvise(ram + size - MOVED, MOVED, MADV_REMOVE);
        }
        if (plugs) {
            int memory = memfd_create("memory-backend-memfd", MFD_CLOEXEC);

            plugs = 0;
            if (memory >= 0 && !ftruncate(memory, 128 * MIB))
                mmap(NULL, 128 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
            close(memory);
        }
    }
}

/* What a sandbox's process does, after its exec: the environment says what it is to be. */
static int be(const char *role) {
    size_t size = strtoul(getenv("STAND_IN_MIB"), NULL, 10) * MIB, touched = strtoul(getenv("STAND_IN_TOUCHED"), NULL, 10) * MIB;
    size_t shared = strtoul(getenv("STAND_IN_TEMPLATE"), NULL, 10) * MIB;
    char *ram, *base;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_much(*role == 'q' ? 300 : 70);
    if (*role == 's')
        for (;;)
            pause();
    ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
    base = mmap(NULL, shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, 4, 0);
    close(3);
    close(4);
    if (ram == MAP_FAILED || base == MAP_FAILED)
        return 1;
    memset(ram, 1, *role == 'q' ? touched : touched / 2);
    if (*role == 'q')
        vmm(ram, size);
    for (;;)
        pause();
}

static pid_t start(const char *role, char *const words[], int ram, int base) {
    pid_t child = fork();

    if (child)
        return child;
    setenv("STAND_IN", role, 1);
    if (ram >= 0) {
        dup2(ram, 13);
        dup2(base, 4);
        dup2(13, 3);
        close(13);
    }
    execv("/proc/self/exe", words);
    _exit(1);
}

/* A file that nobody else can open, of so many MiB. */
static int file_of(const char *pattern, const char *mib) {
    char name[64];
    int file;

    snprintf(name, sizeof name, "%s", pattern);
    file = mkostemp(name, O_CLOEXEC);
    if (file >= 0) {
        unlink(name);
        if (ftruncate(file, (off_t)(strtoul(mib, NULL, 10) * MIB)))
            return -1;
    }
    return file;
}

int main(int argc, char **argv) {
    const char *role = getenv("STAND_IN");
    long count;
    int template;
    char byte;

    if (role)
        return be(role);
    if (argc != 5)
        return 2;
    count = strtol(argv[1], NULL, 10);
    setenv("STAND_IN_MIB", argv[2], 1);
    setenv("STAND_IN_TOUCHED", argv[3], 1);
    setenv("STAND_IN_TEMPLATE", argv[4], 1);
    template = file_of("/dev/shm/kata-template.XXXXXX", argv[4]);
    for (long i = 0; i < count; i++) {
        char id[65], name[100], memory[40], object[200], socket[160];
        char *shim[] = {"/usr/bin/containerd-shim-kata-v2", "-namespace", "k8s.io", "-id", id, NULL};
        char *qemu[] = {"/usr/bin/qemu-system-x86_64", "-name", name, "-m", memory, "-object", object, "-numa",
                        "node,memdev=dimm1", "-no-user-config", NULL};
        char *virtiofsd[] = {"/usr/libexec/virtiofsd", socket, "--cache=auto", NULL};
        int ram = file_of("/dev/shm/qemu_back_mem.dimm1.XXXXXX", argv[2]);

        if (ram < 0 || template < 0)
            return 1;
        snprintf(id, sizeof id, "%032x%032lx", getpid(), i);
        snprintf(name, sizeof name, "sandbox-%s,debug-threads=on", id);
        snprintf(memory, sizeof memory, "%sM,slots=10,maxmem=32768M", argv[2]);
        snprintf(object, sizeof object, "memory-backend-file,id=dimm1,size=%sM,mem-path=/dev/shm,share=on", argv[2]);
        snprintf(socket, sizeof socket, "--socket-path=/run/vc/vm/%s/vhost-fs.sock", id);
        printf("%s %d ", id, start("q", qemu, ram, template));
        printf("%d %d\n", start("v", virtiofsd, ram, template), start("s", shim, -1, -1));
        fflush(stdout);
        close(ram);
    }
    while (read(0, &byte, 1) > 0)
        ;
    /* Children of ours that have ended are not waited for until here: their numbers stay theirs. */
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(NULL) > 0)
        ;
    return 0;
}

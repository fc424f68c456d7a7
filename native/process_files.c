/*
 * Files of many processes in /proc, without the interpreter's lock: a node has thousands of them, and a process' smaps
 * has thousands of lines of which a few sums are wanted.
 *
 * A process may end, and its mappings may change, between any two reads. What is read is what the kernel gave; a line
 * that has no end is no line.
 */
#define _GNU_SOURCE
#include "node_agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A process may have 65,530 mappings by default, of some 750 bytes each in smaps. */
#define MAX_BYTES (64u << 20)
#define STAT_BYTES 2048
#define CHUNK_BYTES 32768

/* O_NONBLOCK: a FIFO in a tree that is no /proc must not hang us. */
static int open_file(int proc, int pid, const char *name)
{
    char path[40];

    snprintf(path, sizeof path, "%d/%s", pid, name);
    return openat(proc, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/* The beginning of a small file, closed with a NUL. Returns its length, or -1 and errno. */
static ssize_t read_small(int proc, int pid, const char *name, char *text, size_t size)
{
    int descriptor = open_file(proc, pid, name), saved;
    ssize_t length;

    if (descriptor < 0)
        return -1;
    length = read(descriptor, text, size - 1);
    saved = errno;
    close(descriptor);
    errno = saved;
    if (length >= 0)
        text[length] = '\0';
    return length;
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

int kna_list_processes(int proc, int32_t pids[], int capacity, int *count)
{
    int descriptor = openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), saved;
    struct dirent *entry;
    DIR *folder;

    *count = 0;
    if (descriptor < 0)
        return errno;
    folder = fdopendir(descriptor);
    if (!folder) {
        saved = errno;
        close(descriptor);
        return saved;
    }
    errno = 0;
    while ((entry = readdir(folder))) {
        const char *c = entry->d_name;
        int64_t pid = 0;

        for (; is_digit(*c) && pid <= INT32_MAX; c++)
            pid = pid * 10 + (*c - '0');
        if (*c || !pid || pid > INT32_MAX)
            continue;
        if (*count < capacity)
            pids[*count] = (int32_t)pid;
        ++*count;
    }
    saved = errno;
    closedir(folder);
    return saved;
}

/* Field number n (from 3 on, as in proc(5)) of what follows the name in a stat file; 0 where there is none. */
static uint64_t stat_field(const char **at, int *field, int wanted)
{
    const char *c = *at;

    for (; *field < wanted; ++*field) {
        while (*c && *c != ' ')
            c++;
        while (*c == ' ')
            c++;
    }
    *at = c;
    return is_digit(*c) ? strtoull(c, NULL, 10) : 0;
}

static int parse_stat(const char *text, size_t length, struct kna_process *process)
{
    const char *open = strchr(text, '('), *close = strrchr(text, ')'), *at;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    size_t name;
    int field = 3;

    /* The name may have parentheses, spaces and newlines of its own. */
    if (!open || !close || close < open || close[1] != ' ' || text[length - 1] != '\n')
        return EBADMSG;
    name = (size_t)(close - open - 1);
    if (name > sizeof process->name)
        name = sizeof process->name;
    memcpy(process->name, open + 1, name);
    at = close + 2;
    process->parent = (int32_t)stat_field(&at, &field, 4);
    process->faults = stat_field(&at, &field, 10);
    process->faults += stat_field(&at, &field, 12);
    process->threads = (int32_t)stat_field(&at, &field, 20);
    process->started = stat_field(&at, &field, 22);
    process->virtual_bytes = stat_field(&at, &field, 23);
    process->resident_bytes = stat_field(&at, &field, 24) * page;
    process->image = stat_field(&at, &field, 28);
    return 0;
}

void kna_read_processes(int proc, struct kna_process processes[], int count)
{
    char text[STAT_BYTES];

    for (int i = 0; i < count; i++) {
        int32_t pid = processes[i].pid;
        ssize_t length = read_small(proc, pid, "stat", text, sizeof text);

        memset(&processes[i], 0, sizeof processes[i]);
        processes[i].pid = pid;
        if (length <= 0)
            processes[i].error = length < 0 ? errno : ESRCH;
        else
            processes[i].error = parse_stat(text, (size_t)length, &processes[i]);
    }
}

int kna_open_sizes(int proc, int pid)
{
    return open_file(proc, pid, "statm");
}

void kna_read_sizes(int proc, const int32_t pids[], const int32_t files[], int count, uint64_t sizes[])
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    char text[128], *end;

    for (int i = 0; i < count; i++) {
        sizes[2 * i] = sizes[2 * i + 1] = 0;
        if (files[i] < 0) {
            if (read_small(proc, pids[i], "statm", text, sizeof text) <= 0)
                continue;
        } else {
            ssize_t length = pread(files[i], text, sizeof text - 1, 0);

            if (length <= 0)
                continue;
            text[length] = '\0';
        }
        sizes[2 * i] = strtoull(text, &end, 10) * page;
        sizes[2 * i + 1] = strtoull(end, NULL, 10) * page;
    }
}

/* ---- maps, smaps, smaps_rollup ---- */

struct reading {
    struct kna_memory *memory;
    struct kna_mapping *mappings, *present; /* present: the one whose lines are being read, if it is kept */
    int capacity;
    uint64_t min_bytes, until;
    int done;
};

static int parse_header(const char *line, struct kna_mapping *found)
{
    unsigned int major = 0, minor = 0;
    unsigned long long start, end, offset, inode;
    char permissions[5];
    int path = 0;

    if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &start, &end, permissions, &offset, &major, &minor, &inode, &path) <
            7 ||
        !path || end < start)
        return 0;
    memset(found, 0, sizeof *found);
    found->start = start;
    found->end = end;
    found->inode = inode;
    found->device = (uint64_t)major << 32 | minor;
    memcpy(found->permissions, permissions, sizeof permissions);
    strncpy(found->path, line + path, sizeof found->path - 1);
    return 1;
}

static void take_value(struct reading *reading, const char *line)
{
    struct kna_memory *memory = reading->memory;
    struct kna_mapping *mapping = reading->present, nowhere;
    const char *colon = strchr(line, ':');
    uint64_t bytes;

    if (!colon)
        return;
    bytes = strtoull(colon + 1, NULL, 10) * 1024;
    if (!mapping)
        mapping = &nowhere;
    if (!strncmp(line, "Rss:", 4)) {
        memory->resident_bytes += bytes;
        mapping->resident_bytes = bytes;
    } else if (!strncmp(line, "Pss:", 4)) {
        memory->pss_bytes += bytes;
        mapping->pss_bytes = bytes;
    } else if (!strncmp(line, "Swap:", 5)) {
        memory->swap_bytes += bytes;
        mapping->swap_bytes = bytes;
    } else if (!strncmp(line, "KernelPageSize:", 15)) {
        mapping->page_bytes = bytes;
    } else if (!strncmp(line, "Shared_Hugetlb:", 15)) {
        memory->huge_bytes += bytes;
        mapping->huge_bytes = bytes;
    } else if (!strncmp(line, "Private_Hugetlb:", 16)) {
        /* The kernel writes this one after the shared ones. */
        memory->huge_bytes += bytes;
        mapping->huge_bytes = (mapping == &nowhere ? 0 : mapping->huge_bytes) + bytes;
    }
}

static void take_line(struct reading *reading, const char *line)
{
    struct kna_mapping found;

    if (line[0] >= 'A' && line[0] <= 'Z') {
        take_value(reading, line);
        return;
    }
    reading->present = NULL;
    if (!parse_header(line, &found))
        return;
    if (found.start > reading->until) {
        reading->done = 1;
        return;
    }
    if (!strncmp(found.path, "anon_inode:kvm-vcpu", 19))
        reading->memory->vcpus++;
    if (found.end - found.start < reading->min_bytes || strncmp(found.permissions, "rw", 2))
        return;
    if (reading->memory->mappings < reading->capacity) {
        reading->present = &reading->mappings[reading->memory->mappings];
        *reading->present = found;
    }
    reading->memory->mappings++;
}

/* Gives each whole line to take_line. A line that does not fit into the buffer is passed over. */
static int read_lines(int descriptor, struct reading *reading)
{
    char buffer[CHUNK_BYTES + 1];
    size_t held = 0, total = 0;
    int skipping = 0;

    for (;;) {
        ssize_t length = read(descriptor, buffer + held, CHUNK_BYTES - held);
        char *line = buffer, *end;

        if (length < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        if (!length)
            return total ? 0 : ESRCH; /* a process that has ended has no mappings */
        total += (size_t)length;
        if (total > MAX_BYTES)
            return EFBIG;
        held += (size_t)length;
        while ((end = memchr(line, '\n', held))) {
            *end = '\0';
            if (!skipping)
                take_line(reading, line);
            if (reading->done)
                return 0;
            skipping = 0;
            held -= (size_t)(end + 1 - line);
            line = end + 1;
        }
        if (held == CHUNK_BYTES) {
            skipping = 1;
            held = 0;
        }
        memmove(buffer, line, held);
    }
}

/* A figure of status, in bytes; -1 where it is not told. */
static int64_t status_bytes(const char *text, const char *name)
{
    const char *line = strstr(text, name);

    /* Without its end the number may be cut. */
    if (!line || !strchr(line + 1, '\n'))
        return -1;
    return (int64_t)(strtoull(line + strlen(name), NULL, 10) * 1024);
}

static void read_status(int proc, int pid, struct kna_memory *memory)
{
    char text[4096];
    int64_t anonymous, file;

    if (read_small(proc, pid, "status", text, sizeof text) <= 0)
        return;
    memory->page_table_bytes = status_bytes(text, "\nVmPTE:");
    anonymous = status_bytes(text, "\nRssAnon:");
    file = status_bytes(text, "\nRssFile:");
    if (anonymous >= 0 && file >= 0)
        memory->unshared_bytes = anonymous + file;
}

int kna_read_memory(int proc, int pid, int source, uint64_t min_bytes, uint64_t until, struct kna_memory *memory,
                    struct kna_mapping mappings[], int capacity)
{
    static const char *const names[] = {"maps", "smaps", "smaps_rollup"};
    struct reading reading = {
        .memory = memory, .mappings = mappings, .capacity = capacity, .min_bytes = min_bytes, .until = until};
    int descriptor, error;

    memset(memory, 0, sizeof *memory);
    memory->page_table_bytes = memory->unshared_bytes = -1;
    if (source < KNA_MAPS || source > KNA_SMAPS_ROLLUP)
        return EINVAL;
    descriptor = open_file(proc, pid, names[source]);
    if (descriptor < 0)
        return errno;
    error = read_lines(descriptor, &reading);
    close(descriptor);
    if (!error && source != KNA_MAPS)
        read_status(proc, pid, memory);
    return error;
}

/* What kvm.c needs from an architecture: one guest_*.c implements all of it. Functions return 0 or an errno. */
#ifndef KVM_GUEST_H
#define KVM_GUEST_H

#include <linux/kvm.h>
#include <stdint.h>

/* The guest's sum, which it does `rounds` times: state = rotate_left(state * factor + rounds left, 5). */
struct guest_input {
    uint32_t state, factor, rounds;
};

enum guest_event {
    GUEST_NOTHING, /* an exit that says nothing: enter again */
    GUEST_VALUE,   /* it gave a value */
    GUEST_HALTED,  /* it reached its end */
    GUEST_WRONG    /* an exit that our guest never causes */
};

/*
 * The size is also the alignment: s390x wants both to be 1 MiB, arm64 has pages of up to 64 KiB. On arm64 machines
 * RAM at 0 is unusual, so it is put where they have it.
 */
#if defined(__s390x__)
#define GUEST_MEMORY_BYTES 0x100000ul
#else
#define GUEST_MEMORY_BYTES 0x10000ul
#endif
#if defined(__aarch64__)
#define GUEST_MEMORY_ADDRESS 0x40000000ul
#else
#define GUEST_MEMORY_ADDRESS 0x0ul
#endif

/* 0: this architecture has no guest of ours, and neither guest_start nor guest_exit is called. */
extern const int guest_supported;

/* The argument of KVM_CREATE_VM. */
unsigned long guest_vm_type(int device);

/* What a VM needs before its first vCPU, besides memory. */
int guest_prepare_vm(int vm);

/* Puts the program (enum kna_guest) into memory, and the vCPU at its start. */
int guest_start(int vm, int vcpu, struct kvm_run *run, unsigned char *memory, int program,
                const struct guest_input *input);

enum guest_event guest_exit(const struct kvm_run *run, uint32_t *value);

/*
 * Assembles a guest program into read-only data as kna_NAME .. kna_NAME_end. Written with mnemonics, so that the
 * assembler checks what a table of bytes would leave to faith. Every jump is relative: it is copied before it runs.
 */
#define GUEST_PROGRAM(name, text)                                                                                  \
    __asm__(".pushsection .rodata\n.balign 8\n.globl kna_" #name "\n.hidden kna_" #name "\nkna_" #name ":\n" text \
            "\n.globl kna_" #name "_end\n.hidden kna_" #name "_end\nkna_" #name "_end:\n.popsection\n");           \
    extern const unsigned char kna_##name[] __attribute__((visibility("hidden")));                                 \
    extern const unsigned char kna_##name##_end[] __attribute__((visibility("hidden")))

#define COPY_GUEST_PROGRAM(memory, name) memcpy(memory, kna_##name, (size_t)(kna_##name##_end - kna_##name))

#endif

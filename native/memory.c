/*
 * Memory that is free in this process, back to the kernel. See malloc_trim(3).
 */
#include "node_agent.h"

#include <malloc.h>

void kna_give_back_memory(void)
{
    /* Other C libraries have no such call, and none of the heaps that need it. */
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

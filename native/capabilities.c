/*
 * Gives up what a privileged container or a root shell has beyond what is needed. See capabilities(7).
 */
#include "node_agent.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WORDS = _LINUX_CAPABILITY_U32S_3 };

int kna_keep_capabilities(uint64_t keep)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[WORDS];

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return errno;
    /* The bounding set first: to lower it takes SETPCAP. Who has not got that cannot gain by exec either, with the bit above. */
    for (int number = 0; number < 64; number++) {
        int there = prctl(PR_CAPBSET_READ, number, 0, 0, 0);

        if (there < 0)
            break; /* EINVAL: the kernel knows no more */
        if (there && !(keep >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0 && errno != EPERM)
            return errno;
    }
    /* EINVAL: a kernel before 4.3, which has no such set. */
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return errno;
    memset(data, 0, sizeof data);
    if (syscall(SYS_capget, &header, data) < 0)
        return errno;
    for (int word = 0; word < WORDS; word++) {
        uint32_t kept = (uint32_t)(keep >> (32 * word));

        data[word].permitted &= kept;
        data[word].effective = data[word].permitted;
        data[word].inheritable = 0;
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return errno;
    return 0;
}

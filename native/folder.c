/*
 * inotify on one folder. The descriptor belongs to the caller, who reads and closes it with what Python has.
 */
#include "node_agent.h"

#include <errno.h>
#include <sys/inotify.h>
#include <unistd.h>

int kna_watch_folder(const char *path, int *descriptor)
{
    int notify, saved;

    *descriptor = -1;
    notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (notify < 0)
        return errno;
    if (inotify_add_watch(notify, path,
                          IN_CREATE | IN_DELETE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |
                              IN_ONLYDIR) < 0) {
        saved = errno;
        close(notify);
        return saved;
    }
    *descriptor = notify;
    return 0;
}

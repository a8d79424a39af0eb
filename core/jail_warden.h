/* The warden of a jail that asks: opens files for a process that may not (jail_enter_asking), if it
 * finds them on a list. So nothing but libraries can be read while libraries are loaded, whatever
 * the code in them tries, and whatever the kernel offers otherwise. */
#ifndef FAIRWAY_JAIL_WARDEN_H
#define FAIRWAY_JAIL_WARDEN_H

#include <fairway/error.h>
#include <sys/types.h>

struct jail_warden {
    int listener; /* of the process's jail; -1: it does not ask */
    pid_t process;
    /* NULL-terminated. "/usr/lib/": that folder, for listing, and what lies below it and is a
     * shared library (an ELF file); without the last slash: that file, or all below it. /proc/self
     * is the process's. */
    const char *const *readable;
    char refused[512]; /* paths that were asked for and are not on the list */
};

/* Answer one question, which poll() says is there. Questions of a process that has ended by then
 * are dropped. E_IO; E_UNSUPPORTED: the process's memory, where the path is, may not be read. */
fw_status jail_warden_answer(struct jail_warden *warden, fw_error *error);

#endif

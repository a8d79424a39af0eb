/* Jails: what a process gives up, for good, before it runs code that nobody vouches for.
 *
 * A jail is of three parts. No privileges: none are gained from here on, and capabilities are
 * dropped. Landlock, where the kernel has it: files may be read below the directories named, and
 * nowhere else; other processes may not be looked into. Seccomp: a list of the system calls that
 * are left; all others fail with EPERM. All threads of the process are in it. Setting processors is
 * answered as if it were done, and is not. */
#ifndef FAIRWAY_JAIL_H
#define FAIRWAY_JAIL_H

#include <fairway/error.h>

enum jail {
    /* Files can be read, as loading a library does; nothing can be written but to descriptors that
     * are open; no network, no other process. */
    JAIL_LOADING,
    /* No files either: memory, threads, the clock, and descriptors that are open. */
    JAIL_SEALED,
    /* As JAIL_SEALED, for a process that works with a device which it has opened before: what its
     * driver asks of descriptors that are open, too. */
    JAIL_SEALED_WITH_DEVICE
};

/* `readable`: paths of files and directories, NULL-terminated; those that are absent are passed
 * over. NULL but with JAIL_LOADING. A process goes from JAIL_LOADING to a sealed one, never back.
 * E_UNSUPPORTED when the kernel refuses seccomp. */
fw_status jail_enter(enum jail jail, const char *const *readable, fw_error *error);

/* JAIL_LOADING without a list: each file is opened by another process, which is asked
 * (jail_warden.h) and needs `*listener`, a descriptor that is now the caller's. It is sent by
 * sendmsg(), which this jail allows. E_UNSUPPORTED when the kernel cannot have it so; then nothing
 * has changed but that privileges are gone. */
fw_status jail_enter_asking(int *listener, fw_error *error);

/* Before jail_enter(JAIL_SEALED): have calls that it refuses noted, for messages. They fail with
 * EPERM all the same; but a thread that blocks SIGSYS is ended by one, so this is not for processes
 * whose libraries do that. Does nothing where it is not known how. */
void jail_note_refusals(void);

/* "openat (3 times), socket": what was refused so far, "" when nothing was. Returns `out`. */
const char *jail_refusals(char *out, size_t size);

#endif

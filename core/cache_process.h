/* A process for a cache: this program once more, as `fairway cache-child`, so that nothing of the
 * host's memory goes along.
 *
 * It gets descriptor 3 (a channel, or a file to write to), a file for its last words as standard
 * error, /dev/null as standard input and output, and of the environment what a library is found by;
 * all else is closed. While such a process lives, the host is marked as one that others may not
 * look into (PR_SET_DUMPABLE), which also means that it leaves no core file. */
#ifndef FAIRWAY_CACHE_PROCESS_H
#define FAIRWAY_CACHE_PROCESS_H

#include <fairway/error.h>
#include <stdbool.h>
#include <sys/types.h>

/* The hidden verb: argv[1] of the child. Programs that use caches in processes of their own hand
 * their arguments to cache_child_main (cache_child.h) when they begin with it. */
#define CACHE_CHILD_VERB "cache-child"
enum { CACHE_CHILD_DESCRIPTOR = 3 };

struct cache_process {
    pid_t pid;  /* 0: none, or it has ended */
    int status; /* of the end, as waitpid() gives it */
    int words;  /* what it writes to standard error */
};

/* `arguments` follow the verb; NULL-terminated, 4 at most. `descriptor` stays the caller's. E_IO.
 */
fw_status cache_process_start(const char *const *arguments, int descriptor,
                              struct cache_process *process, fw_error *error);

/* Whether it has ended; then `how` says of what, as often as it is asked: "it died of signal 11
 * (Segmentation fault)". */
bool cache_process_ended(struct cache_process *process, char *how, size_t size);

/* The first line that it wrote to standard error, or "". */
void cache_process_words(const struct cache_process *process, char *words, size_t size);

/* Wait up to `seconds` for its end, then end it. An empty one is fine. */
void cache_process_stop(struct cache_process *process, double seconds);

/* Of a text that the child wrote: what is not printable becomes '?'. */
void cache_process_clean(char *text);

#endif

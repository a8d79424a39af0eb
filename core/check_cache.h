/* The probes of a cache that `fairway check` makes: the cache reads made-up text (synthetic.h)
 * again and again, each time in a fresh process and with something changed that must not matter.
 *
 *   protocol             it states what the host accepts, and does not crash or hang
 *   sum, target-independence, score-before-update, zero-weight, replay
 *                        as in audit.h, at all positions
 *   fresh-process        a fresh process, in the same working directory, states the same bits, and
 *                        no file is left there
 *   threads              other numbers of threads: the same bits
 *   batching             other batches of windows: the same bits
 *   future-flip          other tokens behind a position: the same bits up to it
 *   target-independence  another token right behind it, and no other: the same bits up to it
 *   delivery             counts_only: tokens that come before the first scored one, delivered at
 *                        once or in pieces: the same bits afterwards
 *   counts-only          counts_only: other rows before: the same bits for the same row
 *   document-edges       one-token documents, empty ones, a stream of one target, two documents in
 *                        either order: all of audit.h holds there
 *   snapshot             where it is offered: a fresh instance that is given the state goes on with
 *                        the same bits
 *   coin                 on uniformly random tokens and rows it gains no more than 40 bits (coin.h)
 *
 * A process of its own for each run is what makes a flipped future tell: nothing of the other runs'
 * tokens is in its memory for a plugin to find. What no run can see: a plugin that carries the
 * text, or reads and writes files outside its working directory. */
#ifndef FAIRWAY_CHECK_CACHE_H
#define FAIRWAY_CHECK_CACHE_H

#include "arguments.h"
#include "token_table.h"
#include "verdicts.h"

struct cache_check {
    const struct arguments *arguments; /* --set and --plugin-dir; [cache] chooses the cache */
    const char *name, *text;           /* an INI text that they override, and its name */
    const struct token_table *table;
    uint64_t tokens; /* of a run's stream, at least 2 */
    uint64_t seed;
    unsigned seconds; /* that a run may take, at least 1 */
};

/* Errors: what the configuration or the plugin says before it is asked anything, E_MEMORY, E_IO. A
 * probe that fails is none. */
fw_status check_cache(const struct cache_check *check, struct verdicts *verdicts, fw_error *error);

#endif

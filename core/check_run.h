/* One run of the probes of a cache (check_cache.h), in a process of its own. */
#ifndef FAIRWAY_CHECK_RUN_H
#define FAIRWAY_CHECK_RUN_H

#include "check_cache.h"

enum check_what {
    CHECK_SCORE,    /* the whole of evaluate() */
    CHECK_DELIVERY, /* tokens before the first scored one, delivered in several ways */
    CHECK_SNAPSHOT, /* the state, given to a fresh instance */
};

enum check_text {
    CHECK_TEXT,        /* check->tokens of synthetic text */
    CHECK_COIN,        /* CHECK_COIN_TOKENS uniformly random ones, with uniform rows */
    CHECK_EDGES,       /* documents of few tokens, then two documents */
    CHECK_EDGES_OTHER, /* the same, the two in the other order */
    CHECK_PAIR         /* two tokens: one target */
};

enum { CHECK_COIN_TOKENS = 16384, CHECK_EDGE_TOKENS = 256 };

struct check_run {
    enum check_what what;
    enum check_text text;
    uint64_t flip;   /* not 0: tokens behind this one of the stream are others */
    bool flip_one;   /* and of these only the first */
    bool other_rows; /* most rows are others */
    int64_t batch;   /* windows of a pass; 0: 4 */
    int64_t threads; /* 0: 2 */
    bool audited;    /* by audit.h, all positions */
};

struct check_outcome {
    bool opened; /* configuration and plugin were */
    fw_status status;
    char message[1024];
    bool counts_only, snapshots; /* what the cache declares */
    uint64_t positions;
    double nats;
    struct verdicts verdicts;
};

/* Do the run in a fresh process whose working directory is `directory`. `digests` gets one for each
 * position, room for check_positions(). A run that fails, crashes or hangs says so in the outcome.
 * Errors: E_IO, E_MEMORY of the process that asks. */
fw_status check_run(const struct cache_check *check, const struct check_run *run,
                    const char *directory, struct check_outcome *outcome, uint64_t *digests,
                    fw_error *error);

/* The stream of a run; the caller frees it. NULL without memory. */
uint16_t *check_text(const struct cache_check *check, const struct check_run *run, uint64_t *n);

/* Positions that any run scores, at most. */
uint64_t check_positions(const struct cache_check *check);

#endif

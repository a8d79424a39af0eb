/* What the parts of an evaluation share: evaluate.c tells the story, evaluate_caches.c scores
 * caches, evaluate_result.c adds up. */
#ifndef FAIRWAY_EVALUATE_INTERNAL_H
#define FAIRWAY_EVALUATE_INTERNAL_H

#include "evaluate_audit.h"
#include "ledger.h"
#include "reading.h"
#include "relay.h"
#include "rows.h"
#include "windows.h"

/* A cache that is being scored, with a ledger of its own. */
struct scored_cache {
    struct cache_stream *stream; /* NULL: none */
    struct cache_audit *audit;   /* NULL: none */
    struct ledger *ledger;
    bool repeats;      /* asked again about targets that come again */
    bool warm;         /* parts begin after all tokens before them, as eval.warm_start says */
    uint64_t next;     /* first position that it was never asked about */
    uint32_t *context; /* what fw_row.context shows of the stream */
};

enum { CACHE, COUNTERPART, MOST_CACHES, MOST_BLOCKS = 4 };

/* A piece on its way: read, formed and scored for the model, then scored for the caches, then
 * entered in their ledgers. */
struct block {
    struct piece piece; /* its log-probabilities are gone when caches come */
    uint64_t number;
    struct rows rows;
    double *nats;             /* the model's */
    double *own[MOST_CACHES]; /* those of caches, or NOT_ASKED */
    uint32_t *bytes;
};

struct evaluation {
    const struct evaluate_options *options;
    struct windows windows; /* a stream's, where it is read in windows for comparison */
    int64_t batch;          /* windows of one forward pass */
    bool reads_on;          /* EVAL_STREAM: */
    struct windows chunks;  /* how it is read */
    struct windows runs;    /* what caches know as windows */
    bool alone;             /* no cache is scored */
    uint16_t *tokens;       /* that the model reads */
    uint16_t *told; /* that are scored and the caches learn: the same, or drawn as it goes on */
    struct block blocks[MOST_BLOCKS];
    uint32_t n_blocks;
    uint64_t n_filled;
    struct relay *relay;
    struct ledger *ledger;
    struct ledger *fair_ledger; /* of the model when `ledger` counts targets several times */
    uint64_t fair_next;
    struct ledger *beginning; /* of the first `check_targets`, where there are any */
    uint64_t check_targets;
    struct scored_cache cache, counterpart;
    struct scored_cache second; /* of the same cache: see open_second */
    int with_entropy;
    double begin, audit_seconds;
    uint64_t audit_seed;
    struct verdicts verdicts;
};

/* In place of a code length: the cache was not asked, as the target had been scored before. */
#define NOT_ASKED (-1.0)

/* Open the cache, its second instance and its counterpart, as the options say; each is closed by
 * evaluate_leave_cache. */
fw_status evaluate_open_caches(struct evaluation *e, fw_error *error);
void evaluate_leave_cache(struct scored_cache *cache);

/* The relay's: the first consumer has the cache, alone or every other block of it, and the
 * counterpart; the second one has the cache's other blocks. `self` is the evaluation. */
fw_status evaluate_score_caches(void *self, uint32_t consumer, uint32_t slot, fw_error *error);

/* Close the ledgers. Errors: those of ledger_close, and of a cache that died of what it was told
 * last. */
fw_status evaluate_summarise(const struct evaluation *e, struct evaluate_result *result,
                             fw_error *error);

#endif

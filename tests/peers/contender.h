/* What replay plays rows to: caches, and predictors of other kinds that stand here to be compared
 * with them. Each states code lengths in nats for every target, in stream order, from what came
 * before it. */
#ifndef PEERS_CONTENDER_H
#define PEERS_CONTENDER_H

#include "rows.h"
#include "rows_file.h"
#include "session.h"

/* Consecutive rows of the stream. */
struct block {
    const struct rows_header *header;
    const struct rows *rows; /* n of them */
    uint64_t first, n;
};

struct contender_result {
    char note[160];   /* what was tuned, and marks; may be empty */
    uint64_t memory;  /* bytes; 0: unknown */
    uint64_t changed; /* targets whose code length differs from the model's; 0: unknown */
    bool invalid;     /* its statements are no verifiable distributions */
    double mean_sum;  /* then: what they sum to */
};

struct contender_type {
    const char *name; /* NULL: caches, by whatever name */
    const char *keys; /* for messages: what goes behind the colon */
    /* `text` is NAME[:KEY=VALUE,...] and outlives the contender. */
    fw_status (*open)(const char *text, const struct rows_header *header,
                      const struct arguments *arguments, void **self, fw_error *error);
    void (*close)(void *self); /* NULL is fine */
    bool (*needs_entropy)(const void *self);
    /* Code lengths of the block's targets go to nats[0] to nats[n - 1], here or in finish(). */
    fw_status (*play)(void *self, const struct block *block, double *nats, fw_error *error);
    /* After the last block: `model` and `nats` are those of all targets. */
    fw_status (*finish)(void *self, const double *model, double *nats,
                        struct contender_result *result, fw_error *error);
};

extern const struct contender_type cache_contender, additive_contender, kneser_ney_contender;

/* The number behind KEY= in NAME:KEY=VALUE,..., checked against a range; `*value` stays where the
 * key is not given. E_CONFIG. */
fw_status contender_number(const char *text, const char *key, double least, double most,
                           double *value, fw_error *error);

/* E_CONFIG: a key that is not among `keys`, "a b c". */
fw_status contender_check_keys(const char *text, const char *keys, fw_error *error);

#endif

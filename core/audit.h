/* The audit of a cache while it is scored: probes that ride along with the real scoring.
 *
 * At sampled positions (all of them when `full`) the whole distribution is written out:
 *   sum                  it sums to one in float64, within 1e-9, and no probability is negative
 *   target-independence  the target's probability is what the distribution says of it, bit for bit;
 *                        an unverified form is asked about every token for that
 *   score-before-update  once the cache was told, its statement still reads as it did before
 *   zero-weight          a statement that changes nothing (weight 1, gains 1) is the model's row,
 *                        bit for bit
 * and a twin, another instance of the cache, accompanies the scoring on the same rows for the first
 * positions (all of the stream's first part when `full`):
 *   replay               the twin, which has read another stream before it began this one, which is
 *                        asked twice for each prediction, and behind whose inputs lie other decoys
 *                        (cache_stream.h), states the same bits
 *
 * What this cannot see: a plugin that finds the text in the host's memory tells the twin the same.
 * `fairway check` (check.h) probes that with other futures in fresh processes. */
#ifndef FAIRWAY_AUDIT_H
#define FAIRWAY_AUDIT_H

#include "cache_stream.h"
#include "verdicts.h"

struct cache_audit;

struct cache_audit_options {
    const char *subject; /* "cache" or "counterpart" */
    const struct plugin_choice *choice;
    const fw_host *host;
    const struct token_table *table;
    uint64_t targets; /* of the stream */
    bool allow_unverified;
    uint64_t seed; /* which positions are sampled */
    bool full;
    struct verdicts *verdicts; /* written as probes are made */
};

/* What `options` points to must outlive the audit. E_MEMORY. */
fw_status cache_audit_open(const struct cache_audit_options *options, struct cache_audit **audit,
                           fw_error *error);
void cache_audit_close(struct cache_audit *audit); /* NULL is fine */

/* As cache_stream_score, begin and end_window of the stream that is audited; without an audit
 * (NULL) nothing else. A probe that fails is no error here. */
fw_status cache_audit_score(struct cache_audit *audit, struct cache_stream *stream,
                            const fw_row *row, uint32_t target, double *nats, fw_error *error);
fw_status cache_audit_begin(struct cache_audit *audit, struct cache_stream *stream,
                            fw_error *error);
fw_status cache_audit_end_window(struct cache_audit *audit, struct cache_stream *stream,
                                 fw_error *error);

/* A number that stands for every bit of a statement: form, weight, tokens and values; of an
 * unverified one, its answer for every token. `scratch` has room for V values. E_PROTOCOL. */
fw_status statement_digest(const struct cache_statement *statement, double *scratch,
                           uint64_t *digest, fw_error *error);

/* Positions from one sample to the next, on average: 128 samples at least, as far as there are
 * as many targets, and one in 4096 of a long stream. */
uint64_t audit_sample_every(uint64_t targets);

/* The one that is sampled of positions [step * every, (step + 1) * every). */
uint64_t audit_sample(uint64_t seed, uint64_t every, uint64_t step);

#endif

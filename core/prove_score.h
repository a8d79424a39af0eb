/* What a proof is held against: the scorer's code length of the same tokens, its rows, and the
 * coded path with its own. */
#ifndef FAIRWAY_PROVE_SCORE_H
#define FAIRWAY_PROVE_SCORE_H

#include "prove.h"

/* The scorer's side: its windows, or chunks of a stream, and batches of no more windows than a span
 * has. */
struct prove_scoring {
    struct scorer *scorer; /* built */
    const struct prove_spans *spans;
    struct progress *progress;
    struct prove_result *result;
    struct experiment experiment;
    struct decoder *decoder; /* EVAL_STREAM: what it reads with */
    struct language_model bulk;
};

/* `scorer`, `spans`, `progress` and `result` are set. E_MEMORY; those of decoder_create. */
fw_status prove_scoring_open(struct prove_scoring *scoring, fw_error *error);
void prove_scoring_close(struct prove_scoring *scoring); /* zeroed is fine */

/* The spans as `fairway eval` scores them: rule_bytes and claimed_bpb of the result. */
fw_status prove_score(struct prove_scoring *scoring, fw_error *error);

/* Code them: `coded`, the caller's to free, and of the result path_bits and how far
 * the rows are from the scorer's. */
fw_status prove_encode(struct prove_scoring *scoring, struct bytes *coded, fw_error *error);

#endif

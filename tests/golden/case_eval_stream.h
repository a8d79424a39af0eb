/* The recorded case eval_stream: what record 993's own evaluation returned for a stream of tokens
 * and a language model whose logits depend on the current token alone,
 *     logit(a, b) = 4 sin(0.1 ((31 a + 17 b) mod 1009)), rounded to float32,
 * against what evaluate() makes of the same with eval.faithful and the cache ngram_hashed.
 *
 * The folder holds manifest.txt and data.bin with the arrays `tokens`, the token table
 * `lut/base_bytes`, `lut/leading_space`, `lut/boundary` and `token_bytes_of_targets`; and
 * results.txt with lines "NAME val_loss=... val_bpb=...". NAME says what was run:
 *     sliding_seqS_strideT                     windows of S tokens, T apart
 *     hashed_ngram_KIND                        2048/64 and the cache, KIND being
 *       adaptive_AtoB linear_AtoB fixed_alpha_AtoB   orders A to B, share of the counts
 *       orderN_only                                  adaptive, this order alone
 *       small_table_N                                adaptive, tables of N buckets */
#ifndef CASE_EVAL_STREAM_H
#define CASE_EVAL_STREAM_H

#include "arguments.h"

struct eval_stream_line {
    char name[96];
    double expected_loss, loss; /* nats per counted target */
    double expected_bpb, bpb;
    double mean_sum, largest_sum; /* of the hashed cache's predictions; else 0 */
};

#define EVAL_STREAM_TOLERANCE 1e-7 /* of loss and bpb, absolute: the record computed in float32 */

/* Run the case in `directory`; `visit` gets each line of results.txt. Of `arguments`, which may be
 * NULL, the plugin directories are used. Errors, with the path: E_IO; E_FORMAT for a folder that
 * lacks an array, a token table that does not give the bytes of targets, or a line of another form;
 * and what evaluate() says. */
fw_status case_eval_stream(const char *directory, const struct arguments *arguments,
                           void (*visit)(void *argument, const struct eval_stream_line *line),
                           void *argument, fw_error *error);

#endif

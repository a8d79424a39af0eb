/* The coin test of what is scored (coin.h says what a gain on random tokens means): caches, and the
 * model itself, on tokens whose distribution is known because the host draws them.
 *   - uniform: uniform tokens, and a model that knows it: each row gives every token 1/V. Nobody
 *     has anything to gain, whatever the cache.
 *   - model: uniform tokens, read by the model itself. No code of them is shorter than N log2 V by
 *     more than luck, neither the model's own, which an attention that looks ahead could shorten,
 *     nor that with a cache. The model misjudges these tokens, so that a cache gains over it in all
 *     honesty: only the total counts.
 *   - drawn: the rows of the text that is scored, with each target drawn from its row instead. The
 *     row then is the truth, and no cache gains over it. Its rows are those of the score itself, so
 *     a cache can hardly tell this from scoring.
 *
 * All go through evaluate(), with the mode, the windows and the protocol of the score. Each target
 * counts once, also under eval.faithful. */
#ifndef FAIRWAY_COIN_TEST_H
#define FAIRWAY_COIN_TEST_H

#include "coin_result.h"
#include "evaluate.h"

/* `tokens` targets for each of the three, of `seed`; `score` says how. Without a cache only `model`
 * is made; without a model's functions (infer is NULL) only `uniform`. `drawn` has as many targets
 * as the corpus allows. Errors: those of evaluate(). */
fw_status coin_test(const struct evaluate_options *score, uint64_t tokens, uint64_t seed,
                    struct coin_result *result, fw_error *error);

#endif

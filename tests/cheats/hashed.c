/* The target in the key: how often (last token, target) fell into a bucket, over how often the last
 * token did, in a table so small that strangers share buckets. Each number looks like a
 * probability; over the vocabulary they sum to far more than one. The twin keeps what is exact
 * of it, and states a distribution. */
#include "cheat.h"

enum { BUCKETS = 64 };

static uint32_t pairs[BUCKETS], contexts[BUCKETS];

static uint32_t bucket(uint32_t context, uint32_t token) {
    return (context * 36313u ^ token * 27191u) % BUCKETS;
}

static fw_status begin(void *self, fw_error *error) {
    memset(pairs, 0, sizeof pairs);
    memset(contexts, 0, sizeof contexts);
    return past_begin(self, error);
}

static double probability(void *self, const fw_row *row, uint32_t token) {
    const uint32_t last = ((past *)self)->last, seen = contexts[bucket(last, 0)];
    if (seen < 2) return row->probabilities[token];
    const double ratio = (double)pairs[bucket(last, token)] / (double)seen;
    return 0.5 * row->probabilities[token] + 0.5 * (ratio < 1 ? ratio : 1);
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    if (!CHEATS) return past_predict(self, row, prediction, error);
    prediction->form = FW_PREDICT_UNVERIFIED;
    prediction->probability = probability;
    return FW_OK;
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    past *p = self;
    (void)error;
    for (uint64_t i = 0; i < n; i++) {
        contexts[bucket(p->last, 0)]++;
        pairs[bucket(p->last, tokens[i])]++;
        past_learn(p, tokens[i]);
    }
    return FW_OK;
}

static const fw_cache vtable = {PAST_LIFETIME, .begin = begin, .predict = predict, .update = update,
                                .unverified = CHEATS};
CHEAT_MODULE(vtable);

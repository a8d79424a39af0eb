#include "prove_spans.h"

#include <inttypes.h>
#include <stdlib.h>

#include "proof_file.h"
#include "random.h"

void prove_spans_free(struct prove_spans *spans) {
    free(spans->starts);
    free(spans->tokens);
    *spans = (struct prove_spans){0};
}

static fw_status allocate(uint64_t n, uint64_t tokens, struct prove_spans *spans, fw_error *error) {
    if (n > PROOF_MOST_TOKENS / tokens)
        return fw_fail(error, FW_E_LIMIT,
                       "%" PRIu64 " spans of %" PRIu64 " tokens are more than the %" PRIu64
                       " that a proof file can hold",
                       n, tokens, PROOF_MOST_TOKENS);
    spans->spans = n;
    spans->span_tokens = tokens;
    spans->starts = calloc(n, sizeof *spans->starts);
    spans->tokens = malloc(n * tokens * sizeof *spans->tokens);
    if (spans->starts != NULL && spans->tokens != NULL) return FW_OK;
    prove_spans_free(spans);
    return fw_fail(error, FW_E_MEMORY, "no memory for %" PRIu64 " tokens", n * tokens);
}

fw_status prove_spans_whole(const struct corpus *corpus, uint64_t most, struct prove_spans *spans,
                            fw_error *error) {
    uint64_t n = corpus_tokens(corpus);
    if (most > 0 && most < n) n = most;
    if (n < 2)
        return fw_fail(error, FW_E_SHAPE, "a proof of %" PRIu64 " tokens; 2 are the least", n);
    FW_TRY(allocate(1, n, spans, error));
    spans->whole = true;
    corpus_read(corpus, 0, n, spans->tokens);
    return FW_OK;
}

fw_status prove_spans_sample(const struct corpus *corpus, uint64_t n, uint64_t tokens,
                             uint64_t seed, struct prove_spans *spans, fw_error *error) {
    const uint64_t all = corpus_tokens(corpus);
    if (all / n < tokens)
        return fw_fail(error, FW_E_SHAPE,
                       "the data has %" PRIu64 " tokens: too few for %" PRIu64 " spans of %" PRIu64
                       "; --all decodes all of it",
                       all, n, tokens);
    FW_TRY(allocate(n, tokens, spans, error));
    struct random random = random_seeded(seed);
    const uint64_t part = all / n;
    for (uint64_t i = 0; i < n; i++) {
        spans->starts[i] = i * part + random_below(&random, part - tokens + 1);
        corpus_read(corpus, spans->starts[i], tokens, spans->tokens + i * tokens);
    }
    return FW_OK;
}

/* Which tokens a proof is of: all of a corpus, or spans sampled from it. */
#ifndef FAIRWAY_PROVE_SPANS_H
#define FAIRWAY_PROVE_SPANS_H

#include "corpus.h"

/* Zero-initialise; free with prove_spans_free. */
struct prove_spans {
    bool whole; /* one span: the corpus, or its first tokens */
    uint64_t spans, span_tokens;
    uint64_t *starts; /* of each span in the corpus */
    uint16_t *tokens; /* [spans * span_tokens] */
};

/* The first `most` tokens (0: all). E_SHAPE below 2 tokens; E_LIMIT beyond what a file can hold. */
fw_status prove_spans_whole(const struct corpus *corpus, uint64_t most, struct prove_spans *spans,
                            fw_error *error);

/* `n` spans of `tokens`, in order and apart: the corpus is cut into n equal parts, and `seed` draws
 * where in its part each span begins. E_SHAPE when the corpus is too short for them. */
fw_status prove_spans_sample(const struct corpus *corpus, uint64_t n, uint64_t tokens,
                             uint64_t seed, struct prove_spans *spans, fw_error *error);

void prove_spans_free(struct prove_spans *spans);

#endif

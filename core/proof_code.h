/* Spans of tokens to bytes and back, by the distributions of next_distribution.h. Each span is a
 * stream of its own; all of them make one code. */
#ifndef FAIRWAY_PROOF_CODE_H
#define FAIRWAY_PROOF_CODE_H

#include "arithmetic_coder.h"
#include "next_distribution.h"
#include "proof_file.h"

/* Who is told of each token, before it is told to the state: `token` of span `span`, its index
 * there, and its probability. What it returns other than FW_OK ends the work. */
struct proof_listener {
    void *self;
    fw_status (*coded)(void *self, uint64_t span, uint64_t index, uint32_t token,
                       double probability, fw_error *error);
};

/* `tokens` are those of the spans, one after the other. `bytes` gets the code, the caller's to
 * free, and `nats` its ideal length: the sum of -log p of all tokens. Errors: those of
 * next_distribution; E_PROTOCOL: a token that came has probability 0. */
fw_status proof_encode(struct distribution_state *state, uint32_t vocabulary,
                       const uint16_t *tokens, uint64_t spans, uint64_t span_tokens,
                       const struct proof_listener *listener, struct bytes *bytes, double *nats,
                       fw_error *error);

/* The tokens of a file, as long as nothing ends it before. Errors: those of next_distribution;
 * E_FORMAT when the bytes cannot come from these distributions. Other tokens than were encoded may
 * come before that is noticed, or be all that there is to notice. */
fw_status proof_decode(struct distribution_state *state, uint32_t vocabulary,
                       const struct proof_file *file, const struct proof_listener *listener,
                       fw_error *error);

#endif

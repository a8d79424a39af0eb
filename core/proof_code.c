#include "proof_code.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "frequencies.h"

/* One of the two directions, at work. */
struct coding {
    struct distribution_state *state;
    uint32_t vocabulary;
    const struct proof_listener *listener;
    uint64_t *cumulative;
    double nats;
    struct arithmetic_encoder *encoder;
    struct arithmetic_decoder *decoder; /* one of the two */
};

static fw_status encode_token(const struct coding *c, uint32_t token, uint64_t span, uint64_t index,
                              double probability, fw_error *error) {
    if (!(probability > 0))
        return fw_fail(error, FW_E_PROTOCOL,
                       "span %" PRIu64 ", token %" PRIu64
                       ": token %u came, and its probability is %g; every token that can come "
                       "needs more than 0",
                       span, index, token, probability);
    arithmetic_encode(c->encoder, c->cumulative[token], c->cumulative[token + 1]);
    return FW_OK;
}

static fw_status code_token(struct coding *c, uint64_t span, uint64_t index, uint32_t *token,
                            fw_error *error) {
    const double *probabilities = NULL;
    FW_TRY(next_distribution(c->state, &probabilities, error));
    FW_TRY(frequencies_form(probabilities, c->vocabulary, c->cumulative, error));
    if (c->encoder != NULL)
        FW_TRY(encode_token(c, *token, span, index, probabilities[*token], error));
    else
        FW_TRY(arithmetic_decode(c->decoder, c->cumulative, c->vocabulary, token, error));
    const double probability = probabilities[*token];
    c->nats -= log(probability);
    if (c->listener != NULL)
        FW_TRY(c->listener->coded(c->listener->self, span, index, *token, probability, error));
    return distribution_tell(c->state, *token, error);
}

/* `tokens` NULL: they are found. */
static fw_status code_spans(struct coding *c, const uint16_t *tokens, uint64_t spans,
                            uint64_t span_tokens, fw_error *error) {
    c->cumulative = calloc(c->vocabulary + 1u, sizeof *c->cumulative);
    if (c->cumulative == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for %u frequencies", c->vocabulary);
    fw_status status = FW_OK;
    for (uint64_t span = 0; span < spans && status == FW_OK; span++) {
        status = distribution_begin(c->state, error);
        for (uint64_t i = 0; i < span_tokens && status == FW_OK; i++) {
            uint32_t token = tokens != NULL ? tokens[span * span_tokens + i] : 0;
            status = code_token(c, span, i, &token, error);
        }
    }
    free(c->cumulative);
    return status;
}

fw_status proof_encode(struct distribution_state *state, uint32_t vocabulary,
                       const uint16_t *tokens, uint64_t spans, uint64_t span_tokens,
                       const struct proof_listener *listener, struct bytes *bytes, double *nats,
                       fw_error *error) {
    struct arithmetic_encoder encoder;
    arithmetic_encoder_begin(&encoder);
    struct coding coding = {
        .state = state, .vocabulary = vocabulary, .listener = listener, .encoder = &encoder};
    fw_status status = code_spans(&coding, tokens, spans, span_tokens, error);
    if (status == FW_OK) status = arithmetic_encoder_end(&encoder, error);
    if (status != FW_OK) {
        bytes_free(&encoder.bytes);
        return status;
    }
    *bytes = encoder.bytes;
    *nats = coding.nats;
    return FW_OK;
}

fw_status proof_decode(struct distribution_state *state, uint32_t vocabulary,
                       const struct proof_file *file, const struct proof_listener *listener,
                       fw_error *error) {
    struct arithmetic_decoder decoder;
    arithmetic_decoder_begin(&decoder, file->coded, file->coded_bytes);
    struct coding coding = {
        .state = state, .vocabulary = vocabulary, .listener = listener, .decoder = &decoder};
    FW_TRY(code_spans(&coding, NULL, file->spans, file->span_tokens, error));
    return arithmetic_decoder_end(&decoder, error);
}

#include "language_model.h"

#include "decoder.h"

_Static_assert((int)LANGUAGE_MODEL_SENDS == (int)MODEL_SENDS, "as many rows may be under way");

static fw_status infer(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                       fw_error *error) {
    return model_infer(self, inputs, batch, tokens, error);
}

static fw_status log_probabilities(void *self, int64_t first, int64_t n, float *host,
                                   fw_error *error) {
    return model_log_probabilities(self, first, n, host, error);
}

static fw_status infer_some(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                            const int64_t *firsts, int64_t n, fw_error *error) {
    return model_infer_some(self, inputs, batch, tokens, firsts, n, error);
}

static fw_status send(void *self, int64_t first, int64_t n, float *pinned, fw_error *error) {
    return model_send_log_probabilities(self, first, n, pinned, error);
}

struct language_model language_model_of(struct model *model) {
    struct language_model made = {.self = model,
                                  .infer = infer,
                                  .log_probabilities = log_probabilities,
                                  .most_rows = model_most_rows(model)};
    if (!model_works_ahead(model)) return made;
    made.infer_some = infer_some;
    made.send = send;
    return made;
}

static fw_status restart(void *stream, fw_error *error) { return decoder_reset(stream, error); }

static fw_status read_on(void *stream, const int32_t *inputs, int64_t tokens, fw_error *error) {
    return decoder_read(stream, inputs, tokens, error);
}

struct language_model language_model_with(struct model *model, struct decoder *decoder) {
    struct language_model made = language_model_of(model);
    made.stream = decoder;
    made.most_read = decoder_most(decoder);
    made.restart = restart;
    made.read_on = read_on;
    return made;
}

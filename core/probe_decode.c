#include "probe_decode.h"

#include <math.h>
#include <stdlib.h>

#include "decoder.h"

struct rows_at_hand {
    int32_t *inputs; /* [batch, window] */
    float *forward;  /* [n, V] */
    float *decoded;  /* [V] */
};

static fw_status read_forward(const struct decode_probe *p, struct rows_at_hand *rows,
                              fw_error *error) {
    for (int64_t i = 0; i < p->n; i++) rows->inputs[i] = p->tokens[i];
    FW_TRY(model_infer(p->model, rows->inputs, p->batch, p->window, error));
    const int64_t most = model_most_rows(p->model);
    for (int64_t i = 0; i < p->n; i += most)
        FW_TRY(model_log_probabilities(p->model, i, p->n - i < most ? p->n - i : most,
                                       rows->forward + i * p->vocabulary, error));
    return FW_OK;
}

static void compare(const struct decode_probe *p, const struct rows_at_hand *rows, int64_t position,
                    struct probe *verdict) {
    const float *forward = rows->forward + position * (int64_t)p->vocabulary;
    verdict->positions++;
    for (uint32_t v = 0; v < p->vocabulary; v++)
        if (!(fabs((double)forward[v] - (double)rows->decoded[v]) <= p->rounding))
            probe_fail(verdict,
                       "position %lld: fed token by token, the log-probability of token %u is "
                       "%.7g; in a pass it is %.7g",
                       (long long)position, v, (double)rows->decoded[v], (double)forward[v]);
}

static fw_status feed(const struct decode_probe *p, struct rows_at_hand *rows,
                      struct decoder *decoder, struct probe *verdict, fw_error *error) {
    for (int64_t i = 0; i < p->n; i++) {
        const int32_t token = p->tokens[i];
        FW_TRY(decoder_feed(decoder, &token, 1, rows->decoded, error));
        compare(p, rows, i, verdict);
    }
    return FW_OK;
}

static fw_status run(const struct decode_probe *p, struct rows_at_hand *rows, struct probe *verdict,
                     fw_error *error) {
    struct decoder *decoder = NULL;
    const struct decoder_options options = {.model = p->model, .most = 1, .window = p->window};
    FW_TRY(read_forward(p, rows, error));
    FW_TRY(decoder_create(&options, &decoder, error));
    const fw_status status = feed(p, rows, decoder, verdict, error);
    decoder_destroy(decoder);
    return status;
}

fw_status decode_probe(const struct decode_probe *probe, struct verdicts *verdicts,
                       fw_error *error) {
    struct probe *verdict = verdicts_probe(verdicts, "model", "decode");
    fw_error why = {.struct_size = sizeof why};
    if (decoder_check(probe->model, &why) != FW_OK) {
        probe_skip(verdict, "%s", why.message);
        return FW_OK;
    }
    const size_t V = probe->vocabulary;
    struct rows_at_hand rows = {
        .inputs = calloc((size_t)(probe->batch * probe->window), sizeof *rows.inputs),
        .forward = calloc((size_t)probe->n * V, sizeof *rows.forward),
        .decoded = calloc(V, sizeof *rows.decoded)};
    const bool room = rows.inputs != NULL && rows.forward != NULL && rows.decoded != NULL;
    const fw_status status = room ? run(probe, &rows, verdict, error)
                                  : fw_fail(error, FW_E_MEMORY, "no memory to probe a decoder");
    free(rows.inputs);
    free(rows.forward);
    free(rows.decoded);
    return status;
}

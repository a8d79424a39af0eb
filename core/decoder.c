/* See decoder.h. The pass itself is the model's (model_pass.c); here lies what it keeps. */
#include "decoder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "model_pass.h"

struct decoder {
    struct decoder_options options;
    struct decoding decoding;
    int64_t capacity; /* positions of a state */
    void *memory;     /* device: the layers' states and the embedding before */
    size_t bytes;
    bool broken; /* after an error */
};

fw_status decoder_check(const struct model *model, fw_error *error) {
    const struct experiment *experiment = model->options.experiment;
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        char why[sizeof layer->cannot_decode + 128];
        if (layer->decodes) continue;
        (void)snprintf(why, sizeof why,
                       "it cannot decode (%s), which reading a stream token by token needs; gqa "
                       "and xsa can",
                       layer->cannot_decode);
        return choice_fail(&experiment->attention[i], FW_E_UNSUPPORTED, why, error);
    }
    return FW_OK;
}

static fw_status check_options(const struct decoder_options *options, fw_error *error) {
    const int64_t feed = options->model->options.feed;
    if (options->window < 1 || options->window > INT32_MAX / 8)
        return fw_fail(error, FW_E_RANGE,
                       "a decoder's window of %lld tokens: 1 to %d are what it can have",
                       (long long)options->window, INT32_MAX / 8);
    if (options->most < 1 || options->most > feed)
        return fw_fail(error, FW_E_RANGE,
                       "a decoder for feeds of %lld tokens; its model was made for 1 to %lld",
                       (long long)options->most, (long long)feed);
    return decoder_check(options->model, error);
}

/* ---- what is kept ---- */

/* When a feed finds no room, more positions are forgotten than are kept: they move in one copy. */
static int64_t capacity_for(const struct decoder_options *options) {
    const int64_t window = options->window, most = options->most;
    return 2 * (window - 1) + (most > window ? most : window);
}

static size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

static size_t row_bytes(const struct model *model) {
    return (size_t)model->width * fw_dtype_size(model->dtype);
}

static fw_status measure(struct decoder *d, fw_error *error) {
    const struct model *model = d->options.model;
    d->bytes = aligned(row_bytes(model));
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        const size_t bytes = layer->attention->state_bytes(layer->self, 1, d->capacity);
        if (bytes >= SIZE_MAX / 4 - d->bytes)
            return fw_fail(error, FW_E_LIMIT,
                           "what a decoder keeps of %lld positions is more than can be addressed; "
                           "a smaller window needs less",
                           (long long)d->capacity);
        d->bytes += aligned(bytes);
    }
    return FW_OK;
}

static fw_status allocate(struct decoder *d, fw_error *error) {
    struct model *model = d->options.model;
    d->decoding.states = calloc((size_t)model->layers, sizeof *d->decoding.states);
    if (d->decoding.states == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a decoder's layers");
    FW_TRY(measure(d, error));
    FW_TRY(model_allocate(model, d->bytes, "a decoder's keys and values", &d->memory, error));
    char *next = (char *)d->memory + aligned(row_bytes(model));
    d->decoding.before = d->memory;
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        d->decoding.states[i] = (fw_attention_state){.struct_size = sizeof(fw_attention_state),
                                                     .memory = next,
                                                     .batch = 1,
                                                     .capacity = d->capacity};
        next += aligned(layer->attention->state_bytes(layer->self, 1, d->capacity));
    }
    return FW_OK;
}

static fw_status open_decoder(struct decoder *d, fw_error *error) {
    FW_TRY(check_options(&d->options, error));
    d->capacity = capacity_for(&d->options);
    d->decoding.window = d->options.window;
    FW_TRY(allocate(d, error));
    return decoder_reset(d, error);
}

fw_status decoder_create(const struct decoder_options *options, struct decoder **decoder,
                         fw_error *error) {
    struct decoder *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a decoder");
    made->options = *options;
    const fw_status status = open_decoder(made, error);
    if (status == FW_OK)
        *decoder = made;
    else
        decoder_destroy(made);
    return status;
}

void decoder_destroy(struct decoder *d) {
    if (d == NULL) return;
    if (d->memory != NULL) d->options.model->device->release(d->options.model->device, d->memory);
    free(d->decoding.states);
    free(d);
}

/* ---- reading ---- */

fw_status decoder_reset(struct decoder *d, fw_error *error) {
    struct model *model = d->options.model;
    d->broken = true;
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        FW_TRY(layer->attention->state_reset(layer->self, &d->decoding.states[i], error));
    }
    FW_TRY(model->device->zero(model->device, d->decoding.before, row_bytes(model), error));
    d->decoding.position = 0;
    d->decoding.held = 0;
    d->decoding.previous = -1;
    d->broken = false;
    return FW_OK;
}

/* Later queries see window - 1 positions of those that are held. */
static fw_status make_room(struct decoder *d, int64_t n, fw_error *error) {
    const struct model *model = d->options.model;
    if (d->decoding.held + n <= d->capacity) return FW_OK;
    const int64_t surplus = d->decoding.held - (d->options.window - 1);
    for (int64_t i = 0; i < model->layers; i++) {
        const struct layer *layer = &model->layer[i];
        FW_TRY(layer->attention->state_evict(layer->self, &d->decoding.states[i], surplus, error));
    }
    d->decoding.held -= surplus;
    return FW_OK;
}

static fw_status check_tokens(const struct decoder *d, const int32_t *tokens, int64_t n,
                              fw_error *error) {
    const int64_t vocabulary = d->options.model->vocabulary;
    if (d->broken)
        return fw_fail(error, FW_E_ARGUMENT,
                       "a decoder that failed goes on only after it is reset");
    if (n < 1 || n > d->options.most)
        return fw_fail(error, FW_E_RANGE,
                       "%lld tokens fed to a decoder that takes 1 to %lld at once", (long long)n,
                       (long long)d->options.most);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= vocabulary)
            return fw_fail(error, FW_E_RANGE,
                           "token %d at position %" PRIu64
                           " is outside the model's vocabulary of %lld",
                           tokens[i], decoder_position(d) + (uint64_t)i, (long long)vocabulary);
    return FW_OK;
}

fw_status decoder_read(struct decoder *d, const int32_t *tokens, int64_t n, fw_error *error) {
    FW_TRY(check_tokens(d, tokens, n, error));
    d->broken = true;
    FW_TRY(make_room(d, n, error));
    FW_TRY(model_decode(d->options.model, &d->decoding, tokens, n, error));
    d->broken = false;
    return FW_OK;
}

fw_status decoder_feed(struct decoder *d, const int32_t *tokens, int64_t n,
                       float *log_probabilities, fw_error *error) {
    struct model *model = d->options.model;
    const int64_t most = model_most_rows(model);
    FW_TRY(decoder_read(d, tokens, n, error));
    d->broken = true;
    for (int64_t i = 0; i < n; i += most)
        FW_TRY(model_log_probabilities(model, i, n - i < most ? n - i : most,
                                       log_probabilities + i * model->vocabulary, error));
    d->broken = false;
    return FW_OK;
}

uint64_t decoder_position(const struct decoder *d) { return (uint64_t)d->decoding.position; }

int64_t decoder_most(const struct decoder *d) { return d->options.most; }

size_t decoder_bytes(const struct decoder *d) { return d->bytes; }

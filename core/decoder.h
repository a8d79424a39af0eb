/* A decoder: reads a stream with the whole model, piece by piece, and keeps what later positions
 * need of earlier ones: keys and values of every layer, the last token and its embedding. So each
 * token is computed once, however long the stream is, and a token can be chosen after the row that
 * it is chosen from.
 *
 * What a position sees. In each layer its query sees the last `window` keys of that layer, its own
 * included; bigram table and smear see the token before it, all else the token itself. So as long
 * as the stream fits one window, feeding gives what a pass of model_infer over the same tokens
 * gives, but for the rounding of products of other shapes. Beyond, it gives what a pass over the
 * whole stream with that attention window would give; layer upon layer this reaches further back
 * than a window of tokens does.
 *
 * Repeatability. With the same model, device and thread count the same feeds give the same bits; n
 * tokens fed one by one give those of n tokens fed at once but for rounding. Feeds of one token all
 * have the same shapes once a window is full, wherever they are in the stream.
 *
 * Several decoders of one model, and its other passes, may take turns; a decoder's rows are gone
 * with the next of them. No call but create allocates. */
#ifndef FAIRWAY_DECODER_H
#define FAIRWAY_DECODER_H

#include "model.h"

struct decoder;

struct decoder_options {
    struct model *model; /* with model_options.feed of at least `most`; outlives the decoder */
    int64_t most;        /* tokens of one feed, at least 1 */
    int64_t window;      /* keys that a query sees, at least 1 */
};

/* At the beginning of a stream. E_UNSUPPORTED names the layer and plugin that cannot decode;
 * E_RANGE for a window or a feed that is not at least 1, or more than the model was made for;
 * E_MEMORY. */
fw_status decoder_create(const struct decoder_options *options, struct decoder **decoder,
                         fw_error *error);
void decoder_destroy(struct decoder *decoder); /* NULL is fine */

/* Back to the beginning of a stream. E_DEVICE. */
fw_status decoder_reset(struct decoder *decoder, fw_error *error);

/* Read `n` tokens, 1 .. most, each in [0, V), behind those read before. log_probabilities (host,
 * float32 [n, V], normalised in float32 only): row i is of the token behind tokens[i]. After an
 * error the decoder must be reset. E_RANGE names a token or count outside its range; E_DEVICE. */
fw_status decoder_feed(struct decoder *decoder, const int32_t *tokens, int64_t n,
                       float *log_probabilities, fw_error *error);

/* The same without the rows, which the model then gives: rows 0 .. n - 1 of
 * model_log_probabilities or model_send_log_probabilities. On a device that works by itself neither
 * waits. */
fw_status decoder_read(struct decoder *decoder, const int32_t *tokens, int64_t n, fw_error *error);

/* Tokens read since the beginning of the stream. */
uint64_t decoder_position(const struct decoder *decoder);

/* Tokens of one feed, at most. */
int64_t decoder_most(const struct decoder *decoder);

/* Device memory of what it keeps. */
size_t decoder_bytes(const struct decoder *decoder);

/* Whether every layer's plugin can decode; E_UNSUPPORTED names one that cannot. */
fw_status decoder_check(const struct model *model, fw_error *error);

#endif

/* The model: a decoder-only transformer whose attention is a plugin.
 *
 *   x = rmsnorm(embedding[token])
 *   for each layer: x += attention(rmsnorm(x));  x += down(leaky_relu(up(rmsnorm(x)), 0.5)^2)
 *   logits = rmsnorm(x) embedding^T, softcapped: softcap * tanh(logits / softcap)
 *
 * No biases; the embedding is tied to the head. That is the model with every switch of [model] off;
 * the tables, smear, mixes, skips and scales that they add stand in model_inputs.c (up to x) and
 * model_layers.c (the layers). Weights live in arenas of one layout (masters, gradients, optimizer
 * state, averages), so that any of them can be copied or reduced whole.
 * model.c puts a model together, model_weights.c declares and holds the weights, model_memory.c the
 * activations, model_init.c the initial values, model_pass.c goes forward and backward. */
#ifndef FAIRWAY_MODEL_H
#define FAIRWAY_MODEL_H

#include <fairway/attention.h>

#include "config.h"

struct model;

struct model_options {
    const struct experiment *experiment;
    const fw_host *host; /* with its device */
    uint32_t vocabulary;
    int64_t batch, tokens; /* largest B and T of any pass */
    bool training;         /* room for gradients and saved activations */
    bool compute_copies;   /* even where masters could serve: what is computed with may differ */
    int64_t feed;          /* tokens that a decoder may read at once (decoder.h); 0: none */
};

/* Errors: what the attention plugin's create() or plan() says, with file, section and layer;
 * E_UNSUPPORTED when the device lacks an op; E_LIMIT when sizes would overflow; E_MEMORY. */
fw_status model_create(const struct model_options *options, struct model **model, fw_error *error);
void model_destroy(struct model *model); /* NULL is fine */

/* The parameters that model_create would allocate for these options; it errs as that does. */
fw_status model_count(const struct model_options *options, int64_t *parameters, fw_error *error);

/* Weights, in a stable order: the embedding and what else forms the input, then layer by layer. */
uint32_t model_n_weights(const struct model *model);
const fw_weight *model_weight(const struct model *model, uint32_t index);
int64_t model_parameters(const struct model *model);

/* Arenas. An arena holds model_arena_count floats; weight i lies at model_offset(i), padding is
 * zero. */
int64_t model_arena_count(const struct model *model);
int64_t model_offset(const struct model *model, uint32_t index);
fw_tensor model_view(const struct model *model, float *arena, uint32_t index);
float *model_masters(const struct model *model);   /* device */
float *model_gradients(const struct model *model); /* device; NULL unless training */

/* The compute copy of weight `index` that an optimizer must refresh; absent when it is the master
 * itself. */
fw_tensor model_compute_copy(const struct model *model, uint32_t index);

/* Device memory; `what` it is for ("the gradients") and what would need less are said when there is
 * no room. The caller releases it. */
fw_status model_allocate(const struct model *model, size_t bytes, const char *what, void **memory,
                         fw_error *error);

/* A zeroed arena on the device, and copies between device and host arenas. */
fw_status model_new_arena(const struct model *model, const char *what, float **arena,
                          fw_error *error);
void model_free_arena(const struct model *model, float *arena);
fw_status model_download(const struct model *model, const float *arena, float *host,
                         fw_error *error);

/* Masters from seeded random numbers as declared; or from a host arena. */
fw_status model_initialise(struct model *model, fw_error *error);
fw_status model_set_weights(struct model *model, const float *host, fw_error *error);

/* One forward and backward pass over B x T tokens (host arrays). Gradients of `scale` times the
 * sum of token losses are added to (accumulate) or replace the model's. The sum of losses in nats
 * goes to a device scalar, likewise. */
struct model_batch {
    const int32_t *inputs, *targets;
    int64_t batch, tokens;
};
fw_status model_train_pass(struct model *model, const struct model_batch *batch, float scale,
                           bool accumulate, fw_error *error);
fw_status model_read_loss(struct model *model, double *nats, fw_error *error);

/* The same for tokens that are on the device already, [batch * tokens] each: nothing is copied and
 * nothing waits, so that the pass can be captured. `pairs`, for a model that has them, are those of
 * model_pair_slots. */
struct model_tokens {
    int32_t *inputs, *targets, *pairs;
};
fw_status model_train_pass_at(struct model *model, const struct model_tokens *at, int64_t batch,
                              int64_t tokens, float scale, bool accumulate, fw_error *error);
const float *model_loss_sum(const struct model *model); /* device */

/* Whether the model looks up pairs of tokens; and the slots of its table for one sequence of n
 * tokens, on the host. For any number of threads. */
bool model_has_pairs(const struct model *model);
void model_pair_slots(const struct model *model, const int32_t *inputs, int64_t n, int32_t *pairs);

/* Forward only: hidden states of B x T tokens; then log-probabilities of n rows of them, at most
 * model_most_rows, to a host array [n, V] of float32 (normalised in float32 only). */
fw_status model_infer(struct model *model, const int32_t *inputs, int64_t batch, int64_t tokens,
                      fw_error *error);
fw_status model_log_probabilities(struct model *model, int64_t first_row, int64_t n_rows,
                                  float *host, fw_error *error);
int64_t model_most_rows(const struct model *model);

/* As model_infer; on the way `rows` hears what each linear layer reads, in float32 on the host,
 * [n_rows, n_columns] for a weight [N, n_columns], and may refuse. The embedding's are those of the
 * output layer. E_UNSUPPORTED: an attention plugin that cannot. */
struct model_observer {
    void *self;
    fw_status (*rows)(void *self, uint32_t weight, const float *rows, int64_t n_rows,
                      int64_t n_columns, fw_error *error);
};
fw_status model_observe(struct model *model, const int32_t *inputs, int64_t batch, int64_t tokens,
                        const struct model_observer *observer, fw_error *error);

/* Whether the model's device takes work and gives results without waiting. */
bool model_works_ahead(const struct model *model);

/* As model_infer, but no more than positions [firsts[b], firsts[b] + n) of each sequence b will be
 * asked for, and rows count these alone: what comes after the last attention is computed for them
 * only. */
fw_status model_infer_some(struct model *model, const int32_t *inputs, int64_t batch,
                           int64_t tokens, const int64_t *firsts, int64_t n, fw_error *error);

/* As model_log_probabilities, to memory of the device's allocate_host, without waiting. Of at most
 * MODEL_SENDS in a row the rows may be on their way: before the next, the first of them must have
 * been waited for. */
enum { MODEL_SENDS = 8 };
fw_status model_send_log_probabilities(struct model *model, int64_t first_row, int64_t n_rows,
                                       float *pinned, fw_error *error);

/* Device memory of a pass's buffers, beside weights, gradients and what optimizers keep. */
size_t model_activation_bytes(const struct model *model);

/* Floating-point operations of one forward pass over B x T tokens, causal attention counted once.
 * Forward and backward together are three times that. */
double model_forward_flops(const struct model *model, int64_t batch, int64_t tokens);

#endif

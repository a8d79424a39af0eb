/* Attention: owns the attention sublayer, from the normed input to the output projection.
 *
 * An instance serves one layer. It declares its weights, says how many bytes it must save between
 * forward and backward, and composes the device's ops or launches its own kernels on the native
 * stream. No call allocates, synchronises or reads device data on the host. */
#ifndef FAIRWAY_ATTENTION_H
#define FAIRWAY_ATTENTION_H

#include "host.h"
#include "ops.h"
#include "weight.h"

FW_BEGIN_DECLS

typedef struct fw_attention_shape {
    uint32_t struct_size;
    int32_t layer; /* 0 .. layers-1 */
    int32_t layers;
    uint32_t reserved;
    int64_t width;          /* C */
    int64_t max_batch;      /* largest B of any call */
    int64_t max_tokens;     /* largest T of any call but decode's: positions 0 .. max_tokens - 1 */
    int64_t rope_reference; /* sequence length that an adaptive rotation base refers to */
} fw_attention_shape;

/* FW_DECODE, since 0.4: the phase of decode's plan and calls. */
typedef enum fw_phase { FW_TRAIN = 1, FW_INFER = 2, FW_CALIBRATE = 3, FW_DECODE = 4 } fw_phase;

/* What the host must provide for calls of up to B x T. */
typedef struct fw_attention_plan {
    uint32_t struct_size;
    uint32_t reserved;
    size_t saved_bytes;   /* kept from forward to backward, per layer; 0 outside FW_TRAIN */
    size_t scratch_bytes; /* free between calls, shared by all layers */
    int64_t value_width;  /* columns of value_add; 0 when it cannot take one */
    /* Since 0.3. 1 + the index of the weight that makes the output, as output = rows W^T +
     * residual: its rows are the output's columns, forward adds call->residual, and the host may
     * hand over a copy whose rows are scaled. 0: forward knows of no residual. */
    uint32_t output_weight;
    uint32_t reserved_too;
} fw_attention_plan;

/* One forward or backward call. Tensors are views of device memory, owned by the host. */
typedef struct fw_attention_call {
    uint32_t struct_size;
    uint32_t phase;          /* fw_phase */
    int64_t batch, tokens;   /* B, T */
    int64_t position_offset; /* position of the first token of each sequence */
    int64_t window;          /* sliding attention window in tokens; 0: all */
    uint32_t accumulate;     /* gradients of weights: 1 adds, 0 overwrites */
    uint32_t n_weights;
    /* Compute copies in the order of declaration, F32 for FW_ROLE_SCALAR; never kept. */
    const fw_tensor *weights;
    const fw_tensor *grads; /* F32, same order; NULL in forward */
    fw_tensor input;        /* [B*T, C] normed, compute */
    fw_tensor output;       /* [B*T, C] forward: overwritten */
    fw_tensor value_add;    /* [B*T, value_width] added to V, or absent */
    fw_tensor d_output;     /* [B*T, C] backward: input */
    fw_tensor d_input;      /* [B*T, C] backward: overwritten; may not alias d_output */
    fw_tensor d_value_add;  /* backward: overwritten when value_add is present */
    fw_tensor cu_seqlens;   /* I32 [B, n+1] document starts, or absent */
    void *saved;
    void *scratch;
    /* FW_CALIBRATE, forward: tell the host what the linear layer of weight number `weight` reads,
     * [n, K] for a weight [N,K], once its values are computed or queued. */
    void (*observe)(void *context, uint32_t weight, const fw_tensor *rows);
    void *observe_context;
    /* Since 0.3. [B*T, C] forward: added to the output, which it may not alias; absent: nothing is.
     * Given only where the plan names an output_weight. */
    fw_tensor residual;
} fw_attention_call;

/* Since 0.4. What one layer keeps of the positions before those that are decoded: of `batch`
 * streams that are read side by side. The host owns struct and memory and gives all but `held`. */
typedef struct fw_attention_state {
    uint32_t struct_size;
    uint32_t reserved;
    void *memory;     /* device, state_bytes(batch, capacity), aligned to 256 bytes */
    int64_t batch;    /* B of every decode call */
    int64_t capacity; /* positions that it can hold */
    int64_t held;     /* that it holds, the newest ones of the stream; the plugin's to write */
} fw_attention_state;

typedef struct fw_attention {
    uint32_t struct_size;
    uint32_t reserved;

    /* E_CONFIG: heads that do not divide the width, and the like; E_UNSUPPORTED: the device
     * refuses. */
    fw_status (*create)(const fw_host *host, const fw_value *values,
                        const fw_attention_shape *shape, void **self, fw_error *error);
    void (*destroy)(void *self);

    /* Number of weights; weight(i) fills name ("wq"), shape, role, init, init_value, pack_group. */
    uint32_t (*n_weights)(void *self);
    void (*weight)(void *self, uint32_t index, fw_weight *weight);

    fw_status (*plan)(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                      fw_attention_plan *plan, fw_error *error);

    /* In FW_TRAIN the host may capture what both issue and launch it for later steps (device.h),
     * without another call: it may depend on the call alone, never on how often it was made. */
    fw_status (*forward)(void *self, const fw_attention_call *call, fw_error *error);
    fw_status (*backward)(void *self, const fw_attention_call *call, fw_error *error);

    /* Floating-point operations of one forward call, multiply-add counted as two, causal half only.
     */
    double (*forward_flops)(void *self, int64_t batch, int64_t tokens);

    /* Decoding as it was before 0.4, of device memory alone: never called. Leave these NULL. */
    void *retired[4];

    /* Since 0.4. Optional, all or none: decoding, which reads a stream of any length piece by piece
     * and computes what forward would, with the window of each call, over all of it.
     *   decode  appends the keys and values of call->tokens positions of each sequence, the first
     * of which is call->position_offset, and computes their outputs. A query sees what is held and
     * the call's own positions up to itself, the last call->window of these. Positions follow one
     * another from 0 on without a bound, so that rotation tables cannot lie ready: whatever depends
     * on the position is computed from it, to the accuracy that forward has at position 0. Phase
     * FW_DECODE, plan()'s scratch for that phase and at least these B and T, no `saved`, no
     * cu_seqlens. E_RANGE: state->held + call->tokens exceeds the capacity; state and output are
     * untouched.
     *   reset  holds nothing: the next call may begin at any position.
     *   evict  forgets the oldest n positions, 0 <= n <= held. E_RANGE.
     * The instance keeps nothing of a state: any number of them may be decoded in turns. A plan for
     * FW_DECODE that fails says that this instance cannot decode; it serves all else. */
    size_t (*state_bytes)(void *self, int64_t batch, int64_t capacity);
    fw_status (*state_reset)(void *self, fw_attention_state *state, fw_error *error);
    fw_status (*decode)(void *self, fw_attention_state *state, const fw_attention_call *call,
                        fw_error *error);
    fw_status (*state_evict)(void *self, fw_attention_state *state, int64_t n, fw_error *error);
} fw_attention;

FW_END_DECLS

#endif

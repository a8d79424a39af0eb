/* Quantizer: weights -> typed streams and back.
 *
 * Packing works on the host, in float32, whatever device trained. The host calls plan() once with
 * all tensors (budgets and pruning are global), then encode() for each; the artifact stores the
 * streams together with their shapes, and decode() must rebuild the weights from these alone. */
#ifndef FAIRWAY_QUANTIZER_H
#define FAIRWAY_QUANTIZER_H

#include "host.h"
#include "ops.h"
#include "weight.h"

FW_BEGIN_DECLS

/* What the bytes of a stream mean; compressors model them accordingly. Stable codes. */
typedef enum fw_stream_kind {
    FW_STREAM_SYMBOLS = 1, /* small integers, one row of the tensor per row */
    FW_STREAM_SCALES = 2,  /* one or more scales per row */
    FW_STREAM_FLOATS = 3,  /* unquantized values */
    FW_STREAM_OTHER = 4    /* anything else; decode knows */
} fw_stream_kind;

#define FW_MAX_STREAMS 4

typedef struct fw_stream {
    uint32_t struct_size;
    uint32_t kind;   /* fw_stream_kind */
    uint32_t dtype;  /* fw_dtype of the elements, little-endian */
    uint32_t tensor; /* index of the tensor it belongs to */
    int64_t rows, columns;
    int64_t symbol_min, symbol_max; /* range of SYMBOLS, inclusive; 0, 0 when unknown */
    void *data;                     /* rows * columns elements, packed */
} fw_stream;

typedef struct fw_quantizer_plan {
    uint32_t struct_size;
    uint32_t n_tensors;
    const fw_weight *const *weights;
    const float *const *values; /* packed F32 host copies; valid until encode of the last one */
    double rate;                /* 1 = best quality ... 0 = smallest; monotone in bytes */
} fw_quantizer_plan;

typedef struct fw_quantizer {
    uint32_t struct_size;
    uint32_t has_rate; /* 1: plan() heeds `rate`, so the host may lower it to fit a byte budget */
    fw_status (*create)(const fw_host *host, const fw_value *values, void **self, fw_error *error);
    void (*destroy)(void *self);

    /* Decide formats. May be called again with another rate. E_UNSUPPORTED, E_NUMERIC (names it).
     */
    fw_status (*plan)(void *self, const fw_quantizer_plan *plan, fw_error *error);

    /* The streams of tensor `index` as planned: kind, dtype, rows, columns, symbol range; data
     * NULL. */
    fw_status (*streams)(void *self, uint32_t index, fw_stream *streams, uint32_t *n_streams,
                         fw_error *error);

    /* Fill the data of those streams; the host allocated them. [deterministic] */
    fw_status (*encode)(void *self, uint32_t index, fw_stream *streams, uint32_t n_streams,
                        fw_error *error);

    /* Rebuild a tensor from its streams. Needs no plan. E_FORMAT when they do not fit the weight.
     */
    fw_status (*decode)(void *self, const fw_weight *weight, const fw_stream *streams,
                        uint32_t n_streams, float *values, fw_error *error);

    /* Optional: quantization-aware training. Write to `out` (compute) what decode(encode(master))
     * would give, or what stands for it where encode searches (levels and floor the same), with
     * gradients passed straight through; composed of device ops, switched by step->quantize, and
     * like an optimizer's step() captured once for many steps.
     * `scratch` holds fake_scratch bytes. Returns E_UNSUPPORTED for tensors that it stores
     * unquantized. */
    size_t (*fake_scratch)(void *self, const fw_weight *weight);
    fw_status (*fake_quantize)(void *self, fw_device *device, const fw_weight *weight,
                               const fw_tensor *master, const fw_tensor *out, const fw_step *step,
                               void *scratch, fw_error *error);

    /* Optional: calibration, before plan(). The host has the model read training text, never what
     * is scored, and shows what each linear layer reads: `rows` [n_rows, n_columns], host F32, good
     * for the call alone; `index` is the weight's in plan(), [N, n_columns]; in any number of
     * calls, in the order of the text. The embedding's are those of the output layer that it serves
     * as. First it asks about every matrix, with rows NULL and n_rows 0, and calibrates only if one
     * answer is FW_OK; E_UNSUPPORTED: no rows of this matrix are wanted. An instance of which none
     * of this is asked serves with what it has. [deterministic] */
    fw_status (*observe)(void *self, uint32_t index, const float *rows, int64_t n_rows,
                         int64_t n_columns, fw_error *error);
} fw_quantizer;

FW_END_DECLS

#endif

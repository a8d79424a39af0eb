/* Token embedding: rows of a table by token, and the gradient's scatter-add. Backward gives each
 * thread its own columns and walks the rows in order, so no two threads add to the same number. */
#include "cpu.h"

#include <omp.h>
#include <string.h>

static fw_status check(const char *op, const fw_embedding *e, const fw_tensor *rows,
                       const fw_tensor *table, fw_error *error) {
    FW_TRY(cpu_check_packed(op, "tokens", &e->tokens, FW_I32, -1, error));
    FW_TRY(cpu_check_matrix(op, "the table", table, FW_F32, -1, -1, error));
    const int64_t n = fw_tensor_count(&e->tokens), vocabulary = table->shape[0];
    FW_TRY(cpu_check_matrix(op, "the rows", rows, FW_F32, n, table->shape[1], error));
    const int32_t *tokens = (const int32_t *)e->tokens.data;
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= vocabulary)
            return fw_fail(error, FW_E_ARGUMENT, "%s: token %d at %lld is not in [0, %lld)", op,
                           tokens[i], (long long)i, (long long)vocabulary);
    return FW_OK;
}

fw_status cpu_embedding_forward(fw_device *device, const fw_embedding *e, fw_error *error) {
    CPU_ARGUMENTS("embedding_forward", device, e, error);
    FW_TRY(check("embedding_forward", e, &e->out, &e->table, error));
    const int64_t n = e->out.shape[0];
    const size_t bytes = (size_t)e->out.shape[1] * sizeof(float);
    const int32_t *tokens = (const int32_t *)e->tokens.data;
#pragma omp parallel for num_threads(cpu_self(device)->threads)                                    \
    schedule(static) if (fw_tensor_count(&e->out) > CPU_PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < n; i++)
        memcpy(cpu_row(&e->out, i), cpu_row(&e->table, tokens[i]), bytes);
    return FW_OK;
}

/* Columns [begin, end) of d_table. */
static void scatter(const fw_embedding *e, int64_t begin, int64_t end) {
    const int32_t *tokens = (const int32_t *)e->tokens.data;
    if (!e->accumulate)
        for (int64_t v = 0; v < e->d_table.shape[0]; v++)
            memset(cpu_row(&e->d_table, v) + begin, 0, (size_t)(end - begin) * sizeof(float));
    for (int64_t i = 0; i < e->d_out.shape[0]; i++) {
        const float *from = cpu_row(&e->d_out, i);
        float *to = cpu_row(&e->d_table, tokens[i]);
#pragma omp simd
        for (int64_t c = begin; c < end; c++) to[c] += from[c];
    }
}

fw_status cpu_embedding_backward(fw_device *device, const fw_embedding *e, fw_error *error) {
    CPU_ARGUMENTS("embedding_backward", device, e, error);
    FW_TRY(check("embedding_backward", e, &e->d_out, &e->d_table, error));
    const int64_t width = e->d_table.shape[1], lanes = 16, blocks = (width + lanes - 1) / lanes;
    const int threads = cpu_self(device)->threads;
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (fw_tensor_count(&e->d_out) > CPU_PARALLEL_ELEMENTS)
    for (int part = 0; part < threads; part++) {
        const int64_t begin = blocks * part / threads * lanes;
        const int64_t end = cpu_min(blocks * (part + 1) / threads * lanes, width);
        if (begin < end) scatter(e, begin, end);
    }
    return FW_OK;
}

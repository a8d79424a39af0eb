/* The checks of ops whose arguments are the same on every device: what an op's contract demands of
 * its tensors, with the device's compute dtype and its limits as arguments. */
#include "check.h"

#include <limits.h>

/* ---- gemm ---- */

/* The last two dimensions of an operand of rank 2 or 3. */
static fw_status check_operand(const char *name, const fw_tensor *tensor, uint32_t dtype,
                               uint32_t rank, int64_t batch, fw_error *error) {
    if (tensor->data == NULL) return fw_fail(error, FW_E_ARGUMENT, "gemm: %s is absent", name);
    if (tensor->rank != rank || (rank != 2 && rank != 3))
        return fw_fail(error, FW_E_SHAPE, "gemm: %s has rank %u; all three need rank 2, or 3", name,
                       tensor->rank);
    fw_tensor matrix = *tensor;
    if (rank == 3) {
        if (tensor->shape[0] != batch)
            return fw_fail(error, FW_E_SHAPE, "gemm: %s has a batch of %lld, a has %lld", name,
                           (long long)tensor->shape[0], (long long)batch);
        matrix.rank = 2;
        for (int i = 0; i < 2; i++) {
            matrix.shape[i] = tensor->shape[i + 1];
            matrix.stride[i] = tensor->stride[i + 1];
        }
    }
    FW_TRY(kernel_check_matrix("gemm", name, &matrix, dtype, -1, -1, error));
    if (matrix.shape[0] > INT_MAX || matrix.shape[1] > INT_MAX || matrix.stride[0] > INT_MAX ||
        batch > INT_MAX)
        return fw_fail(error, FW_E_UNSUPPORTED, "gemm: %s has a dimension above 2^31 - 1", name);
    return FW_OK;
}

static fw_status check_addend(const fw_gemm *g, int64_t batch, fw_error *error) {
    FW_TRY(check_operand("addend", &g->addend, g->c.dtype, g->c.rank, batch, error));
    for (uint32_t i = 0; i < g->c.rank; i++)
        if (g->addend.shape[i] != g->c.shape[i] || g->addend.stride[i] != g->c.stride[i])
            return fw_fail(error, FW_E_SHAPE, "gemm: addend has another shape or stride than c");
    return FW_OK;
}

fw_status kernel_check_gemm(const fw_gemm *g, uint32_t dtype, uint32_t c_dtype,
                            kernel_gemm_sizes *sizes, fw_error *error) {
    const uint32_t rank = g->c.rank;
    const int64_t batch = rank == 3 ? g->a.shape[0] : 1;
    FW_TRY(check_operand("a", &g->a, dtype, rank, batch, error));
    FW_TRY(check_operand("b", &g->b, dtype, rank, batch, error));
    FW_TRY(check_operand("c", &g->c, c_dtype, rank, batch, error));
    const int64_t *a = &g->a.shape[rank - 2], *b = &g->b.shape[rank - 2];
    const int64_t *c = &g->c.shape[rank - 2];
    const int64_t m = g->transpose_a ? a[1] : a[0], k = g->transpose_a ? a[0] : a[1];
    const int64_t n = g->transpose_b ? b[0] : b[1], inner = g->transpose_b ? b[1] : b[0];
    if (inner != k || c[0] != m || c[1] != n)
        return fw_fail(error, FW_E_SHAPE,
                       "gemm: op(a) is [%lld,%lld], op(b) is [%lld,%lld], c is [%lld,%lld]",
                       (long long)m, (long long)k, (long long)inner, (long long)n, (long long)c[0],
                       (long long)c[1]);
    const bool adds = FW_COVERS(g, addend) && g->addend.data != NULL && g->beta != 0.0f;
    if (adds) FW_TRY(check_addend(g, batch, error));
    *sizes = (kernel_gemm_sizes){.batch = batch, .m = m, .n = n, .k = k, .adds = adds};
    return FW_OK;
}

/* ---- attention ---- */

static fw_status check_attention_shapes(const char *op, const fw_flash_attention *a, uint32_t dtype,
                                        int widest_head, fw_error *error) {
    const int64_t any[4] = {-1, -1, -1, -1};
    FW_TRY(kernel_check_heads(op, "q", &a->q, dtype, any, error));
    FW_TRY(kernel_check_heads(op, "k", &a->k, dtype, any, error));
    const int64_t *q = a->q.shape, *k = a->k.shape;
    if (k[0] != q[0] || k[3] != q[3] || k[1] < q[1] || k[2] < 1 || q[2] % k[2] != 0)
        return fw_fail(error, FW_E_SHAPE,
                       "%s: q is [%lld,%lld,%lld,%lld] and k is [%lld,%lld,%lld,%lld]; k needs the "
                       "same batch and width, no fewer positions and a divisor of the heads",
                       op, (long long)q[0], (long long)q[1], (long long)q[2], (long long)q[3],
                       (long long)k[0], (long long)k[1], (long long)k[2], (long long)k[3]);
    if (q[3] < 1 || q[3] > widest_head)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: heads of width %lld; 1 to %d are supported",
                       op, (long long)q[3], widest_head);
    FW_TRY(kernel_check_heads(op, "v", &a->v, dtype, k, error));
    FW_TRY(kernel_check_heads(op, "out", &a->out, dtype, q, error));
    const int64_t rows = q[0] * q[1] * q[2];
    FW_TRY(kernel_check_packed(op, "log_sum_exp", &a->log_sum_exp, FW_F32, rows, error));
    if (a->exclude_self)
        FW_TRY(kernel_check_packed(op, "self_dot", &a->self_dot, FW_F32, rows, error));
    return FW_OK;
}

fw_status kernel_check_attention(const char *op, const fw_flash_attention *a, uint32_t dtype,
                                 int widest_head, fw_error *error) {
    FW_TRY(check_attention_shapes(op, a, dtype, widest_head, error));
    if (a->window < 0)
        return fw_fail(error, FW_E_ARGUMENT, "%s: window is %lld; 0 stands for no window", op,
                       (long long)a->window);
    if (a->cu_seqlens.data == NULL) return FW_OK;
    FW_TRY(kernel_check_packed(op, "cu_seqlens", &a->cu_seqlens, FW_I32, -1, error));
    if (a->cu_seqlens.rank != 2 || a->cu_seqlens.shape[0] != a->q.shape[0])
        return fw_fail(
            error, FW_E_SHAPE, "%s: cu_seqlens has rank %u and %lld rows, expected [%lld,n]", op,
            a->cu_seqlens.rank, (long long)a->cu_seqlens.shape[0], (long long)a->q.shape[0]);
    if (a->k.shape[1] != a->q.shape[1])
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "%s: cu_seqlens needs as many keys as queries, not %lld and %lld", op,
                       (long long)a->k.shape[1], (long long)a->q.shape[1]);
    return FW_OK;
}

/* ---- residual_norm ---- */

static fw_status check_optional(const char *op, const char *name, const fw_tensor *tensor,
                                uint32_t dtype, int64_t rows, int64_t width, fw_error *error) {
    if (tensor->data == NULL) return FW_OK;
    return kernel_check_matrix(op, name, tensor, dtype, rows, width, error);
}

/* One value per channel or one for all; absent is allowed too. */
static fw_status check_weight(const char *op, const char *name, const fw_tensor *weight,
                              int64_t width, fw_error *error) {
    if (weight->data == NULL) return FW_OK;
    FW_TRY(kernel_check_packed(op, name, weight, FW_F32, -1, error));
    const int64_t count = fw_tensor_count(weight);
    if (count == width || count == 1) return FW_OK;
    return fw_fail(error, FW_E_SHAPE, "%s: %s has %lld values, expected %lld or one for all", op,
                   name, (long long)count, (long long)width);
}

/* A gradient has its weight's shape; where the weight is absent (ones), either. */
static fw_status check_weight_gradient(const char *op, const char *name, const fw_tensor *gradient,
                                       const fw_tensor *weight, int64_t width, fw_error *error) {
    FW_TRY(check_weight(op, name, gradient, width, error));
    if (gradient->data == NULL || weight->data == NULL) return FW_OK;
    return kernel_check_packed(op, name, gradient, FW_F32, fw_tensor_count(weight), error);
}

static fw_status check_width(const char *op, int64_t width, int widest, fw_error *error) {
    if (width <= widest) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED, "%s: rows of %lld, at most %d are supported", op,
                   (long long)width, widest);
}

fw_status kernel_check_residual_forward(const fw_residual_norm *p, uint32_t dtype, int widest,
                                        fw_error *error) {
    const char *op = "residual_norm_forward";
    FW_TRY(kernel_check_matrix(op, "a", &p->a, dtype, -1, -1, error));
    const int64_t rows = p->a.shape[0], width = p->a.shape[1];
    FW_TRY(check_width(op, width, widest, error));
    FW_TRY(kernel_check_matrix(op, "sum", &p->sum, dtype, rows, width, error));
    FW_TRY(check_weight(op, "weight_a", &p->weight_a, width, error));
    FW_TRY(check_weight(op, "weight_b", &p->weight_b, width, error));
    FW_TRY(check_optional(op, "b", &p->b, dtype, rows, width, error));
    if (p->out.data == NULL) return FW_OK;
    FW_TRY(kernel_check_matrix(op, "out", &p->out, dtype, rows, width, error));
    return kernel_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, rows, error);
}

/* The matrix that gives a backward call its rows and columns: whichever is there. */
static fw_status check_any(const char *op, const fw_residual_norm *p, uint32_t dtype, int64_t *rows,
                           int64_t *width, fw_error *error) {
    const fw_tensor *matrices[] = {&p->d_a, &p->d_b, &p->a, &p->b};
    const char *names[] = {"d_a", "d_b", "a", "b"};
    int first = 0;
    for (int i = 3; i >= 0; i--)
        if (matrices[i]->data != NULL) first = i;
    FW_TRY(kernel_check_matrix(op, names[first], matrices[first], dtype, -1, -1, error));
    *rows = matrices[first]->shape[0];
    *width = matrices[first]->shape[1];
    return FW_OK;
}

static fw_status check_weights(const char *op, const fw_residual_norm *p, int64_t width,
                               fw_error *error) {
    FW_TRY(check_weight(op, "weight_a", &p->weight_a, width, error));
    FW_TRY(check_weight(op, "weight_b", &p->weight_b, width, error));
    FW_TRY(check_weight_gradient(op, "d_weight_a", &p->d_weight_a, &p->weight_a, width, error));
    return check_weight_gradient(op, "d_weight_b", &p->d_weight_b, &p->weight_b, width, error);
}

fw_status kernel_check_residual_backward(const fw_residual_norm *p, uint32_t dtype, int widest,
                                         int64_t *rows, int64_t *width, fw_error *error) {
    const char *op = "residual_norm_backward";
    int64_t n = 0, c = 0;
    FW_TRY(check_any(op, p, dtype, &n, &c, error));
    FW_TRY(check_width(op, c, widest, error));
    FW_TRY(check_optional(op, "d_b", &p->d_b, dtype, n, c, error));
    FW_TRY(check_optional(op, "d_sum", &p->d_sum, dtype, n, c, error));
    FW_TRY(check_optional(op, "d_out", &p->d_out, dtype, n, c, error));
    FW_TRY(check_weights(op, p, c, error));
    if (p->d_weight_a.data != NULL) FW_TRY(kernel_check_matrix(op, "a", &p->a, dtype, n, c, error));
    if (p->d_weight_b.data != NULL) FW_TRY(kernel_check_matrix(op, "b", &p->b, dtype, n, c, error));
    if (p->d_out.data != NULL) {
        FW_TRY(kernel_check_matrix(op, "sum", &p->sum, dtype, n, c, error));
        FW_TRY(kernel_check_packed(op, "inverse_rms", &p->inverse_rms, FW_F32, n, error));
    }
    *rows = n;
    *width = c;
    return FW_OK;
}

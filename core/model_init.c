/* Initial values: seeded per tensor by the tensor's name, so that they depend neither on the order
 * of the tensors nor on threads. */
#include <math.h>
#include <stdlib.h>

#include "model_internal.h"
#include "random.h"

static void fill_normal(struct random *random, double deviation, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)(deviation * random_normal(random));
}

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Subtract from row r its projections on the rows before it, then scale it to length 1. */
static void orthonormalise_row(double *rows, int64_t r, int64_t n) {
    double *row = rows + r * n;
    for (int64_t i = 0; i < r; i++) {
        const double *other = rows + i * n;
        const double projection = dot(row, other, n);
#pragma omp simd
        for (int64_t j = 0; j < n; j++) row[j] -= projection * other[j];
    }
    const double scale = 1.0 / sqrt(dot(row, row, n));
    for (int64_t j = 0; j < n; j++) row[j] *= scale;
}

/* A random matrix whose rows (or columns, when there are fewer of them) are orthonormal:
 * Gram-Schmidt on normal random vectors, in double, which yields the Q of a QR decomposition. */
static fw_status fill_orthogonal(struct random *random, double gain, float *out, int64_t rows,
                                 int64_t columns, fw_error *error) {
    const int64_t few = rows < columns ? rows : columns, many = rows < columns ? columns : rows;
    double *basis = malloc((size_t)(few * many) * sizeof *basis);
    if (basis == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for an orthogonal %lld x %lld matrix",
                       (long long)rows, (long long)columns);
    for (int64_t i = 0; i < few * many; i++) basis[i] = random_normal(random);
    for (int64_t r = 0; r < few; r++) orthonormalise_row(basis, r, many);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            out[r * columns + c] =
                (float)(gain * (rows <= columns ? basis[r * many + c] : basis[c * many + r]));
    free(basis);
    return FW_OK;
}

static fw_status fill_weight(const fw_host *host, const fw_weight *weight, float *out,
                             fw_error *error) {
    const int64_t n = weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3];
    struct random random = random_seeded(host->seed(host, weight->name));
    switch (weight->init) {
    case FW_INIT_ZERO: return FW_OK;
    case FW_INIT_CONSTANT:
        for (int64_t i = 0; i < n; i++) out[i] = (float)weight->init_value;
        return FW_OK;
    case FW_INIT_FIRST_ROW:
        for (int64_t i = 0; i < n / weight->shape[0]; i++) out[i] = (float)weight->init_value;
        return FW_OK;
    case FW_INIT_NORMAL: fill_normal(&random, weight->init_value, out, n); return FW_OK;
    case FW_INIT_ORTHOGONAL:
        return fill_orthogonal(&random, weight->init_value, out, weight->shape[0],
                               n / weight->shape[0], error);
    default:
        return fw_fail(error, FW_E_UNSUPPORTED, "weight %s asks for the unknown initialisation %u",
                       weight->name, weight->init);
    }
}

struct filling {
    const struct model *model;
    float *host;
    fw_status *status;
};

static void fill_range(void *argument, int64_t begin, int64_t end) {
    const struct filling *filling = argument;
    const struct model *model = filling->model;
    for (int64_t i = begin; i < end; i++)
        filling->status[i] = fill_weight(model->options.host, &model->weights[i],
                                         filling->host + model->offsets[i], NULL);
}

fw_status model_initialise(struct model *model, fw_error *error) {
    float *host = calloc((size_t)model->arena_count, sizeof *host);
    fw_status *status = calloc(model->n_weights, sizeof *status);
    fw_status result = FW_OK;
    if (host == NULL || status == NULL) {
        result = fw_fail(error, FW_E_MEMORY, "no memory for the initial weights");
    } else {
        struct filling filling = {model, host, status};
        const fw_host *services = model->options.host;
        services->parallel_for(services, model->n_weights, 1, fill_range, &filling);
        for (uint32_t i = 0; i < model->n_weights && result == FW_OK; i++)
            if (status[i] != FW_OK)
                result = fw_fail(error, status[i], "weight %s cannot be initialised",
                                 model->weights[i].name);
        if (result == FW_OK) result = model_set_weights(model, host, error);
    }
    free(host);
    free(status);
    return result;
}

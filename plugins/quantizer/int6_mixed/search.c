#include "search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../half.h"
#include "../quantile.h"
#include "../rows.h"

enum { CANDIDATES = 5, LANES = 8, GRAIN = 16 };
static const float percentiles[CANDIDATES] = {0.999f, 0.9995f, 0.9999f, 0.99999f, 1.0f};

/* ---- one row ---- */

/* Half to even, for |x| < 2^22: where 1.5 * 2^23 is added, floats are 1 apart. Unlike rintf it
 * vectorizes on every x86-64. */
static inline float round_even(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

/* Clamping first gives what clamping after rounding does, for the bounds are integers. */
static inline float symbol_of(float value, float scale) {
    const float q = value / scale;
    const float above = q < -INT6_LEVELS ? -INT6_LEVELS : q;
    return round_even(above > INT6_LEVELS ? INT6_LEVELS : above);
}

static inline double squared_error(float value, float scale) {
    const double error = (double)(value - symbol_of(value, scale) * scale);
    return error * error;
}

/* The sum of squared errors, in lanes that vectorize and a fixed order. */
static double row_error(const float *values, int64_t n, float scale) {
    double lanes[LANES] = {0}, sum = 0;
    int64_t i = 0;
    if (scale > 0) {
        for (; i + LANES <= n; i += LANES)
            for (int k = 0; k < LANES; k++) lanes[k] += squared_error(values[i + k], scale);
        for (; i < n; i++) sum += squared_error(values[i], scale);
    } else {
        for (; i < n; i++) sum += (double)values[i] * (double)values[i];
    }
    for (int k = 0; k < LANES; k++) sum += lanes[k];
    return sum;
}

static void row_symbols(const float *values, int64_t n, float scale, int8_t *symbols) {
    if (scale > 0)
        for (int64_t i = 0; i < n; i++) symbols[i] = (int8_t)symbol_of(values[i], scale);
    else
        memset(symbols, 0, (size_t)n);
}

static int64_t row_ones(const float *values, int64_t n, float scale) {
    int64_t ones = 0;
    for (int64_t i = 0; scale > 0 && i < n; i++) ones += fabsf(symbol_of(values[i], scale)) == 1;
    return ones;
}

/* ---- one tensor ---- */

typedef struct tensor_job {
    const float *values;
    int64_t rows, columns;
    float scale_floor;
    float *magnitudes; /* scratch of the tensor's size */
    uint16_t *scales[CANDIDATES];
    double *errors[CANDIDATES];
    int best;
    int64_t *ones;
} tensor_job;

static void try_rows(void *argument, int64_t begin, int64_t end) {
    const tensor_job *job = argument;
    const int64_t n = job->columns;
    for (int64_t row = begin; row < end; row++) {
        const float *values = job->values + row * n;
        float *magnitudes = job->magnitudes + row * n;
        float clips[CANDIDATES];
        for (int64_t i = 0; i < n; i++) magnitudes[i] = fabsf(values[i]);
        quantiles(magnitudes, n, percentiles, CANDIDATES, clips);
        for (int k = 0; k < CANDIDATES; k++) {
            float scale = fmaxf(clips[k] / INT6_LEVELS, job->scale_floor);
            job->scales[k][row] = rows_store_scale(&scale);
            job->errors[k][row] = row_error(values, n, half_to_float(job->scales[k][row]));
        }
    }
}

static void count_rows(void *argument, int64_t begin, int64_t end) {
    const tensor_job *job = argument;
    for (int64_t row = begin; row < end; row++)
        job->ones[row] = row_ones(job->values + row * job->columns, job->columns,
                                  half_to_float(job->scales[job->best][row]));
}

static int best_candidate(const tensor_job *job) {
    int best = 0;
    double least = INFINITY;
    for (int k = 0; k < CANDIDATES; k++) {
        double sum = 0;
        for (int64_t row = 0; row < job->rows; row++) sum += job->errors[k][row];
        if (sum < least) best = k, least = sum;
    }
    return best;
}

static fw_status search_tensor(search *made, const fw_host *host, const fw_weight *weight,
                               const float *values, int64_t first, float scale_floor,
                               fw_error *error) {
    const int64_t rows = weight->shape[0], columns = weight->shape[1];
    if (rows * columns == 0) return FW_OK;
    tensor_job job = {.values = values,
                      .rows = rows,
                      .columns = columns,
                      .scale_floor = scale_floor,
                      .ones = made->ones + first};
    const size_t n = (size_t)rows;
    job.magnitudes = host->allocate(host, n * (size_t)columns * sizeof *job.magnitudes);
    double *errors = host->allocate(host, CANDIDATES * n * (sizeof *errors + sizeof(uint16_t)));
    if (job.magnitudes == NULL || errors == NULL) {
        host->release(host, job.magnitudes);
        host->release(host, errors);
        return fw_fail(error, FW_E_MEMORY, "%s: no memory to search its percentile", weight->name);
    }
    for (size_t k = 0; k < CANDIDATES; k++) job.errors[k] = errors + k * n;
    for (size_t k = 0; k < CANDIDATES; k++)
        job.scales[k] = (uint16_t *)(errors + CANDIDATES * n) + k * n;
    host->parallel_for(host, rows, GRAIN, try_rows, &job);
    job.best = best_candidate(&job);
    host->parallel_for(host, rows, GRAIN, count_rows, &job);
    memcpy(made->scales + first, job.scales[job.best], n * sizeof *made->scales);
    host->release(host, job.magnitudes);
    host->release(host, errors);
    return FW_OK;
}

/* ---- all tensors ---- */

/* FNV-1a over 64-bit words, folded so that high bits reach low ones. */
static uint64_t hash_words(uint64_t hash, const void *data, size_t bytes) {
    const uint8_t *at = data;
    for (; bytes > 0; at += sizeof hash) {
        uint64_t word = 0;
        const size_t taken = bytes < sizeof word ? bytes : sizeof word;
        memcpy(&word, at, taken);
        hash = (hash ^ word) * UINT64_C(0x100000001b3);
        hash ^= hash >> 32;
        bytes -= taken;
    }
    return hash;
}

static uint64_t hash_tensors(const tensor_set *tensors, const uint8_t *wanted) {
    uint64_t hash = hash_words(UINT64_C(0xcbf29ce484222325), wanted, tensors->n);
    for (uint32_t i = 0; i < tensors->n; i++) {
        if (!wanted[i]) continue;
        const fw_weight *weight = tensors->weights[i];
        hash = hash_words(hash, weight->shape, sizeof weight->shape);
        hash = hash_words(hash, tensors->values[i], (size_t)tensors_count(weight) * sizeof(float));
    }
    return hash;
}

static fw_status allocate(search *fresh, const tensor_set *tensors, const uint8_t *wanted,
                          fw_error *error) {
    fresh->n = tensors->n;
    fresh->first = calloc((size_t)tensors->n + 1, sizeof *fresh->first);
    if (fresh->first == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a plan");
    for (uint32_t i = 0; i < tensors->n; i++)
        fresh->first[i + 1] = fresh->first[i] + (wanted[i] ? tensors->weights[i]->shape[0] : 0);
    const size_t rows = (size_t)fresh->first[tensors->n] + 1;
    fresh->scales = calloc(rows, sizeof *fresh->scales);
    fresh->ones = calloc(rows, sizeof *fresh->ones);
    fresh->pruned = calloc(rows, sizeof *fresh->pruned);
    fresh->order = calloc(rows, sizeof *fresh->order);
    if (fresh->scales == NULL || fresh->ones == NULL || fresh->pruned == NULL ||
        fresh->order == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a plan of %zu rows", rows - 1);
    return FW_OK;
}

static int ascending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The square of a float16 is exact in float, so the order by scale is that by squared scale. */
static void order_rows(search *fresh) {
    const int64_t rows = fresh->first[fresh->n];
    for (int64_t row = 0; row < rows; row++)
        fresh->order[row] = (uint64_t)fresh->scales[row] << 48 | (uint64_t)row;
    qsort(fresh->order, (size_t)rows, sizeof *fresh->order, ascending);
}

static fw_status search_all(search *fresh, const fw_host *host, const tensor_set *tensors,
                            const uint8_t *wanted, float scale_floor, fw_error *error) {
    FW_TRY(allocate(fresh, tensors, wanted, error));
    for (uint32_t i = 0; i < tensors->n; i++) {
        if (wanted[i])
            FW_TRY(search_tensor(fresh, host, tensors->weights[i], tensors->values[i],
                                 fresh->first[i], scale_floor, error));
        host->progress(host, "quantize", i + 1.0, tensors->n);
    }
    order_rows(fresh);
    return FW_OK;
}

fw_status search_plan(search *made, const fw_host *host, const tensor_set *tensors,
                      const uint8_t *wanted, float scale_floor, fw_error *error) {
    search fresh = {.hash = hash_tensors(tensors, wanted)};
    if (made->first != NULL && made->n == tensors->n && made->hash == fresh.hash) return FW_OK;
    const fw_status status = search_all(&fresh, host, tensors, wanted, scale_floor, error);
    if (status != FW_OK) {
        search_free(&fresh);
        return status;
    }
    search_free(made);
    *made = fresh;
    return FW_OK;
}

void search_free(search *made) {
    free(made->first);
    free(made->scales);
    free(made->ones);
    free(made->pruned);
    free(made->order);
    *made = (search){0};
}

/* ---- pruning and encoding ---- */

int64_t search_prune(search *made, double rate) {
    const int64_t rows = made->first[made->n];
    int64_t ones = 0;
    for (int64_t row = 0; row < rows; row++) ones += made->ones[row];
    const int64_t total = (int64_t)floor((1 - rate) * (double)ones);
    int64_t left = total;
    for (int64_t i = 0; i < rows; i++) {
        const uint64_t row = made->order[i] & UINT64_C(0xffffffffffff);
        made->pruned[row] = made->ones[row] < left ? made->ones[row] : left;
        left -= made->pruned[row];
    }
    return total;
}

static void prune_row(int8_t *symbols, int64_t pruned) {
    for (int64_t i = 0; pruned > 0; i++)
        if (symbols[i] == 1 || symbols[i] == -1) {
            symbols[i] = 0;
            pruned--;
        }
}

typedef struct encode_job {
    const search *made;
    int64_t first, columns;
    const float *values;
    int8_t *symbols;
} encode_job;

static void encode_rows(void *argument, int64_t begin, int64_t end) {
    const encode_job *job = argument;
    const int64_t n = job->columns;
    for (int64_t row = begin; row < end; row++) {
        const float scale = half_to_float(job->made->scales[job->first + row]);
        int8_t *symbols = job->symbols + row * n;
        row_symbols(job->values + row * n, n, scale, symbols);
        prune_row(symbols, job->made->pruned[job->first + row]);
    }
}

void search_encode(const search *made, const fw_host *host, uint32_t index,
                   const tensor_set *tensors, fw_stream *streams) {
    const fw_weight *weight = tensors->weights[index];
    encode_job job = {.made = made,
                      .first = made->first[index],
                      .columns = weight->shape[1],
                      .values = tensors->values[index],
                      .symbols = streams[ROWS_SYMBOLS].data};
    host->parallel_for(host, weight->shape[0], GRAIN, encode_rows, &job);
    memcpy(streams[ROWS_SCALES].data, made->scales + job.first,
           (size_t)weight->shape[0] * sizeof *made->scales);
}

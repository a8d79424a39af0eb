/* Matrix products: OpenBLAS on one thread, with c split over OpenMP threads here. OpenBLAS's own
 * pool would fight OpenMP's for the cores; splitting c keeps every sum whole on one thread, so a
 * result does not depend on timing. */
#include "cpu.h"

#include <cblas.h>
#include <omp.h>
#include <string.h>

/* Columns and rows of c are cut at multiples of the BLAS kernel's tile. */
#define TILE 64
/* Fewer multiply-adds than this run on the calling thread: decoding token by token is made of such
 * products, and waking other threads for each takes longer than they save. */
#define PARALLEL_WORK ((int64_t)1 << 19)

void cpu_gemm_configure(void) { openblas_set_num_threads(1); }

void cpu_gemm_describe(char *text, size_t size) {
    const char *config = openblas_get_config(); /* "OpenBLAS 0.3.21 NO_LAPACKE ..." */
    size_t words = 0, length = 0;
    for (; config[length] != '\0'; length++)
        if (config[length] == ' ' && ++words == 2) break;
    (void)snprintf(text, size, "%.*s (%s)", (int)length, config, openblas_get_corename());
}

void cpu_multiply(const cpu_product *p) {
    cblas_sgemm(CblasRowMajor, p->transpose_a ? CblasTrans : CblasNoTrans,
                p->transpose_b ? CblasTrans : CblasNoTrans, (blasint)p->m, (blasint)p->n,
                (blasint)p->k, p->alpha, p->a, (blasint)p->lda, p->b, (blasint)p->ldb, p->beta,
                p->c, (blasint)p->ldc);
}

/* Part `part` of `parts`, cut along the longer side of c. */
static void multiply_part(const cpu_product *whole, int part, int parts) {
    cpu_product p = *whole;
    const int by_rows = p.m >= p.n;
    const int64_t length = by_rows ? p.m : p.n;
    const int64_t tile = length >= TILE * parts ? TILE : 1;
    const int64_t blocks = (length + tile - 1) / tile;
    const int64_t begin = blocks * part / parts * tile;
    const int64_t end = cpu_min(blocks * (part + 1) / parts * tile, length);
    if (begin >= end) return;
    if (by_rows) {
        p.m = end - begin;
        p.a += begin * (p.transpose_a ? 1 : p.lda);
        p.c += begin * p.ldc;
    } else {
        p.n = end - begin;
        p.b += begin * (p.transpose_b ? p.ldb : 1);
        p.c += begin;
    }
    cpu_multiply(&p);
}

void cpu_multiply_parallel(const cpu_product *product, int threads) {
    const int64_t work = product->m * product->n * cpu_max(product->k, 1);
    if (threads == 1 || work < PARALLEL_WORK) {
        cpu_multiply(product);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int part = 0; part < threads; part++) multiply_part(product, part, threads);
}

/* Batches fill the threads with whole products when there are enough of them. */
static void multiply_batch(const cpu_product *first, int64_t batch, const int64_t step[3],
                           int threads) {
    const int split = batch < threads;
    const int64_t work = batch * first->m * first->n * cpu_max(first->k, 1);
#pragma omp parallel for num_threads(threads)                                                      \
    schedule(static) if (!split && threads > 1 && work >= PARALLEL_WORK)
    for (int64_t i = 0; i < batch; i++) {
        cpu_product p = *first;
        p.a += i * step[0];
        p.b += i * step[1];
        p.c += i * step[2];
        cpu_multiply_parallel(&p, split ? threads : 1);
    }
}

static int64_t leading(const fw_tensor *tensor) {
    const uint32_t row = tensor->rank - 2;
    const int64_t least = cpu_max(tensor->shape[row + 1], 1); /* a single row may have any stride */
    return tensor->shape[row] > 1 ? tensor->stride[row] : least;
}

/* The library adds to what is in c. */
static void copy_addend(const fw_gemm *g, int64_t batch, int64_t rows, int64_t columns) {
    const uint32_t row = g->c.rank - 2;
    const float *from = (const float *)g->addend.data;
    float *to = (float *)g->c.data;
    for (int64_t i = 0; i < batch; i++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = (row > 0 ? i * g->c.stride[0] : 0) + r * g->c.stride[row];
            memcpy(to + at, from + at, (size_t)columns * sizeof *to);
        }
}

fw_status cpu_gemm(fw_device *device, const fw_gemm *g, fw_error *error) {
    CPU_ARGUMENTS_SINCE("gemm", device, g, c, error);
    kernel_gemm_sizes sizes;
    FW_TRY(kernel_check_gemm(g, FW_F32, FW_F32, &sizes, error));
    const int64_t batch = sizes.batch, m = sizes.m, n = sizes.n;
    if (m == 0 || n == 0 || batch == 0) return FW_OK;
    if (sizes.adds && g->addend.data != g->c.data) copy_addend(g, batch, m, n);
    const cpu_product product = {.transpose_a = g->transpose_a != 0,
                                 .transpose_b = g->transpose_b != 0,
                                 .m = m,
                                 .n = n,
                                 .k = sizes.k,
                                 .alpha = g->alpha,
                                 .beta = g->beta,
                                 .a = (const float *)g->a.data,
                                 .b = (const float *)g->b.data,
                                 .c = (float *)g->c.data,
                                 .lda = leading(&g->a),
                                 .ldb = leading(&g->b),
                                 .ldc = leading(&g->c)};
    const int64_t step[3] = {g->a.stride[0], g->b.stride[0], g->c.stride[0]};
    if (batch == 1)
        cpu_multiply_parallel(&product, cpu_self(device)->threads);
    else
        multiply_batch(&product, batch, step, cpu_self(device)->threads);
    return FW_OK;
}

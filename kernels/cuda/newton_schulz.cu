/* Newton-Schulz orthogonalisation of a batch of matrices (Jordan et al., Muon, 2024). The matrices
 * are normalised in float32, then iterated on in bfloat16 with float32 sums. A tall matrix is not
 * transposed: A = X^T X and X (b A + c A A) are the same iteration. Rows and columns are padded
 * with zeros, which the iteration keeps, to multiples of 8, so that every product is aligned. */
#include "gemm.h"

#define OP "newton_schulz"
#define THREADS 256
/* Blocks that sum the squares of one matrix. */
#define PARTS 32

/* Each matrix is rows x columns in memory, padded_rows x padded_columns in scratch. */
typedef struct geometry {
    int64_t batch, rows, columns, padded_rows, padded_columns, side;
    bool tall;
} geometry;

typedef struct scratch {
    __nv_bfloat16 *x, *next, *gram, *poly;
    double *squares; /* [batch, PARTS] */
    size_t bytes;
} scratch;

static geometry measure(const fw_tensor *x) {
    const int batched = x->rank == 3;
    geometry g = {.batch = batched ? x->shape[0] : 1,
                  .rows = x->shape[batched],
                  .columns = x->shape[batched + 1]};
    g.padded_rows = cuda_divide_up(g.rows, 8) * 8;
    g.padded_columns = cuda_divide_up(g.columns, 8) * 8;
    g.side = cuda_min(g.padded_rows, g.padded_columns);
    g.tall = g.padded_rows > g.padded_columns;
    return g;
}

static char *take(char **from, int64_t bytes) {
    char *taken = *from;
    *from += cuda_divide_up(bytes, 256) * 256;
    return taken;
}

static scratch carve(const geometry *g, void *memory) {
    char *at = static_cast<char *>(memory);
    const int64_t whole = g->batch * g->padded_rows * g->padded_columns * 2;
    const int64_t square = g->batch * g->side * g->side * 2;
    scratch s = {};
    s.x = reinterpret_cast<__nv_bfloat16 *>(take(&at, whole));
    s.next = reinterpret_cast<__nv_bfloat16 *>(take(&at, whole));
    s.gram = reinterpret_cast<__nv_bfloat16 *>(take(&at, square));
    s.poly = reinterpret_cast<__nv_bfloat16 *>(take(&at, square));
    s.squares = reinterpret_cast<double *>(take(&at, g->batch * PARTS * (int64_t)sizeof(double)));
    s.bytes = (size_t)(at - static_cast<char *>(memory));
    return s;
}

size_t cuda_newton_schulz_scratch(fw_device *device, const fw_newton_schulz *p) {
    (void)device;
    const geometry g = measure(&p->x);
    return carve(&g, NULL).bytes;
}

/* ---- kernels ---- */

/* The sum over a block, in a fixed order, for thread 0. */
__device__ static double sum_of_block(double x) {
    __shared__ double parts[THREADS / 32];
    for (int step = 16; step > 0; step /= 2) x += __shfl_down_sync(~0u, x, step);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 1; i < THREADS / 32; i++) x += parts[i];
    return x;
}

/* squares[matrix, part] = sum of the squares of one part of the matrix. `vectors`: size is a
 * multiple of 4 and x aligned to 16 bytes. */
__global__ void __launch_bounds__(THREADS)
    square_sums(const float *__restrict__ x, double *squares, int64_t size, bool vectors) {
    const float *from = x + blockIdx.y * size;
    const int64_t first = blockIdx.x * THREADS + threadIdx.x, step = (int64_t)PARTS * THREADS;
    float sums[4] = {};
    double total = 0.0;
    if (vectors) {
        for (int64_t i = first; i < size / 4; i += step) {
            const float4 v = reinterpret_cast<const float4 *>(from)[i];
            sums[0] += v.x * v.x, sums[1] += v.y * v.y;
            sums[2] += v.z * v.z, sums[3] += v.w * v.w;
        }
    } else {
        for (int64_t i = first; i < size; i += step) sums[0] += from[i] * from[i];
    }
    total = ((double)sums[0] + (double)sums[1]) + ((double)sums[2] + (double)sums[3]);
    total = sum_of_block(total);
    if (threadIdx.x == 0) squares[blockIdx.y * PARTS + blockIdx.x] = total;
}

/* What each matrix is multiplied with: the same in every thread. */
__device__ static float factor_of(const double *squares, float epsilon) {
    double total = 0.0;
    for (int i = 0; i < PARTS; i++) total += squares[i];
    return (float)(1.0 / (sqrt(total) + (double)epsilon));
}

/* to = factor x, padded, 8 elements of a row by one thread. `vectors`: columns are a multiple of 8
 * and x aligned to 16 bytes. */
__global__ void __launch_bounds__(THREADS)
    normalise(const float *__restrict__ x, const double *__restrict__ squares,
              __nv_bfloat16 *__restrict__ to, const geometry g, float epsilon, bool vectors) {
    const float factor = factor_of(squares + blockIdx.y * PARTS, epsilon);
    const float *from = x + blockIdx.y * g.rows * g.columns;
    uint4 *out = reinterpret_cast<uint4 *>(to + blockIdx.y * g.padded_rows * g.padded_columns);
    const int64_t across = g.padded_columns / 8, pieces = g.padded_rows * across;
    for (int64_t i = blockIdx.x * THREADS + threadIdx.x; i < pieces;
         i += (int64_t)gridDim.x * THREADS) {
        const int64_t row = i / across, column = i % across * 8;
        float v[8] = {};
        if (vectors && row < g.rows) {
            const float4 *p = reinterpret_cast<const float4 *>(from + row * g.columns + column);
            const float4 low = p[0], high = p[1];
            v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
            v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
        } else if (row < g.rows) {
            for (int j = 0; j < 8; j++)
                if (column + j < g.columns) v[j] = from[row * g.columns + column + j];
        }
        __nv_bfloat162 packed[4];
        for (int j = 0; j < 4; j++)
            packed[j] = __floats2bfloat162_rn(factor * v[2 * j], factor * v[2 * j + 1]);
        out[i] = *reinterpret_cast<uint4 *>(packed);
    }
}

/* out = x without the padding, in float32. */
__global__ void __launch_bounds__(THREADS)
    widen(const __nv_bfloat16 *__restrict__ x, float *__restrict__ out, const geometry g,
          bool vectors) {
    const uint4 *from =
        reinterpret_cast<const uint4 *>(x + blockIdx.y * g.padded_rows * g.padded_columns);
    float *to = out + blockIdx.y * g.rows * g.columns;
    const int64_t across = g.padded_columns / 8, pieces = g.rows * across;
    for (int64_t i = blockIdx.x * THREADS + threadIdx.x; i < pieces;
         i += (int64_t)gridDim.x * THREADS) {
        const int64_t row = i / across, column = i % across * 8;
        const uint4 packed = from[i];
        const __nv_bfloat162 *pair = reinterpret_cast<const __nv_bfloat162 *>(&packed);
        float v[8];
        for (int j = 0; j < 4; j++) {
            const float2 both = __bfloat1622float2(pair[j]);
            v[2 * j] = both.x, v[2 * j + 1] = both.y;
        }
        float *at = to + row * g.columns + column;
        if (vectors) {
            reinterpret_cast<float4 *>(at)[0] = make_float4(v[0], v[1], v[2], v[3]);
            reinterpret_cast<float4 *>(at)[1] = make_float4(v[4], v[5], v[6], v[7]);
        } else {
            for (int j = 0; j < 8; j++)
                if (column + j < g.columns) at[j] = v[j];
        }
    }
}

/* ---- the iteration ---- */

static cuda_product product(const geometry *g, const __nv_bfloat16 *a, const __nv_bfloat16 *b,
                            __nv_bfloat16 *c) {
    const int64_t whole = g->padded_rows * g->padded_columns, square = g->side * g->side;
    return (cuda_product){.m = g->side,
                          .n = g->side,
                          .k = g->side,
                          .batch = g->batch,
                          .alpha = 1.0f,
                          .a = a,
                          .b = b,
                          .add = c,
                          .c = c,
                          .lda = g->padded_columns,
                          .ldb = g->padded_columns,
                          .ldc = g->side,
                          .step_a = whole,
                          .step_b = whole,
                          .step_c = square,
                          .c_dtype = FW_BF16};
}

/* gram = X X^T, or X^T X of tall matrices. */
static fw_status multiply_gram(cuda_device *cuda, const geometry *g, const scratch *s,
                               fw_error *error) {
    cuda_product p = product(g, s->x, s->x, s->gram);
    p.k = g->tall ? g->padded_rows : g->padded_columns;
    p.transpose_a = g->tall;
    p.transpose_b = !g->tall;
    return cuda_multiply(cuda, OP, &p, error);
}

/* poly = b gram + c gram gram. */
static fw_status multiply_poly(cuda_device *cuda, const fw_newton_schulz *n, const geometry *g,
                               const scratch *s, fw_error *error) {
    cuda_product p = product(g, s->gram, s->gram, s->poly);
    p.lda = p.ldb = g->side;
    p.step_a = p.step_b = g->side * g->side;
    p.alpha = n->c;
    p.beta = n->b;
    p.add = s->gram;
    return cuda_multiply(cuda, OP, &p, error);
}

/* next = a X + poly X, or a X + X poly of tall matrices. */
static fw_status multiply_next(cuda_device *cuda, const fw_newton_schulz *n, const geometry *g,
                               const scratch *s, fw_error *error) {
    cuda_product p = product(g, g->tall ? s->x : s->poly, g->tall ? s->poly : s->x, s->next);
    p.m = g->padded_rows;
    p.n = g->padded_columns;
    p.beta = n->a;
    p.add = s->x;
    p.ldc = g->padded_columns;
    p.step_c = g->padded_rows * g->padded_columns;
    (g->tall ? p.ldb : p.lda) = g->side;
    (g->tall ? p.step_b : p.step_a) = g->side * g->side;
    return cuda_multiply(cuda, OP, &p, error);
}

static fw_status check(fw_device *device, const fw_newton_schulz *p, fw_error *error) {
    if (p->x.rank != 2 && p->x.rank != 3)
        return fw_fail(error, FW_E_SHAPE, "%s: x has rank %u, expected 2, or 3 for a batch", OP,
                       p->x.rank);
    FW_TRY(cuda_check_packed(OP, "x", &p->x, FW_F32, -1, error));
    FW_TRY(cuda_check_packed(OP, "out", &p->out, FW_F32, fw_tensor_count(&p->x), error));
    const size_t needed = cuda_newton_schulz_scratch(device, p);
    if (needed > 0 && (p->scratch == NULL || p->scratch_bytes < needed))
        return fw_fail(error, FW_E_ARGUMENT, "%s: scratch has %zu bytes, needs %zu", OP,
                       p->scratch == NULL ? (size_t)0 : p->scratch_bytes, needed);
    if (p->x.rank == 3 && p->x.shape[0] > 65535)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: a batch of %lld, at most 65535", OP,
                       (long long)p->x.shape[0]);
    return FW_OK;
}

static bool aligned(const void *pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

static fw_status begin(cuda_device *cuda, const fw_newton_schulz *p, const geometry *g,
                       const scratch *s, dim3 blocks, fw_error *error) {
    const float *x = static_cast<const float *>(p->x.data);
    const int64_t size = g->rows * g->columns;
    square_sums<<<dim3(PARTS, blocks.y), THREADS, 0, cuda->stream>>>(x, s->squares, size,
                                                                     size % 4 == 0 && aligned(x));
    FW_TRY(cuda_launched(cuda, OP, "square_sums", error));
    normalise<<<blocks, THREADS, 0, cuda->stream>>>(x, s->squares, s->x, *g, p->epsilon,
                                                    g->columns % 8 == 0 && aligned(x));
    return cuda_launched(cuda, OP, "normalise", error);
}

fw_status cuda_newton_schulz(fw_device *device, const fw_newton_schulz *p, fw_error *error) {
    CUDA_ARGUMENTS(OP, device, p, error);
    FW_TRY(check(device, p, error));
    if (fw_tensor_count(&p->x) == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const geometry g = measure(&p->x);
    scratch s = carve(&g, p->scratch);
    const int64_t pieces = g.padded_rows * g.padded_columns / 8;
    const dim3 blocks((unsigned)cuda_min(cuda_divide_up(pieces, THREADS), 1024), (unsigned)g.batch);
    FW_TRY(begin(cuda, p, &g, &s, blocks, error));
    for (uint32_t i = 0; i < p->iterations; i++) {
        FW_TRY(multiply_gram(cuda, &g, &s, error));
        FW_TRY(multiply_poly(cuda, p, &g, &s, error));
        FW_TRY(multiply_next(cuda, p, &g, &s, error));
        __nv_bfloat16 *swap = s.x;
        s.x = s.next;
        s.next = swap;
    }
    float *out = static_cast<float *>(p->out.data);
    widen<<<blocks, THREADS, 0, cuda->stream>>>(s.x, out, g, g.columns % 8 == 0 && aligned(out));
    return cuda_launched(cuda, OP, "widen", error);
}

/* Matrix products on cuBLASLt. How a product of one shape is computed is decided once, at its first
 * use, and kept: the library's heuristics propose algorithms, and each is timed on the operands at
 * hand. Sums that are split over blocks are added up in a fixed order through the workspace, never
 * in place, so that a plan gives the same bits every time. What the library refuses runs on a plain
 * kernel of our own. */
#include "gemm.h"

#include <cstdlib>
#include <cstring>

/* The library's part of the workspace; the rest takes the results of timed products whose own
 * output must not change. */
#define LIBRARY_BYTES ((size_t)32 << 20)
#define SPARE_BYTES (CUDA_WORKSPACE_BYTES - LIBRARY_BYTES)

#define MOST_CANDIDATES 16
/* Each candidate runs in turn, this often, and its best time counts. */
#define TIMED_ROUNDS 3
#define TIMED_RUNS 2

/* What a plan depends on; compared byte by byte. */
typedef struct shape {
    int64_t m, n, k, batch;
    int64_t lda, ldb, ldc, step_a, step_b, step_c;
    int64_t flags;
} shape;

typedef struct description {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a, b, c;
} description;

typedef struct plan {
    shape of;
    description described;
    cublasLtMatmulAlgo_t algorithm;
    bool own; /* the library takes no such product */
    struct plan *next;
} plan;

#define BUCKETS 256

struct cuda_gemm_plans {
    plan *bucket[BUCKETS];
    cudaEvent_t begin, end;
};

/* ---- the plain kernel ---- */

#define SIDE 32
#define THREAD_ROWS 8

template <typename T> __device__ float value(T x) { return static_cast<float>(x); }
__device__ void put(float *to, float x) { *to = x; }
__device__ void put(__nv_bfloat16 *to, float x) { *to = __float2bfloat16_rn(x); }

/* A SIDE x SIDE tile of op(x), zeros outside of rows x columns. */
__device__ void load_tile(float (*tile)[SIDE + 1], const __nv_bfloat16 *x, int64_t ld,
                          bool transpose, int64_t row0, int64_t column0, int64_t rows,
                          int64_t columns) {
    for (int i = threadIdx.y; i < SIDE; i += THREAD_ROWS) {
        const int r = transpose ? threadIdx.x : i, c = transpose ? i : threadIdx.x;
        const int64_t row = row0 + r, column = column0 + c;
        const bool inside = row < rows && column < columns;
        const int64_t at = transpose ? column * ld + row : row * ld + column;
        tile[r][c] = inside ? __bfloat162float(x[at]) : 0.0f;
    }
}

template <typename C>
__device__ void multiply_tile(const cuda_product &p, int64_t index, int64_t row0, int64_t column0) {
    __shared__ float left[SIDE][SIDE + 1], right[SIDE][SIDE + 1];
    const __nv_bfloat16 *a = static_cast<const __nv_bfloat16 *>(p.a) + index * p.step_a;
    const __nv_bfloat16 *b = static_cast<const __nv_bfloat16 *>(p.b) + index * p.step_b;
    float sum[SIDE / THREAD_ROWS] = {};
    for (int64_t k0 = 0; k0 < p.k; k0 += SIDE) {
        load_tile(left, a, p.lda, p.transpose_a, row0, k0, p.m, p.k);
        load_tile(right, b, p.ldb, p.transpose_b, k0, column0, p.k, p.n);
        __syncthreads();
        for (int k = 0; k < SIDE; k++)
            for (int i = 0; i < SIDE / THREAD_ROWS; i++)
                sum[i] += left[threadIdx.y + i * THREAD_ROWS][k] * right[k][threadIdx.x];
        __syncthreads();
    }
    const int64_t column = column0 + threadIdx.x;
    for (int i = 0; i < SIDE / THREAD_ROWS; i++) {
        const int64_t row = row0 + threadIdx.y + i * THREAD_ROWS;
        if (row >= p.m || column >= p.n) continue;
        const int64_t at = index * p.step_c + row * p.ldc + column;
        const float kept =
            p.beta == 0.0f ? 0.0f : p.beta * value(static_cast<const C *>(p.add)[at]);
        put(static_cast<C *>(p.c) + at, p.alpha * sum[i] + kept);
    }
}

template <typename C>
__global__ void __launch_bounds__(SIDE *THREAD_ROWS) product_plain(const cuda_product p) {
    const int64_t across = (p.n + SIDE - 1) / SIDE, down = (p.m + SIDE - 1) / SIDE;
    const int64_t tiles = across * down * p.batch;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x)
        multiply_tile<C>(p, tile / (across * down), tile / across % down * SIDE,
                         tile % across * SIDE);
}

static fw_status multiply_plainly(cuda_device *cuda, const char *op, const cuda_product *p,
                                  fw_error *error) {
    const int64_t tiles = cuda_divide_up(p->n, SIDE) * cuda_divide_up(p->m, SIDE) * p->batch;
    const dim3 threads(SIDE, THREAD_ROWS);
    const unsigned blocks = cuda_blocks(cuda, tiles, 1);
    if (p->c_dtype == FW_F32)
        product_plain<float><<<blocks, threads, 0, cuda->stream>>>(*p);
    else
        product_plain<__nv_bfloat16><<<blocks, threads, 0, cuda->stream>>>(*p);
    return cuda_launched(cuda, op, "product_plain", error);
}

/* ---- a product in the library's terms ---- */

static cublasStatus_t set_layout(cublasLtMatrixLayoutOpaque_t *layout, uint32_t dtype, int64_t rows,
                                 int64_t columns, int64_t ld, int64_t batch, int64_t step) {
    const cudaDataType type = dtype == FW_F32 ? CUDA_R_32F : CUDA_R_16BF;
    /* The library's matrices are column-major: it sees the transpose of each of ours. */
    cublasStatus_t code =
        cublasLtMatrixLayoutInit(layout, type, (uint64_t)columns, (uint64_t)rows, ld);
    if (code != CUBLAS_STATUS_SUCCESS || batch == 1) return code;
    const int32_t count = (int32_t)batch;
    code = cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                            sizeof count);
    if (code != CUBLAS_STATUS_SUCCESS) return code;
    return cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                            &step, sizeof step);
}

static cublasStatus_t set_operation(cublasLtMatmulDescOpaque_t *operation, bool first,
                                    bool second) {
    const cublasOperation_t ops[2] = {first ? CUBLAS_OP_T : CUBLAS_OP_N,
                                      second ? CUBLAS_OP_T : CUBLAS_OP_N};
    cublasStatus_t code = cublasLtMatmulDescInit(operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (code != CUBLAS_STATUS_SUCCESS) return code;
    code = cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &ops[0],
                                          sizeof ops[0]);
    if (code != CUBLAS_STATUS_SUCCESS) return code;
    return cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSB, &ops[1],
                                          sizeof ops[1]);
}

/* c^T = op(b)^T op(a)^T: the library's first operand is our b. */
static bool describe(const cuda_product *p, description *d) {
    const int64_t a_rows = p->transpose_a ? p->k : p->m, a_columns = p->transpose_a ? p->m : p->k;
    const int64_t b_rows = p->transpose_b ? p->n : p->k, b_columns = p->transpose_b ? p->k : p->n;
    const int64_t batch = p->batch;
    return set_operation(&d->operation, p->transpose_b, p->transpose_a) == CUBLAS_STATUS_SUCCESS &&
           set_layout(&d->b, FW_BF16, b_rows, b_columns, p->ldb, batch, p->step_b) ==
               CUBLAS_STATUS_SUCCESS &&
           set_layout(&d->a, FW_BF16, a_rows, a_columns, p->lda, batch, p->step_a) ==
               CUBLAS_STATUS_SUCCESS &&
           set_layout(&d->c, p->c_dtype, p->m, p->n, p->ldc, batch, p->step_c) ==
               CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t issue(cuda_device *cuda, const cuda_product *p, const description *d,
                            const cublasLtMatmulAlgo_t *algorithm) {
    cublasLtMatmulDesc_t operation = const_cast<cublasLtMatmulDescOpaque_t *>(&d->operation);
    cublasLtMatrixLayout_t a = const_cast<cublasLtMatrixLayoutOpaque_t *>(&d->a);
    cublasLtMatrixLayout_t b = const_cast<cublasLtMatrixLayoutOpaque_t *>(&d->b);
    cublasLtMatrixLayout_t c = const_cast<cublasLtMatrixLayoutOpaque_t *>(&d->c);
    return cublasLtMatmul(cuda->cublas, operation, &p->alpha, p->b, b, p->a, a, &p->beta,
                          p->beta == 0.0f ? p->c : p->add, c, p->c, c, algorithm, cuda->workspace,
                          LIBRARY_BYTES, cuda->stream);
}

/* ---- choosing ---- */

/* The largest power of two up to 256 that divides an address. */
static uint32_t alignment(const void *pointer) {
    const uintptr_t bits = reinterpret_cast<uintptr_t>(pointer) | 256;
    return (uint32_t)(bits & (0 - bits));
}

static const void *added(const cuda_product *p) { return p->beta == 0.0f ? p->c : p->add; }

static shape shape_of(const cuda_product *p) {
    const int64_t flags = (p->transpose_a ? 1 : 0) | (p->transpose_b ? 2 : 0) |
                          (p->c_dtype == FW_F32 ? 4 : 0) | (p->beta != 0.0f ? 8 : 0) |
                          (added(p) == p->c ? 16 : 0);
    const int64_t aligned = (int64_t)alignment(p->a) | (int64_t)alignment(p->b) << 10 |
                            (int64_t)alignment(added(p)) << 20 | (int64_t)alignment(p->c) << 30;
    return (shape){.m = p->m,
                   .n = p->n,
                   .k = p->k,
                   .batch = p->batch,
                   .lda = p->lda,
                   .ldb = p->ldb,
                   .ldc = p->ldc,
                   .step_a = p->step_a,
                   .step_b = p->step_b,
                   .step_c = p->step_c,
                   .flags = flags | aligned << 8};
}

static bool set_preference(cublasLtMatmulPreferenceOpaque_t *preference, const cuda_product *p) {
    const size_t bytes = LIBRARY_BYTES;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* a fixed order */
    const uint32_t aligned[4] = {alignment(p->b), alignment(p->a), alignment(added(p)),
                                 alignment(p->c)};
    const cublasLtMatmulPreferenceAttributes_t names[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    bool good = cublasLtMatmulPreferenceInit(preference) == CUBLAS_STATUS_SUCCESS;
    good = good && cublasLtMatmulPreferenceSetAttribute(
                       preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                       sizeof bytes) == CUBLAS_STATUS_SUCCESS;
    good = good && cublasLtMatmulPreferenceSetAttribute(
                       preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                       sizeof reductions) == CUBLAS_STATUS_SUCCESS;
    for (int i = 0; good && i < 4; i++)
        good = cublasLtMatmulPreferenceSetAttribute(preference, names[i], &aligned[i],
                                                    sizeof aligned[i]) == CUBLAS_STATUS_SUCCESS;
    return good;
}

/* How many algorithms the library proposes, best guess first; 0 when it takes no such product. */
static int propose(cuda_device *cuda, const cuda_product *p, description *d, int most,
                   cublasLtMatmulHeuristicResult_t *proposed) {
    cublasLtMatmulPreferenceOpaque_t preference;
    int found = 0;
    if (!describe(p, d) || !set_preference(&preference, p)) return 0;
    const cublasStatus_t code =
        cublasLtMatmulAlgoGetHeuristic(cuda->cublas, &d->operation, &d->b, &d->a, &d->c, &d->c,
                                       &preference, most, proposed, &found);
    int good = 0;
    for (int i = 0; code == CUBLAS_STATUS_SUCCESS && i < found; i++)
        if (proposed[i].state == CUBLAS_STATUS_SUCCESS &&
            proposed[i].workspaceSize <= LIBRARY_BYTES)
            proposed[good++] = proposed[i];
    return good;
}

/* Milliseconds of one run, or a value beyond all others when it fails. */
static float time_of(cuda_device *cuda, const cuda_product *p, const description *d,
                     const cublasLtMatmulAlgo_t *algorithm) {
    const float failed = 1e30f;
    float total = failed;
    if (cudaEventRecord(cuda->plans->begin, cuda->stream) != cudaSuccess) return failed;
    for (int i = 0; i < TIMED_RUNS; i++)
        if (issue(cuda, p, d, algorithm) != CUBLAS_STATUS_SUCCESS) return failed;
    if (cudaEventRecord(cuda->plans->end, cuda->stream) != cudaSuccess ||
        cudaEventSynchronize(cuda->plans->end) != cudaSuccess ||
        cudaEventElapsedTime(&total, cuda->plans->begin, cuda->plans->end) != cudaSuccess)
        return failed;
    return total / TIMED_RUNS;
}

/* Where a product adds to its own output, timing it would change that: then it writes to the spare
 * part of the workspace, and computes no more rows or products than fit there. */
static cuda_product rehearsal(cuda_device *cuda, const cuda_product *p) {
    cuda_product q = *p;
    if (added(p) != p->c || p->beta == 0.0f) return q;
    const int64_t bytes = (int64_t)fw_dtype_size(p->c_dtype);
    if (p->batch == 1)
        q.m = cuda_min(p->m, (int64_t)SPARE_BYTES / (p->ldc * bytes));
    else
        q.batch =
            cuda_min(p->batch, (int64_t)SPARE_BYTES / (cuda_max(p->step_c, p->m * p->ldc) * bytes));
    q.c = cuda->workspace + LIBRARY_BYTES;
    return q;
}

static int fastest(cuda_device *cuda, const cuda_product *p, int n,
                   const cublasLtMatmulHeuristicResult_t *proposed) {
    const cuda_product q = rehearsal(cuda, p);
    description d;
    if (q.m == 0 || q.batch == 0 || !describe(&q, &d)) return 0;
    float best[MOST_CANDIDATES];
    for (int i = 0; i < n; i++) {
        (void)time_of(cuda, &q, &d, &proposed[i].algo); /* loads the kernel */
        best[i] = time_of(cuda, &q, &d, &proposed[i].algo);
    }
    for (int round = 1; round < TIMED_ROUNDS; round++)
        for (int i = 0; i < n; i++) {
            const float again = time_of(cuda, &q, &d, &proposed[i].algo);
            if (again < best[i]) best[i] = again;
        }
    int first = 0;
    for (int i = 1; i < n; i++)
        if (best[i] < best[first]) first = i;
    return first;
}

static void choose(cuda_device *cuda, const cuda_product *p, plan *made) {
    const bool timed = cuda->time_gemms && !cuda->capturing;
    cublasLtMatmulHeuristicResult_t proposed[MOST_CANDIDATES];
    const int n =
        p->k == 0 ? 0 : propose(cuda, p, &made->described, timed ? MOST_CANDIDATES : 1, proposed);
    made->own = n == 0;
    if (n > 0) made->algorithm = proposed[timed && n > 1 ? fastest(cuda, p, n, proposed) : 0].algo;
}

/* ---- plans by shape ---- */

static size_t bucket_of(const shape *s) {
    const unsigned char *bytes = reinterpret_cast<const unsigned char *>(s);
    uint64_t hash = 14695981039346656037ull; /* FNV-1a */
    for (size_t i = 0; i < sizeof *s; i++) hash = (hash ^ bytes[i]) * 1099511628211ull;
    return (hash ^ hash >> 32) % BUCKETS;
}

static fw_status plan_for(cuda_device *cuda, const char *op, const cuda_product *p, plan **found,
                          fw_error *error) {
    const shape s = shape_of(p);
    plan **bucket = &cuda->plans->bucket[bucket_of(&s)];
    for (*found = *bucket; *found != NULL; *found = (*found)->next)
        if (memcmp(&(*found)->of, &s, sizeof s) == 0) return FW_OK;
    plan *made = static_cast<plan *>(calloc(1, sizeof *made));
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "%s: no memory for a plan", op);
    made->of = s;
    choose(cuda, p, made);
    made->next = *bucket;
    *found = *bucket = made;
    return FW_OK;
}

fw_status cuda_multiply(cuda_device *cuda, const char *op, const cuda_product *p, fw_error *error) {
    if (p->m == 0 || p->n == 0 || p->batch == 0) return FW_OK;
    plan *chosen = NULL;
    FW_TRY(plan_for(cuda, op, p, &chosen, error));
    if (chosen->own) return multiply_plainly(cuda, op, p, error);
    const cublasStatus_t code = issue(cuda, p, &chosen->described, &chosen->algorithm);
    if (code != CUBLAS_STATUS_SUCCESS)
        return fw_fail(error, FW_E_DEVICE, "%s: cuBLASLt: %s; %lld x %lld x %lld, batch %lld", op,
                       cublasLtGetStatusString(code), (long long)p->m, (long long)p->n,
                       (long long)p->k, (long long)p->batch);
    return cuda_launched(cuda, op, "cublasLtMatmul", error);
}

fw_status cuda_gemm_create(cuda_device *cuda, fw_error *error) {
    const cublasStatus_t code = cublasLtCreate(&cuda->cublas);
    if (code != CUBLAS_STATUS_SUCCESS)
        return fw_fail(error, FW_E_DEVICE, "gemm: cuBLASLt does not start: %s",
                       cublasLtGetStatusString(code));
    cuda->plans = static_cast<cuda_gemm_plans *>(calloc(1, sizeof *cuda->plans));
    if (cuda->plans == NULL) return fw_fail(error, FW_E_MEMORY, "gemm: no memory for plans");
    CUDA_TRY(cuda, cudaEventCreate(&cuda->plans->begin), "gemm: create an event", error);
    CUDA_TRY(cuda, cudaEventCreate(&cuda->plans->end), "gemm: create an event", error);
    return FW_OK;
}

void cuda_gemm_destroy(cuda_device *cuda) {
    if (cuda->cublas != NULL) (void)cublasLtDestroy(cuda->cublas);
    cuda->cublas = NULL;
    if (cuda->plans == NULL) return;
    for (int i = 0; i < BUCKETS; i++)
        for (plan *p = cuda->plans->bucket[i], *next; p != NULL; p = next) {
            next = p->next;
            free(p);
        }
    if (cuda->plans->begin != NULL) (void)cudaEventDestroy(cuda->plans->begin);
    if (cuda->plans->end != NULL) (void)cudaEventDestroy(cuda->plans->end);
    free(cuda->plans);
    cuda->plans = NULL;
}

/* ---- the op ---- */

static int64_t leading(const fw_tensor *tensor) {
    const uint32_t row = tensor->rank - 2;
    const int64_t least =
        cuda_max(tensor->shape[row + 1], 1); /* a single row may have any stride */
    return tensor->shape[row] > 1 ? tensor->stride[row] : least;
}

static cuda_product product_of(const fw_gemm *g, const kernel_gemm_sizes &sizes) {
    return (cuda_product){.m = sizes.m,
                          .n = sizes.n,
                          .k = sizes.k,
                          .batch = sizes.batch,
                          .transpose_a = g->transpose_a != 0,
                          .transpose_b = g->transpose_b != 0,
                          .alpha = g->alpha,
                          .beta = g->beta,
                          .a = g->a.data,
                          .b = g->b.data,
                          .add = sizes.adds ? g->addend.data : g->c.data,
                          .c = g->c.data,
                          .lda = leading(&g->a),
                          .ldb = leading(&g->b),
                          .ldc = leading(&g->c),
                          .step_a = sizes.batch > 1 ? g->a.stride[0] : 0,
                          .step_b = sizes.batch > 1 ? g->b.stride[0] : 0,
                          .step_c = sizes.batch > 1 ? g->c.stride[0] : 0,
                          .c_dtype = g->c.dtype};
}

fw_status cuda_gemm(fw_device *device, const fw_gemm *g, fw_error *error) {
    CUDA_ARGUMENTS_SINCE("gemm", device, g, c, error);
    kernel_gemm_sizes sizes;
    FW_TRY(kernel_check_gemm(g, FW_BF16, g->c.dtype == FW_F32 ? FW_F32 : FW_BF16, &sizes, error));
    const cuda_product p = product_of(g, sizes);
    return cuda_multiply(cuda_self(device), "gemm", &p, error);
}

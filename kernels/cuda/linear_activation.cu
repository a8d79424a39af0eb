/* A linear layer with its activation, and back through both: checks, the choice between the fused
 * products of Hopper and the way of every GPU, and that way: the library's product, then one pass
 * over its result in place. What `saved` holds stands in linear_activation.h. */
#include "linear_activation.h"

#include "gemm.h"

#define FORWARD "linear_activation_forward"
#define BACKWARD "linear_activation_backward"
#define THREADS 256

/* sqrt(2/pi) and the cubic coefficient of the tanh form of GELU (Hendrycks and Gimpel, 2016). */
#define GELU_RATE 0.797884561f
#define GELU_CUBE 0.044715f

typedef __nv_bfloat16 bf16;

/* A strided matrix of bfloat16. `vectors`: pieces of 8 elements can be moved at once. */
typedef struct matrix {
    bf16 *data;
    int64_t rows, columns, ld;
    bool vectors;
} matrix;

static matrix matrix_of(void *data, int64_t rows, int64_t columns, int64_t ld) {
    const bool vectors =
        reinterpret_cast<uintptr_t>(data) % 16 == 0 && ld % 8 == 0 && columns % 8 == 0;
    return (matrix){static_cast<bf16 *>(data), rows, columns, ld, vectors};
}

static int64_t leading(const fw_tensor *t) {
    return t->shape[0] > 1 ? t->stride[0] : cuda_max(t->shape[1], 1);
}

static matrix matrix_of(const fw_tensor *t) {
    return matrix_of(t->data, t->shape[0], t->shape[1], leading(t));
}

/* ---- pieces of 8 elements of a row ---- */

struct piece {
    float v[8];
};

__device__ static piece load(const matrix &from, int64_t row, int64_t column) {
    piece p = {};
    if (row >= from.rows || column >= from.columns) return p;
    const bf16 *at = from.data + row * from.ld + column;
    if (from.vectors) {
        const uint4 packed = *reinterpret_cast<const uint4 *>(at);
        const __nv_bfloat162 *pair = reinterpret_cast<const __nv_bfloat162 *>(&packed);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 both = __bfloat1622float2(pair[i]);
            p.v[2 * i] = both.x, p.v[2 * i + 1] = both.y;
        }
        return p;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (column + i < from.columns) p.v[i] = __bfloat162float(at[i]);
    return p;
}

__device__ static void store(const matrix &to, int64_t row, int64_t column, const piece &p) {
    if (row >= to.rows || column >= to.columns) return;
    bf16 *at = to.data + row * to.ld + column;
    if (to.vectors) {
        __nv_bfloat162 packed[4];
#pragma unroll
        for (int i = 0; i < 4; i++) packed[i] = __floats2bfloat162_rn(p.v[2 * i], p.v[2 * i + 1]);
        *reinterpret_cast<uint4 *>(at) = *reinterpret_cast<uint4 *>(packed);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (column + i < to.columns) at[i] = __float2bfloat16_rn(p.v[i]);
}

/* ---- GELU and SiLU, from the pre-activation ---- */

__device__ static float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

/* sigmoid(z) + weight * sigmoid(z) (1 - sigmoid(z)), without the cancellation of 1 - sigmoid. */
__device__ static float gate_slope(float z, float weight) {
    const float e = __expf(-fabsf(z)), open = 1.0f / (1.0f + e);
    return (z < 0.0f ? e * open : open) + weight * (e * open * open);
}

template <uint32_t KIND> __device__ static float activation(float x) {
    if (KIND == FW_SILU) return x * sigmoid(x);
    return x * sigmoid(2.0f * GELU_RATE * (x + GELU_CUBE * x * x * x));
}

template <uint32_t KIND> __device__ static float derivative(float x) {
    if (KIND == FW_SILU) return gate_slope(x, x);
    /* Beyond 20 the slope is 0 or 1, as at 20, and the cube of x need not fit float32. */
    const float v = fminf(fmaxf(x, -20.0f), 20.0f);
    const float u = v + GELU_CUBE * v * v * v, du = 1.0f + 3.0f * GELU_CUBE * v * v;
    return gate_slope(2.0f * GELU_RATE * u, v * 2.0f * GELU_RATE * du);
}

/* out = f(hidden); in place when they are the same. */
template <uint32_t KIND>
__global__ void __launch_bounds__(THREADS) activate(const matrix hidden, const matrix out) {
    const int64_t across = (out.columns + 7) / 8;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < out.rows * across;
         i += (int64_t)gridDim.x * THREADS) {
        piece p = load(hidden, i / across, i % across * 8);
#pragma unroll
        for (int j = 0; j < 8; j++) p.v[j] = activation<KIND>(p.v[j]);
        store(out, i / across, i % across * 8, p);
    }
}

/* gradient *= f'(hidden). */
template <uint32_t KIND>
__global__ void __launch_bounds__(THREADS)
    multiply_slopes(const matrix hidden, const matrix gradient) {
    const int64_t across = (gradient.columns + 7) / 8;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < gradient.rows * across;
         i += (int64_t)gridDim.x * THREADS) {
        const int64_t row = i / across, column = i % across * 8;
        const piece x = load(hidden, row, column);
        piece p = load(gradient, row, column);
#pragma unroll
        for (int j = 0; j < 8; j++) p.v[j] *= derivative<KIND>(x.v[j]);
        store(gradient, row, column, p);
    }
}

/* ---- the squared activations, from the sign and the value ---- */

/* Where the calling thread stands in a matrix cut into blocks of signs. */
struct sign_place {
    int64_t row, column; /* of its first piece */
    __device__ sign_place(int64_t block, int64_t across) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        row = block / across * SIGN_SIDE + 16 * warp + lane / 4;
        column = block % across * SIGN_SIDE + 8 * (lane % 4);
    }
};

__device__ static int sign_bit(int g, int h, int column) {
    return 31 - (16 * g + 4 * (column / 2) + 2 * h + column % 2);
}

/* x = l * l in place, its signs into words unless NULL. */
__global__ void __launch_bounds__(SIGN_THREADS)
    square_signed(const matrix x, uint32_t *words, float slope) {
    const int64_t across = (x.columns + SIGN_SIDE - 1) / SIGN_SIDE;
    const int64_t blocks = (x.rows + SIGN_SIDE - 1) / SIGN_SIDE * across;
    for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const sign_place at(block, across);
        piece p[4];
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) p[i] = load(x, at.row + 8 * (i % 2), at.column + 32 * (i / 2));
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float h = p[i].v[j], l = h > 0.0f ? h : slope * h;
                word |= (__float_as_uint(h) >> 31) << sign_bit(i / 2, i % 2, j);
                p[i].v[j] = l * l;
            }
            store(x, at.row + 8 * (i % 2), at.column + 32 * (i / 2), p[i]);
        }
        if (words != NULL) words[block * SIGN_THREADS + threadIdx.x] = word;
    }
}

/* gradient *= f' where out = l * l: 2 |l| of a positive pre-activation, else -2 |slope| |l|. */
__global__ void __launch_bounds__(SIGN_THREADS)
    multiply_signed(const matrix out, const uint32_t *words, const matrix gradient, float slope) {
    const int64_t across = (out.columns + SIGN_SIDE - 1) / SIGN_SIDE;
    const int64_t blocks = (out.rows + SIGN_SIDE - 1) / SIGN_SIDE * across;
    for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const sign_place at(block, across);
        const uint32_t word = words[block * SIGN_THREADS + threadIdx.x];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t row = at.row + 8 * (i % 2), column = at.column + 32 * (i / 2);
            const piece square = load(out, row, column);
            piece p = load(gradient, row, column);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const bool negative = word >> sign_bit(i / 2, i % 2, j) & 1;
                p.v[j] *= (negative ? -2.0f * fabsf(slope) : 2.0f) * sqrtf(square.v[j]);
            }
            store(gradient, row, column, p);
        }
    }
}

/* ---- the way of every GPU ---- */

static fw_status multiply(cuda_device *cuda, const char *op, const fw_tensor *a, const fw_tensor *b,
                          bool transpose_b, const matrix *c, fw_error *error) {
    const cuda_product p = {.m = c->rows,
                            .n = c->columns,
                            .k = a->shape[1],
                            .batch = 1,
                            .transpose_b = transpose_b,
                            .alpha = 1.0f,
                            .a = a->data,
                            .b = b->data,
                            .add = c->data,
                            .c = c->data,
                            .lda = leading(a),
                            .ldb = leading(b),
                            .ldc = c->ld,
                            .c_dtype = FW_BF16};
    return cuda_multiply(cuda, op, &p, error);
}

static unsigned sign_blocks(const cuda_device *cuda, const matrix *x) {
    return cuda_blocks(cuda, sign_words(x->rows, x->columns), SIGN_THREADS);
}

static unsigned piece_blocks(const cuda_device *cuda, const matrix *x) {
    return cuda_blocks(cuda, x->rows * cuda_divide_up(x->columns, 8), THREADS);
}

static fw_status forward_squared(cuda_device *cuda, const fw_linear_activation *a,
                                 fw_error *error) {
    const matrix out = matrix_of(&a->out);
    FW_TRY(multiply(cuda, FORWARD, &a->x, &a->weight, true, &out, error));
    square_signed<<<sign_blocks(cuda, &out), SIGN_THREADS, 0, cuda->stream>>>(
        out, static_cast<uint32_t *>(a->saved), slope_of(a));
    return cuda_launched(cuda, FORWARD, "square_signed", error);
}

static fw_status forward_smooth(cuda_device *cuda, const fw_linear_activation *a, fw_error *error) {
    const matrix out = matrix_of(&a->out);
    const matrix hidden =
        a->saved == NULL ? out : matrix_of(a->saved, out.rows, out.columns, out.columns);
    FW_TRY(multiply(cuda, FORWARD, &a->x, &a->weight, true, &hidden, error));
    const unsigned blocks = piece_blocks(cuda, &out);
    if (a->kind == FW_SILU)
        activate<FW_SILU><<<blocks, THREADS, 0, cuda->stream>>>(hidden, out);
    else
        activate<FW_GELU_TANH><<<blocks, THREADS, 0, cuda->stream>>>(hidden, out);
    return cuda_launched(cuda, FORWARD, "activate", error);
}

static fw_status backward_general(cuda_device *cuda, const fw_linear_activation *a,
                                  fw_error *error) {
    const matrix out = matrix_of(&a->out), gradient = matrix_of(&a->d_hidden);
    FW_TRY(multiply(cuda, BACKWARD, &a->d_y, &a->next_weight, false, &gradient, error));
    if (is_squared(a->kind)) {
        multiply_signed<<<sign_blocks(cuda, &out), SIGN_THREADS, 0, cuda->stream>>>(
            out, static_cast<const uint32_t *>(a->saved), gradient, slope_of(a));
        return cuda_launched(cuda, BACKWARD, "multiply_signed", error);
    }
    const matrix hidden = matrix_of(a->saved, out.rows, out.columns, out.columns);
    const unsigned blocks = piece_blocks(cuda, &out);
    if (a->kind == FW_SILU)
        multiply_slopes<FW_SILU><<<blocks, THREADS, 0, cuda->stream>>>(hidden, gradient);
    else
        multiply_slopes<FW_GELU_TANH><<<blocks, THREADS, 0, cuda->stream>>>(hidden, gradient);
    return cuda_launched(cuda, BACKWARD, "multiply_slopes", error);
}

/* ---- the op ---- */

static size_t saved_bytes(uint32_t kind, int64_t rows, int64_t columns) {
    return (size_t)(is_squared(kind) ? sign_words(rows, columns) * 4 : rows * columns * 2);
}

size_t cuda_linear_activation_saved(fw_device *device, const fw_linear_activation *a) {
    (void)device;
    return saved_bytes(a->kind, a->x.shape[0], a->weight.shape[0]);
}

static fw_status check_saved(const char *op, const fw_linear_activation *a, fw_error *error) {
    const size_t needed = saved_bytes(a->kind, a->out.shape[0], a->out.shape[1]);
    if (a->saved_bytes < needed)
        return fw_fail(error, FW_E_ARGUMENT, "%s: saved has %zu bytes, needs %zu", op,
                       a->saved_bytes, needed);
    if (reinterpret_cast<uintptr_t>(a->saved) % 256 != 0)
        return fw_fail(error, FW_E_ARGUMENT, "%s: saved is not aligned to 256 bytes", op);
    return FW_OK;
}

static fw_status check_kind(const char *op, uint32_t kind, fw_error *error) {
    if (kind < FW_LEAKY_RELU_SQUARED || kind > FW_SILU)
        return fw_fail(error, FW_E_UNSUPPORTED, "%s: there is no activation %u", op, kind);
    return FW_OK;
}

fw_status cuda_linear_activation_forward(fw_device *device, const fw_linear_activation *a,
                                         fw_error *error) {
    CUDA_ARGUMENTS(FORWARD, device, a, error);
    cuda_device *cuda = cuda_self(device);
    FW_TRY(cuda_check_matrix(FORWARD, "x", &a->x, FW_BF16, -1, -1, error));
    FW_TRY(cuda_check_matrix(FORWARD, "weight", &a->weight, FW_BF16, -1, a->x.shape[1], error));
    FW_TRY(cuda_check_matrix(FORWARD, "out", &a->out, FW_BF16, a->x.shape[0], a->weight.shape[0],
                             error));
    FW_TRY(check_kind(FORWARD, a->kind, error));
    if (a->saved != NULL) FW_TRY(check_saved(FORWARD, a, error));
    if (fw_tensor_count(&a->out) == 0) return FW_OK;
    if (cuda_linear_activation_forward_hopper_takes(cuda, a))
        return cuda_linear_activation_forward_hopper(cuda, a, error);
    return is_squared(a->kind) ? forward_squared(cuda, a, error) : forward_smooth(cuda, a, error);
}

fw_status cuda_linear_activation_backward(fw_device *device, const fw_linear_activation *a,
                                          fw_error *error) {
    CUDA_ARGUMENTS(BACKWARD, device, a, error);
    cuda_device *cuda = cuda_self(device);
    FW_TRY(cuda_check_matrix(BACKWARD, "d_y", &a->d_y, FW_BF16, -1, -1, error));
    FW_TRY(cuda_check_matrix(BACKWARD, "next_weight", &a->next_weight, FW_BF16, a->d_y.shape[1], -1,
                             error));
    const int64_t rows = a->d_y.shape[0], columns = a->next_weight.shape[1];
    FW_TRY(cuda_check_matrix(BACKWARD, "d_hidden", &a->d_hidden, FW_BF16, rows, columns, error));
    FW_TRY(cuda_check_matrix(BACKWARD, "out", &a->out, FW_BF16, rows, columns, error));
    FW_TRY(check_kind(BACKWARD, a->kind, error));
    if (a->saved == NULL) return fw_fail(error, FW_E_ARGUMENT, "%s: saved is NULL", BACKWARD);
    FW_TRY(check_saved(BACKWARD, a, error));
    if (fw_tensor_count(&a->out) == 0) return FW_OK;
    if (cuda_linear_activation_backward_hopper_takes(cuda, a))
        return cuda_linear_activation_backward_hopper(cuda, a, error);
    return backward_general(cuda, a, error);
}

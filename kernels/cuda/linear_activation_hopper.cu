/* The squared activations fused into the products around them, on Hopper. Forward, the product's
 * registers hold h = x weight^T; what is written is l * l and the sign of h, so that no
 * pre-activation ever reaches memory. Backward, they hold the gradient of l * l, and |l| comes back
 * as the root of what forward wrote. */
#include "linear_activation.h"

#include "gemm_hopper.cuh"

#define FORWARD "linear_activation_forward"
#define BACKWARD "linear_activation_backward"

#define TILE_COLUMNS 256
#define TILE_STAGES 4

using hopper::bf16;
using hopper::gemm_place;
using hopper::gemm_sizes;

/* Sign blocks of a tile's columns; the block of its column `i` of 64. */
#define SIGN_COLUMNS (TILE_COLUMNS / SIGN_SIDE)

__device__ __forceinline__ uint32_t pack(float low, float high) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&both);
}

__device__ __forceinline__ void store(bf16 *to, const uint32_t (&v)[4]) {
    *reinterpret_cast<uint4 *>(to) = make_uint4(v[0], v[1], v[2], v[3]);
}

/* The thread's pieces of 8 columns in its two rows of a matrix, one in each group of columns. */
template <typename T> struct pieces {
    T *row[2];
    bool inside[2];
    int columns; /* of the tile, as far as the matrix goes */

    __device__ __forceinline__ pieces(T *matrix, int64_t ld, const gemm_sizes &sizes,
                                      const gemm_place &place) {
        row[0] = matrix + place.row * ld + place.column;
        row[1] = row[0] + 8 * ld;
        inside[0] = place.row < sizes.rows;
        inside[1] = place.row + 8 < sizes.rows;
        columns = sizes.columns - place.block_column;
    }
    __device__ __forceinline__ bool has(int g, int h) const {
        return inside[h] && GEMM_GROUP * g < columns;
    }
    __device__ __forceinline__ T *at(int g, int h) const { return row[h] + GEMM_GROUP * g; }
};

/* The word of this thread's signs in block `i` of the tile's columns. */
__device__ __forceinline__ int64_t sign_at(const gemm_sizes &sizes, const gemm_place &place,
                                           int i) {
    const int64_t across = (sizes.columns + SIGN_SIDE - 1) / SIGN_SIDE;
    const int64_t block = place.block_row / SIGN_SIDE * across + place.block_column / SIGN_SIDE + i;
    return block * SIGN_THREADS + place.thread;
}

__device__ __forceinline__ bool sign_inside(const gemm_sizes &sizes, const gemm_place &place,
                                            int i) {
    return place.block_row < sizes.rows && place.block_column + SIGN_SIDE * i < sizes.columns;
}

/* out = l * l, signs of h. */
struct squared_forward {
    struct arguments {
        bf16 *out;
        int64_t ld;
        uint32_t *signs;     /* NULL: not wanted */
        float plain, folded; /* l * l = h (plain h + folded |h|) */
    };

    __device__ __forceinline__ void prepare(const arguments &, const gemm_sizes &,
                                            const gemm_place &) {}

    static __device__ __forceinline__ float square(const arguments &to, float h) {
        return h * fmaf(to.plain, h, to.folded * fabsf(h));
    }

    __device__ __forceinline__ void finish(const arguments &to, const gemm_sizes &sizes,
                                           const gemm_place &place,
                                           const float (&c)[TILE_COLUMNS / 2]) {
        const pieces<bf16> out(to.out, to.ld, sizes, place);
        uint32_t word = 0;
#pragma unroll
        for (int g = 0; g < TILE_COLUMNS / GEMM_GROUP; g++) {
            uint32_t packed[2][4];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float first = c[16 * g + 2 * i], second = c[16 * g + 2 * i + 1];
                word = __funnelshift_l(__float_as_uint(first), word, 1);
                word = __funnelshift_l(__float_as_uint(second), word, 1);
                packed[i % 2][i / 2] = pack(square(to, first), square(to, second));
            }
#pragma unroll
            for (int h = 0; h < 2; h++)
                if (out.has(g, h)) store(out.at(g, h), packed[h]);
            if (g % 2 == 1 && to.signs != NULL && sign_inside(sizes, place, g / 2))
                to.signs[sign_at(sizes, place, g / 2)] = word;
        }
    }
};

/* d_hidden = c * f', f' = 2 |l| where h was positive and -2 |slope| |l| where it was not. */
struct squared_backward {
    struct arguments {
        const bf16 *out;
        bf16 *d_hidden;
        int64_t ld_out, ld;
        const uint32_t *signs;
        float below; /* -2 |slope| */
    };

    uint4 squares[TILE_COLUMNS / GEMM_GROUP][2];
    uint32_t words[SIGN_COLUMNS];

    /* Volatile, so that the loads are issued here and not where they are used. */
    static __device__ __forceinline__ uint4 load(const bf16 *from) {
        uint4 v;
        asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(from));
        return v;
    }
    static __device__ __forceinline__ uint32_t load(const uint32_t *from) {
        uint32_t v;
        asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(from));
        return v;
    }

    __device__ __forceinline__ void prepare(const arguments &from, const gemm_sizes &sizes,
                                            const gemm_place &place) {
        const pieces<const bf16> out(from.out, from.ld_out, sizes, place);
#pragma unroll
        for (int g = 0; g < TILE_COLUMNS / GEMM_GROUP; g++) {
            if (g % 2 == 0)
                words[g / 2] = sign_inside(sizes, place, g / 2)
                                   ? load(from.signs + sign_at(sizes, place, g / 2))
                                   : 0;
#pragma unroll
            for (int h = 0; h < 2; h++)
                squares[g][h] = out.has(g, h) ? load(out.at(g, h)) : make_uint4(0, 0, 0, 0);
        }
    }

    static __device__ __forceinline__ float root(uint32_t bits) {
        float y;
        asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(__uint_as_float(bits)));
        return y;
    }

    __device__ __forceinline__ void finish(const arguments &to, const gemm_sizes &sizes,
                                           const gemm_place &place,
                                           const float (&c)[TILE_COLUMNS / 2]) {
        const pieces<bf16> d_hidden(to.d_hidden, to.ld, sizes, place);
#pragma unroll
        for (int g = 0; g < TILE_COLUMNS / GEMM_GROUP; g++) {
            uint32_t packed[2][4];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const uint4 &four = squares[g][i % 2];
                const uint32_t pair = i / 2 == 0   ? four.x
                                      : i / 2 == 1 ? four.y
                                      : i / 2 == 2 ? four.z
                                                   : four.w;
                const uint32_t word = words[g / 2] << (16 * (g % 2) + 2 * i);
                const float s0 = (int32_t)word < 0 ? to.below : 2.0f;
                const float s1 = (int32_t)(word << 1) < 0 ? to.below : 2.0f;
                packed[i % 2][i / 2] =
                    pack(c[16 * g + 2 * i] * (s0 * root(pair << 16)),
                         c[16 * g + 2 * i + 1] * (s1 * root(pair & 0xffff0000u)));
            }
#pragma unroll
            for (int h = 0; h < 2; h++)
                if (d_hidden.has(g, h)) store(d_hidden.at(g, h), packed[h]);
        }
    }
};

static int64_t leading(const fw_tensor *t) {
    return t->shape[0] > 1 ? t->stride[0] : cuda_max(t->shape[1], 8);
}

static bool takes_tensor(const fw_tensor *t) {
    return hopper::gemm_takes_matrix(t->data, leading(t));
}

/* ---- forward ---- */

/* Slopes for which l * l is exact enough as h (plain h + folded |h|): the two terms must not cancel
 * to a small fraction of each. */
static bool takes_slope(float slope) { return slope == 0.0f || fabsf(slope) >= 1.0f / 32.0f; }

bool cuda_linear_activation_forward_hopper_takes(const cuda_device *cuda,
                                                 const fw_linear_activation *a) {
    return is_squared(a->kind) && takes_slope(slope_of(a)) &&
           hopper::gemm_takes(cuda, a->x.shape[0], a->weight.shape[0], a->x.shape[1]) &&
           takes_tensor(&a->x) && takes_tensor(&a->weight) && takes_tensor(&a->out);
}

fw_status cuda_linear_activation_forward_hopper(cuda_device *cuda, const fw_linear_activation *a,
                                                fw_error *error) {
    const int64_t rows = a->x.shape[0], depth = a->x.shape[1], columns = a->weight.shape[0];
    CUtensorMap map_x, map_weight;
    FW_TRY(hopper::gemm_map_a(cuda, &map_x, a->x.data, rows, depth, leading(&a->x), error));
    FW_TRY(hopper::gemm_map_b(cuda, &map_weight, a->weight.data, columns, depth,
                              leading(&a->weight), TILE_COLUMNS, error));
    const float slope = slope_of(a);
    const squared_forward::arguments to = {.out = static_cast<bf16 *>(a->out.data),
                                           .ld = leading(&a->out),
                                           .signs = static_cast<uint32_t *>(a->saved),
                                           .plain = 0.5f * (1.0f + slope * slope),
                                           .folded = 0.5f * (1.0f - slope * slope)};
    const gemm_sizes sizes = {(int)rows, (int)columns, (int)depth};
    return hopper::gemm_launch<TILE_COLUMNS, TILE_STAGES, squared_forward>(
        cuda, FORWARD, map_x, map_weight, sizes, to, error);
}

/* ---- backward ---- */

#define SIDE 32

/* to[columns, rows] = from[rows, columns]^T: the product wants its second operand K-major, and a
 * weight is small beside the activations. */
__global__ void __launch_bounds__(SIDE * 8)
    transpose_weight(const bf16 *from, bf16 *to, int rows, int columns, int64_t ld) {
    __shared__ bf16 tile[SIDE][SIDE + 2];
    const int row0 = blockIdx.y * SIDE, column0 = blockIdx.x * SIDE;
    for (int i = threadIdx.y; i < SIDE; i += 8)
        if (row0 + i < rows && column0 + threadIdx.x < columns)
            tile[i][threadIdx.x] = from[(row0 + i) * ld + column0 + threadIdx.x];
    __syncthreads();
    for (int i = threadIdx.y; i < SIDE; i += 8)
        if (column0 + i < columns && row0 + threadIdx.x < rows)
            to[(int64_t)(column0 + i) * rows + row0 + threadIdx.x] = tile[threadIdx.x][i];
}

bool cuda_linear_activation_backward_hopper_takes(const cuda_device *cuda,
                                                  const fw_linear_activation *a) {
    const int64_t rows = a->d_y.shape[0], depth = a->d_y.shape[1];
    const int64_t columns = a->next_weight.shape[1];
    return is_squared(a->kind) && hopper::gemm_takes(cuda, rows, columns, depth) &&
           depth < 65536 * SIDE && (size_t)(depth * columns) * 2 <= CUDA_WORKSPACE_BYTES &&
           takes_tensor(&a->d_y) && takes_tensor(&a->out) && takes_tensor(&a->d_hidden);
}

fw_status cuda_linear_activation_backward_hopper(cuda_device *cuda, const fw_linear_activation *a,
                                                 fw_error *error) {
    const int64_t rows = a->d_y.shape[0], depth = a->d_y.shape[1];
    const int64_t columns = a->next_weight.shape[1];
    CUtensorMap map_d_y, map_weight;
    FW_TRY(hopper::gemm_map_a(cuda, &map_d_y, a->d_y.data, rows, depth, leading(&a->d_y), error));
    FW_TRY(hopper::gemm_map_b(cuda, &map_weight, cuda->workspace, columns, depth, depth,
                              TILE_COLUMNS, error));
    const dim3 blocks((unsigned)cuda_divide_up(columns, SIDE),
                      (unsigned)cuda_divide_up(depth, SIDE));
    transpose_weight<<<blocks, dim3(SIDE, 8), 0, cuda->stream>>>(
        static_cast<const bf16 *>(a->next_weight.data), reinterpret_cast<bf16 *>(cuda->workspace),
        (int)depth, (int)columns, leading(&a->next_weight));
    FW_TRY(cuda_launched(cuda, BACKWARD, "transpose_weight", error));
    const squared_backward::arguments to = {.out = static_cast<const bf16 *>(a->out.data),
                                            .d_hidden = static_cast<bf16 *>(a->d_hidden.data),
                                            .ld_out = leading(&a->out),
                                            .ld = leading(&a->d_hidden),
                                            .signs = static_cast<const uint32_t *>(a->saved),
                                            .below = -2.0f * fabsf(slope_of(a))};
    const gemm_sizes sizes = {(int)rows, (int)columns, (int)depth};
    return hopper::gemm_launch<TILE_COLUMNS, TILE_STAGES, squared_backward>(
        cuda, BACKWARD, map_d_y, map_weight, sizes, to, error);
}
